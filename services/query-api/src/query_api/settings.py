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
    clickhouse_writer: str = Field(
        "", description="ClickHouse user that may activate and drop generations; empty: the one above"
    )
    clickhouse_writer_password: SecretStr = Field(SecretStr(""), description="Its password")
    query_threads: int = Field(4, ge=1, le=64, description="Questions asked of ClickHouse at the same time")
    query_timeout_s: int = Field(10, ge=1, le=300, description="Seconds a question may take in ClickHouse")
    query_max_rows: int = Field(50_000, ge=100, le=1_000_000, description="Rows an answer may have")
    tail_max_keys: int = Field(
        1_500_000, ge=1_000, description="Rows of live minutes held in memory; beyond that the oldest minutes go"
    )
    tail_max_generations: int = Field(
        3, ge=1, le=8, description="Generations whose live minutes are held: what people see, then the newest replays"
    )
    drain_s: int = Field(20, ge=1, le=25, description="Seconds that open requests may take at shutdown")
    gate_max_rejected_share: float = Field(
        0.05, ge=0, le=1, description="Share of rejected records beyond which a generation is not activated"
    )
    gate_max_rejected_rise: float = Field(
        0.005, ge=0, le=1, description="How far that share may lie above the active generation's, of the same records"
    )
    gate_max_lag_records: int = Field(
        50_000, ge=0, description="Records not stored yet beyond which a generation is not activated"
    )
    gate_timeout_s: int = Field(300, ge=10, le=3_600, description="Seconds that counting for the gate may take")
