"""What the sink reads from its environment."""

from __future__ import annotations

from pydantic import Field

from telestream_runtime import ServiceSettings
from telestream_runtime.settings import Port


class SinkSettings(ServiceSettings):
    """A batch is written when it has enough rows or bytes, or is old enough."""

    admin_port: Port = Field(18104, description="Port of /livez, /readyz, /metrics")
    sink_max_rows: int = Field(75_000, ge=1, le=1_000_000, description="Records of one batch into ClickHouse")
    sink_max_bytes: int = Field(
        28 << 20, ge=1 << 16, le=1 << 30, description="Bytes of one batch, as they stand in Kafka; bounds the memory"
    )
    sink_max_age_ms: int = Field(1_000, ge=10, le=600_000, description="Longest wait of a record for its batch to fill")
    sink_insert_timeout_s: float = Field(
        120.0, gt=0, le=280, description="After this an insert counts as unanswered and is sent again"
    )
    sink_max_backoff_s: float = Field(15.0, gt=0, le=240, description="Longest wait between tries of ClickHouse")
