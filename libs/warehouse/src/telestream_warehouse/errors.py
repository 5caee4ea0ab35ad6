"""TelestreamError
└── WarehouseError
    ├── WarehouseUnavailable   no answer, or one that says "later": whether it was done is unknown; do it again
    ├── WarehouseRefused       ClickHouse understood and will never take it: doing it again changes nothing
    └── MigrationError         tables are not as the migrations of this version leave them
"""

from __future__ import annotations

from telestream_domain import TelestreamError


class WarehouseError(TelestreamError):
    pass


class WarehouseUnavailable(WarehouseError):
    pass


class WarehouseRefused(WarehouseError):
    """``code`` is ClickHouse's error code, None if the answer had none."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class MigrationError(WarehouseError):
    pass
