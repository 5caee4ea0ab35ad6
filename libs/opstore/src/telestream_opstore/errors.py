"""TelestreamError
└── OpstoreError
    ├── OpstoreUnavailable   PostgreSQL does not answer: try again
    └── WrongKey             a secret other than the one this installation was started with
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class OpstoreError(TelestreamError):
    pass


class OpstoreUnavailable(OpstoreError):
    pass


class WrongKey(OpstoreError):
    pass
