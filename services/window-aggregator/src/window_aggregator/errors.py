"""What stops the aggregator.

TelestreamError
└── AggregatorError
    ├── NotDense         src_offset does not follow its predecessor: a gap or a repeat in the enriched topic (I2)
    ├── NotRecoverable   the open segment's state cannot be had from the log
    └── UnknownSchema    a value's schema id is not registered
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class AggregatorError(TelestreamError):
    """Base of the errors of this service."""


class NotDense(AggregatorError):
    """The check under I2."""


class NotRecoverable(AggregatorError):
    """Going on would give other aggregates than an uninterrupted run."""


class UnknownSchema(AggregatorError):
    """The registry is not as the writers left it."""
