"""TelestreamError
└── ContractError
    ├── DecodeError      a value that is not what its schema says
    ├── EncodeError      a column that its schema cannot hold (our own mistake: stops the worker)
    ├── RegistryError    the schema registry does not answer, or does not know an id or subject
    └── TopicsError      topics missing or set up otherwise than the table says
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class ContractError(TelestreamError):
    pass


class DecodeError(ContractError):
    pass


class EncodeError(ContractError):
    pass


class RegistryError(ContractError):
    pass


class TopicsError(ContractError):
    pass
