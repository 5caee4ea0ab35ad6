"""What stops the aggregator.

TelestreamError
└── AggregatorError
    ├── NotDense         src_offset does not follow its predecessor: a gap or a repeat in the enriched topic (I2)
    ├── NotRecoverable   the open segment's state cannot be had from the log
    │   ├── LogCut           what it is made from is no longer there
    │   ├── PositionGone     there are upserts, but the group has committed nothing
    │   ├── PositionForeign  the position was committed by something else
    │   └── SettingsDiffer   it was made with other settings
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


class LogCut(NotRecoverable):
    """Going on would leave out what was counted."""


class PositionGone(NotRecoverable):
    """Beginning anew would count everything again."""


class PositionForeign(NotRecoverable):
    """Only what was committed with its metadata can be gone on from."""


class SettingsDiffer(NotRecoverable):
    """Sums made with both would be neither."""


class UnknownSchema(AggregatorError):
    """The registry is not as the writers left it."""
