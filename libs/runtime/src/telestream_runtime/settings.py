"""Settings, only from ``TELESTREAM_*``, read once and checked in full: all mistakes are reported together.

Every secret ``NAME`` can be given as a file by ``NAME_FILE``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from telestream_domain import DEFAULT_PREFIX, TelestreamError, Topics

PREFIX = "TELESTREAM_"
FILE_SUFFIX = "_FILE"

Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(TelestreamError):
    """All settings that cannot work, one per line."""


class ServiceSettings(BaseSettings):
    """What every service reads. A service adds its own fields in a subclass."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    kafka: str = Field("127.0.0.1:18092", description="Kafka bootstrap servers")
    registry: str = Field("http://127.0.0.1:18085/apis/ccompat/v7", description="Schema registry URL (Confluent's API)")
    clickhouse: str = Field("http://127.0.0.1:18023", description="ClickHouse HTTP URL")
    clickhouse_database: str = Field(
        "telestream", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="ClickHouse database"
    )
    postgres: SecretStr = Field(
        SecretStr("postgresql://postgres@127.0.0.1:18032/telestream"), description="PostgreSQL DSN"
    )
    gateway: str = Field("http://127.0.0.1:18080", description="Gateway URL, asked for pseudonyms")
    topic_prefix: str = Field(
        DEFAULT_PREFIX, pattern=r"^[A-Za-z0-9._-]*$", description="What every topic name starts with"
    )
    generation: int = Field(1, ge=1, description="Generation this process derives")
    instance: int = Field(0, ge=0, description="Ordinal of this process among its like; fixes its Kafka ids")
    admin_host: str = Field("127.0.0.1", description="Address of /livez, /readyz, /metrics")
    admin_port: Port = Field(18199, description="Port of /livez, /readyz, /metrics")
    business_timezone: str = Field("UTC", description="IANA zone of local days")
    log_format: Literal["auto", "json", "human"] = Field("auto", description="auto: human on a terminal, else JSON")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged")
    state_dir: Path = Field(Path(".telestream"), description="Where caches may lie; may be emptied at any time")

    @field_validator("business_timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"{name!r} is not an IANA time zone such as Europe/Paris")
        return name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # the environment reaches us through from_env alone, so that two services can live in one test
        return (init_settings,)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read ``environ`` (the process's by default). Raises SettingsError that lists every mistake."""
        source = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        mistakes: list[str] = []
        for name in cls.model_fields:
            variable = PREFIX + name.upper()
            if variable in source:
                values[name] = source[variable]
            elif variable + FILE_SUFFIX in source:
                path = Path(source[variable + FILE_SUFFIX])
                try:
                    values[name] = path.read_text(encoding="utf-8").strip()
                except OSError as err:
                    mistakes.append(f"{variable}{FILE_SUFFIX}: cannot read {path}: {err.strerror}")
        try:
            settings = cls(**values)
        except ValidationError as err:
            for entry in err.errors():
                field = ".".join(str(part) for part in entry["loc"])
                mistakes.append(f"{PREFIX}{field.upper()}: {entry['msg'].removeprefix('Value error, ')}")
            raise SettingsError("settings that cannot work:\n  " + "\n  ".join(mistakes)) from err
        if mistakes:
            raise SettingsError("settings that cannot work:\n  " + "\n  ".join(mistakes))
        return settings

    @property
    def topics(self) -> Topics:
        return Topics(self.topic_prefix, self.generation)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.business_timezone)


class HttpSettings(ServiceSettings):
    """Of a service with an HTTP API."""

    http_host: str = Field("127.0.0.1", description="Address of the API")
    http_port: Port = Field(18080, description="Port of the API")
