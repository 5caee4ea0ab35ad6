"""The enricher's settings."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from cdr_enricher.domain.dedupe import DEDUP_HORIZON
from telestream_domain import OVERRIDABLE, SEGMENT_BITS, Severity
from telestream_runtime import ServiceSettings
from telestream_runtime.settings import Port

_PLMN = re.compile(r"[0-9]{3}-[0-9]{2,3}")
_CHOICES = {severity.value: severity for severity in (Severity.REJECTED, Severity.WARN)}


class EnricherSettings(ServiceSettings):
    admin_port: Port = Field(18102, description="Port of /livez, /readyz, /metrics")
    runner: Literal["faust", "plain"] = Field("faust", description="faust: Faust's agents; plain: a loop without Faust")
    commit_interval_ms: int = Field(100, ge=10, le=5_000, description="Longest time between two commits under load")
    max_batch_records: int = Field(20_000, ge=1, le=200_000, description="Records judged at once")
    lateness_s: int = Field(300, ge=0, le=86_400, description="How long after its end an event is still expected")
    dedup_horizon_days: int = Field(
        DEDUP_HORIZON.days, ge=1, le=1_000, description="How long a stored record is remembered; fixed per generation"
    )
    dedup_segment_bits: int = Field(
        SEGMENT_BITS, ge=4, le=24, description="log2 of the records remembered in one piece; fixed per generation"
    )
    max_rejected_share: float = Field(
        0.5, gt=0, le=1, description="Share of a partition's last records beyond which rejections stop it; 1: never"
    )
    max_rejected_window: int = Field(10_000, ge=100, le=1_000_000, description="How many last records that share is of")
    home_plmns: tuple[str, ...] = Field((), description="The operator's own networks, as 208-01,208-02: for roaming")
    severities: dict[str, Severity] = Field(
        {}, description="Rules judged otherwise than by default, as duration_too_long=rejected,too_old=warn"
    )

    @field_validator("home_plmns", mode="before")
    @classmethod
    def _plmns(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        plmns = tuple(part.strip() for part in given.split(",") if part.strip())
        wrong = [plmn for plmn in plmns if not _PLMN.fullmatch(plmn)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: a network is MCC-MNC, such as 208-01")
        return plmns

    @field_validator("severities", mode="before")
    @classmethod
    def _severities(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        chosen: dict[str, Severity] = {}
        for part in filter(None, (part.strip() for part in given.split(","))):
            code, _, severity = (piece.strip() for piece in part.partition("="))
            if code not in OVERRIDABLE:
                raise ValueError(f"{code!r} is none of {', '.join(sorted(OVERRIDABLE))}")
            if severity not in _CHOICES:
                raise ValueError(f"{part!r}: a severity is one of {', '.join(_CHOICES)}")
            chosen[code] = _CHOICES[severity]
        return chosen

    @property
    def lateness_ms(self) -> int:
        return self.lateness_s * 1_000
