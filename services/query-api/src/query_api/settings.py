"""Settings of the query API."""

from __future__ import annotations

from pydantic import Field, SecretStr

from telestream_runtime import HttpSettings
from telestream_runtime.settings import Port


class QuerySettings(HttpSettings):
    """What ``python -m query_api`` reads from ``TELESTREAM_*``."""

    http_port: Port = Field(18081, description="Port of the API")
    admin_port: Port = Field(18105, description="Port of /livez, /readyz, /metrics")
    api_key: SecretStr | None = Field(
        None, description="Key with which the gateway is asked for pseudonyms; without one, the caller's is used"
    )
    clickhouse_user: str = Field("default", description="ClickHouse user; production: one with readonly=1")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="Its password")
    query_threads: int = Field(4, ge=1, le=64, description="Questions asked of ClickHouse at the same time")
    query_timeout_s: int = Field(10, ge=1, le=300, description="Seconds a question may take in ClickHouse")
    query_max_rows: int = Field(50_000, ge=100, le=1_000_000, description="Rows an answer may have")
    tail_max_keys: int = Field(
        1_500_000, ge=1_000, description="Rows of live minutes held in memory; beyond that the oldest minutes go"
    )
    drain_s: int = Field(20, ge=1, le=25, description="Seconds that open requests may take at shutdown")
