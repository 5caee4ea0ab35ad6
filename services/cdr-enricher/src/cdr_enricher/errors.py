"""TelestreamError
└── EnricherError         what the enricher cannot go on with
    ├── JudgementBroken   raw, enriched and the group's position do not fit together (I2)
    └── Unsupported       a record this version cannot judge
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class EnricherError(TelestreamError):
    pass


class JudgementBroken(EnricherError):
    pass


class Unsupported(EnricherError):
    pass
