"""TelestreamError
└── OpstoreError
    ├── OpstoreUnavailable   PostgreSQL does not answer: try again
    ├── WrongKey             a secret other than the one this installation was started with
    ├── ReplayInWork         another replay of a type is not decided yet
    └── WrongState           a generation is not in the state that this needs
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class OpstoreError(TelestreamError):
    pass


class OpstoreUnavailable(OpstoreError):
    pass


class WrongKey(OpstoreError):
    pass


class ReplayInWork(OpstoreError):
    pass


class WrongState(OpstoreError):
    pass
