"""Shapes of a comparison of two generations, for the OpenAPI document."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Charge(BaseModel):
    currency: str
    amount: str = Field(description="Exact decimal text")


class ComparedSums(BaseModel):
    records: int
    duration_ms: int
    bytes: int
    charges: list[Charge]


class ComparedSide(BaseModel):
    """Counts of judged records by verdict; of a difference, this less other."""

    records: int = Field(description="All judged records, reversals too")
    stored: int = Field(description="Reversals apart, also if one takes it back")
    withdrawn: int = Field(description="Reversals that took effect")
    duplicates: int
    conflicts: int = Field(description="Part of duplicates")
    rejected_records: int
    rejected: dict[str, int] = Field(description="By code")
    erased: int
    without_effect: int = Field(description="Reversals that undid nothing")
    warned: int
    sums: ComparedSums = Field(description="Of what stands stored: reversals taken out")


class Spanned(BaseModel):
    partition: int
    first: int
    end: int = Field(description="Not included")


class BothSides(BaseModel):
    this: int
    other: int


class Judgement(BaseModel):
    verdict: str | None
    rule: str | None


class BothVerdicts(BaseModel):
    this: Judgement
    other: Judgement
    records: int


class ComparedSample(BaseModel):
    partition: int
    offset: int
    source: str
    this: Judgement
    other: Judgement
    columns: list[str] = Field(description="What differs; never its values")


class OfSource(BaseModel):
    source: str
    records: int


class OfRegion(BaseModel):
    region_id: str = Field(description="Empty: not known")
    records: int


class Why(BaseModel):
    cause: str
    rule: str | None = Field(description="Of rule_changed: the code")
    records: int
    share: float = Field(description="Of the records compared")
    sums: ComparedSums = Field(description="What these records carry, as they were read")
    verdicts: list[BothVerdicts]
    by_source: list[OfSource] = Field(description="At most 20, most first")
    by_region: list[OfRegion] = Field(description="At most 20, most first; of what is stored in one of them")
    columns: dict[str, int]
    samples: list[ComparedSample] = Field(description="The first ten")


class ComparedGroup(BaseModel):
    key: str
    this: ComparedSide | ComparedSums = Field(description="By region only sums: what is not stored has no region")
    other: ComparedSide | ComparedSums
    difference: ComparedSide | ComparedSums


class KpiValue(BaseModel):
    value: float | None
    num: float
    den: float


class ComparedKpi(BaseModel):
    this: KpiValue
    other: KpiValue
    difference: float | None = Field(description="Null: unknown in one of them")


class ComparedDay(BaseModel):
    day: str = Field(description="Local day of events")
    kpis: dict[str, ComparedKpi]


class WindowsAgree(BaseModel):
    generation: int
    family: str
    agree: bool | None = Field(description="Null: only segments that are still being written differ")
    books: ComparedSums = Field(description="Stored, by the judged records; duration is not compared")
    windows: ComparedSums
    difference: ComparedSums = Field(description="Windows less books")


class ComparedType(BaseModel):
    type: str
    against: int = Field(alias="with", description="The other generation")
    spans: list[Spanned] = Field(description="Raw offsets that both have judged and stored, and that were asked for")
    records: int
    before_start: BothSides = Field(description="Records of each that lie before the other begins")
    not_yet: BothSides = Field(description="Records that each has reached and the other has not yet")
    differing: int
    this: ComparedSide
    other: ComparedSide
    difference: ComparedSide
    causes: list[Why]
    groups: list[ComparedGroup]
    kpis: list[ComparedDay] = Field(description="With by=kpi")
    kpis_not_compared: list[str] = Field(description="What records between two offsets cannot tell")
    truncated: bool = Field(description="There are more groups than limit")
    windows: list[WindowsAgree]


class Comparison(BaseModel):
    this: int
    by: str
    start: str | None = Field(alias="from")
    to: str | None
    tz: str
    equal: bool = Field(description="No record differs")
    types: list[ComparedType]
