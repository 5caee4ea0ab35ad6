"""A profile: how one switch writes its files, as YAML checked in full."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

import yaml
from phonenumbers import SUPPORTED_REGIONS
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ingest_gateway.domain.fields import INPUT_FIELDS, PARTY_CHARS, InputField, Kind
from ingest_gateway.domain.resolve import PartyRules
from telestream_domain import TelestreamError

UNITS: dict[str, dict[str, int]] = {
    "ms": {"s": 1000, "min": 60_000, "ms": 1},
    "bytes": {"kB": 1000, "KiB": 1024, "MB": 10**6, "MiB": 1 << 20, "B": 1},
    "micros": {"units": 10**6, "cents": 10**4, "millis": 1000, "micros": 1},
}
"""What a field holds → what a profile may say it is written in → how many of the one are in the other."""

TIME_ISO = "iso"
_DIRECTIVES = {
    "%Y": r"\d{4}",
    "%m": r"\d{2}",
    "%d": r"\d{2}",
    "%H": r"\d{2}",
    "%M": r"\d{2}",
    "%S": r"[0-5]\d",
    "%y": r"\d{2}",
    "%b": r"[A-Za-z]{3}",
    "%j": r"\d{3}",
}
_ASCII_COMPATIBLE = re.compile(r"(utf-8|ascii|latin-1|iso-?8859-\d{1,2}|cp125\d|windows-125\d)")


class ProfileInvalid(TelestreamError):
    """All that is wrong with a profile."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeRules(_Part):
    """``format``: ``iso`` (the contract's own forms), ``epoch_s``, ``epoch_ms`` or strptime directives."""

    format: str = TIME_ISO
    zone: str = "UTC"
    ambiguous_time: Literal["first", "second", "reject"] = "first"

    @field_validator("zone")
    @classmethod
    def _zone(cls, zone: str) -> str:
        if zone not in available_timezones():
            raise ValueError("is not an IANA time zone such as Europe/Paris")
        return zone

    @field_validator("format")
    @classmethod
    def _format(cls, text: str) -> str:
        if text in (TIME_ISO, "epoch_s", "epoch_ms"):
            return text
        unknown = [part for part in re.findall(r"%.", text) if part not in _DIRECTIVES]
        if unknown or "%" not in text:
            known = " ".join(_DIRECTIVES)
            raise ValueError(
                f"must be iso, epoch_s, epoch_ms or made of {known}; not {' '.join(unknown) or 'plain text'}"
            )
        return text

    def pattern(self) -> str:
        """A regular expression for exactly what the directives mean: strptime alone takes more."""
        return "".join(
            _DIRECTIVES[part] if part in _DIRECTIVES else re.escape(part) for part in re.findall(r"%.|.", self.format)
        )


class NumberRules(_Part):
    """How parties are written."""

    country: str | None = None
    trunk_prefix: Annotated[str, Field(pattern=r"^\d{0,3}$")] | None = None
    short_numbers: Literal["accept", "refuse"] = "accept"
    extension_digits: tuple[int, int] | None = None
    names: Literal["ALPHANUMERIC", "SIP"] = "ALPHANUMERIC"

    @field_validator("country")
    @classmethod
    def _country(cls, country: str | None) -> str | None:
        if country is not None and country not in SUPPORTED_REGIONS:
            raise ValueError("is not an ISO 3166 code such as FR")
        return country

    def rules(self) -> PartyRules:
        return PartyRules(self.country, self.trunk_prefix, self.short_numbers, self.extension_digits, self.names)


class FieldRule(_Part):
    """Where a field comes from: one column, several joined, or a constant; then what is done to the text."""

    column: str | None = None
    columns: tuple[str, ...] = ()
    join: str = "|"
    constant: str | None = None
    extract: str | None = None
    values: dict[str, str] = {}
    unit: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum((self.column is not None, bool(self.columns), self.constant is not None)) != 1:
            raise ValueError("needs exactly one of column, columns and constant")
        if self.extract is not None and re.compile(self.extract).groups != 1:
            raise ValueError("extract needs exactly one group")
        return self

    @property
    def origins(self) -> tuple[str, ...]:
        return (self.column,) if self.column is not None else self.columns


