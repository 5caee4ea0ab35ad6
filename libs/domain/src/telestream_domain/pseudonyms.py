"""What a subscriber is called past the gateway, and what may be shown of one."""

from __future__ import annotations

import re

PSEUDONYM = "^k[0-9]{1,3}[.][A-Za-z0-9_-]{22}$"
"""Which key, and 128 bits. A pattern of Python's, Polars' and ClickHouse's alike."""

MASKED = "masked"

_pseudonym = re.compile(PSEUDONYM)


def is_pseudonym(text: str) -> bool:
    return _pseudonym.fullmatch(text) is not None


def shown_subscriber(subscriber_id: str) -> str:
    """A pseudonym may be shown, a number may not."""
    return subscriber_id if is_pseudonym(subscriber_id) else MASKED


def shown_subscriber_sql(column: str) -> str:
    """The same of a column, in ClickHouse's SQL."""
    return f"if(match({column}, '{PSEUDONYM}'), {column}, '{MASKED}')"
