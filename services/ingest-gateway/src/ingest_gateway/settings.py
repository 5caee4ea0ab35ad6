"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from telestream_runtime import HttpSettings

MIN_KEY_BYTES = 32


class GatewaySettings(HttpSettings):
    admin_port: int = Field(18101, ge=1, le=65535, description="Port of /livez, /readyz, /metrics")
    identity: Literal["pseudonym", "clear"] = Field(
        "pseudonym", description="clear: numbers are kept as they are, for who must"
    )
    identity_key: SecretStr = Field(description="Hex, 32 bytes or more: makes the pseudonyms")
    permanent_key: SecretStr = Field(description="Hex, 32 bytes or more: event uids and partitions; never rotated")
    profiles_dir: Path | None = Field(None, description="Folder of further profiles, looked in before the shipped ones")
    ack_timeout_ms: int = Field(
        10_000, ge=1_000, le=300_000, description="How long Kafka may take to acknowledge before the answer is 503"
    )
    max_in_flight_bytes: int = Field(64 << 20, ge=1 << 20, description="Bodies being judged or sent; more is 429")
    max_file_bytes: int = Field(16 << 30, ge=1 << 20, description="Largest file, packed and unpacked")
    backfill_wait_ms: int = Field(
        800, ge=50, le=60_000, description="A backfill slows down when live records wait longer to be aggregated"
    )
    backfill_floor: int = Field(
        500,
        ge=1,
        le=1_000_000,
        description="Records a second that all backfills together send, however long live waits",
    )
    max_files: int = Field(8, ge=1, description="Files uploaded or loaded at once; more is 429")

    @field_validator("identity_key", "permanent_key")
    @classmethod
    def _long_enough(cls, key: SecretStr) -> SecretStr:
        try:
            raw = bytes.fromhex(key.get_secret_value())
        except ValueError:
            raise ValueError("must be hexadecimal; `openssl rand -hex 32` makes one") from None
        if len(raw) < MIN_KEY_BYTES:
            raise ValueError(f"must be {MIN_KEY_BYTES} bytes or more in hexadecimal; it has {len(raw)}")
        return key
