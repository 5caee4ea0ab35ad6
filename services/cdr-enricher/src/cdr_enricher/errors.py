"""TelestreamError
└── EnricherError         what the enricher cannot go on with
    ├── JudgementBroken   raw, enriched and the group's position do not fit together (I2)
    │   ├── RawNotDense       a raw offset is missing or comes again
    │   ├── JudgedNotDense    a judged record is missing or comes again
    │   ├── JudgedCut         judged records that the group's position speaks for are gone
    │   ├── PositionGone      there are judged records, but the group has committed nothing
    │   ├── PositionForeign   the position was committed by something else
    │   └── SettingsDiffer    it was judged with other settings
    ├── RejectionsAboveLimit  so much is rejected that the fault is elsewhere; stops a partition, not the worker
    └── Unsupported       a record this version cannot judge
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class EnricherError(TelestreamError):
    pass


class JudgementBroken(EnricherError):
    pass


class RawNotDense(JudgementBroken):
    pass


class JudgedNotDense(JudgementBroken):
    pass


class JudgedCut(JudgementBroken):
    pass


class PositionGone(JudgementBroken):
    pass


class PositionForeign(JudgementBroken):
    pass


class SettingsDiffer(JudgementBroken):
    pass


class RejectionsAboveLimit(EnricherError):
    pass


class Unsupported(EnricherError):
    pass