class Profile(_Part):
    """One layout of one type."""

    name: str
    description: str = ""
    types: tuple[Literal["cdr", "network", "customer", "cell", "region", "plan"], ...] = (
        "cdr",
        "network",
        "customer",
        "cell",
        "region",
        "plan",
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Field(min_length=1, max_length=1)] | None = '"'
    encoding: str = "utf-8"
    header: bool = True
    columns: tuple[str, ...] = ()
    optional_columns: int = Field(0, ge=0)
    skip_rows: int = Field(0, ge=0)
    time: TimeRules = TimeRules()
    numbers: NumberRules = Field(default_factory=lambda: NumberRules())
    fields: dict[str, FieldRule] = {}
    keep: tuple[str, ...] = ()
    identical_rows: Literal["merge", "keep"] = "merge"

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, encoding: str) -> str:
        try:
            name = codecs.lookup(encoding).name
        except LookupError:
            name = ""
        if not _ASCII_COMPATIBLE.fullmatch(encoding.lower()) or not name:
            raise ValueError("must be utf-8 or a single-byte encoding such as latin-1 or cp1252")
        return encoding.lower()

    @field_validator("delimiter", "quote")
    @classmethod
    def _ascii(cls, mark: str | None) -> str | None:
        if mark is not None and (not mark.isascii() or mark.isalnum() or mark in "\r\n"):
            raise ValueError("must be one ASCII character that is no letter or digit")
        return mark

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.header and not self.columns:
            raise ValueError("without a header, columns must be listed")
        if self.header and self.columns:
            raise ValueError("columns are for files without a header")
        if self.optional_columns >= max(1, len(self.columns)):
            raise ValueError("optional_columns must leave some columns")
        if self.columns:
            unknown = sorted({name for name in self.used if name not in self.columns})
            if unknown:
                raise ValueError(f"columns that are not listed: {', '.join(unknown)}")
        for name, rule in self.fields.items():
            if not any(name in field_names(record_type) for record_type in self.types):
                raise ValueError(f"fields.{name}: no such field")
            if rule.unit is not None and rule.unit not in units_of(name):
                raise ValueError(f"fields.{name}.unit: must be one of {', '.join(units_of(name)) or 'none'}")
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """Columns that fields or ``keep`` name."""
        return (*(origin for rule in self.fields.values() for origin in rule.origins), *self.keep)


PARTY_FIELD = InputField("subscriber", Kind.PARTY, "A number if it can be one, else a line", limit=PARTY_CHARS)


def input_fields(record_type: str) -> dict[str, InputField]:
    """The type's fields by name; a profile may map ``subscriber`` too."""
    fields = {field.name: field for field in INPUT_FIELDS[record_type] if field.kind is not Kind.EXT}
    if record_type == "cdr":
        fields[PARTY_FIELD.name] = PARTY_FIELD
    return fields


def field_names(record_type: str) -> frozenset[str]:
    return frozenset(input_fields(record_type))


def units_of(field: str) -> dict[str, int]:
    """The units a field may be written in; empty if it has none."""
    if field.startswith("bytes_") or field.endswith("_bytes"):
        return UNITS["bytes"]
    return UNITS.get(field.rsplit("_", 1)[-1], {})


def parse_profile(text: str, name: str) -> Profile:
    """Raises ProfileInvalid with every mistake."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ProfileInvalid(f"profile {name}: not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(document, dict):
        raise ProfileInvalid(f"profile {name}: must be a mapping")
    try:
        return Profile(**{"name": name, **document})
    except (ValidationError, re.error) as err:
        if isinstance(err, re.error):
            raise ProfileInvalid(f"profile {name}: extract: {err}") from err
        mistakes = "; ".join(
            f"{'.'.join(str(part) for part in entry['loc']) or 'profile'}: {entry['msg'].removeprefix('Value error, ')}"
            for entry in err.errors()
        )
        raise ProfileInvalid(f"profile {name}: {mistakes}") from err
