"""What a generation's row fixes: settings that its state depends on, as the first worker had them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telestream_opstore.connection import connect, run_sync

Fixed = Mapping[str, str | int]
"""Name to value."""

INSTALLATION = 0
"""The generation of what belongs to raw, which all generations share."""


async def fix_generation_async(
    dsn: str, topic_prefix: str, generation: int, settings: Mapping[str, Fixed]
) -> dict[str, dict[str, str | int]]:
    """Fix what is not fixed yet, and return all that is, by type. One statement a type: of several workers that start
    at once, one writes and the others read. Raises OpstoreUnavailable, OpstoreError."""
    kept: dict[str, dict[str, str | int]] = {}
    async with connect(dsn) as connection:
        for record_type in sorted(settings):
            # what was fixed first stays: the right operand of || wins
            found: Any = await connection.fetchval(
                "INSERT INTO generation (topic_prefix, generation, type, settings) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT (topic_prefix, generation, type) "
                "DO UPDATE SET settings = excluded.settings || generation.settings RETURNING settings",
                topic_prefix,
                generation,
                record_type,
                dict(settings[record_type]),
            )
            kept[record_type] = dict(found)
    return kept


def fix_generation(
    dsn: str, topic_prefix: str, generation: int, settings: Mapping[str, Fixed]
) -> dict[str, dict[str, str | int]]:
    """``fix_generation_async`` for code without an event loop."""
    return run_sync(fix_generation_async(dsn, topic_prefix, generation, settings))
