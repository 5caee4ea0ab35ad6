"""The aggregator's settings. Intervals are the rhythm of the design; longer ones mean fewer upserts, later figures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from telestream_runtime import ServiceSettings
from telestream_runtime.settings import Port
from window_aggregator.domain.rhythm import Rhythm, default_beats

Seconds = Annotated[float, Field(ge=0.05, le=3_600)]


class AggregatorSettings(ServiceSettings):
    admin_port: Port = Field(18103, description="Port of /livez, /readyz, /metrics")
    runner: Literal["faust", "plain"] = Field("faust", description="faust: Faust's agents; plain: a loop without Faust")
    commit_interval_ms: int = Field(200, ge=10, le=5_000, description="Longest time between two commits under load")
    minute_flush_s: Seconds = Field(0.5, description="Recent one-minute windows of regions and plans")
    cell_minute_flush_s: Seconds = Field(10, description="Recent one-minute windows of cells")
    quarter_flush_s: Seconds = Field(60, description="15-minute windows, and one-minute windows over 75 minutes old")
    subscriber_day_flush_s: Seconds = Field(120, description="Subscriber-days")
    quality_flush_s: Seconds = Field(1, description="Quality by source, hour of arrival, verdict and rule")
    idle_flush_s: Seconds = Field(2, description="Everything, once no record has come for this long")

    @property
    def rhythm(self) -> Rhythm:
        return Rhythm(
            default_beats(
                minute_ms=_ms(self.minute_flush_s),
                cell_minute_ms=_ms(self.cell_minute_flush_s),
                quarter_ms=_ms(self.quarter_flush_s),
                subscriber_day_ms=_ms(self.subscriber_day_flush_s),
                quality_ms=_ms(self.quality_flush_s),
            ),
            idle_ms=_ms(self.idle_flush_s),
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)
