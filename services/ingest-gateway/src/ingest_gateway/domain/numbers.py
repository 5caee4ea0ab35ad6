"""Telephone numbers: possible E.164 numbers, countries, number ranges, IMSIs.

The table of country codes and lengths is made once from ``phonenumbers``; asking that library for each number costs two
hundred times as much. It is stricter than the library (no local-only lengths, no trunk zero), never laxer.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import phonenumbers
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE
from phonenumbers.phonemetadata import PhoneMetadata

PREFIX_DIGITS = 4  # of the national number: an operator's range, shared by tens of thousands
HIDDEN_DIGITS = 4  # at least so many stay out of the prefix
NANP = 1

THREE_DIGIT_MNC = frozenset(
    str(mcc) for mcc in (302, *range(310, 317), 334, 338, *range(342, 361, 2), 365, 366, 376, 708, 722, 732, 750)
)
EMERGENCY = frozenset(["000", "108", "110", "111", "112", "113", "115", "117", "118", "119", "911", "999"])


class Number(NamedTuple):
    """A possible E.164 number: ``+`` and digits, ISO country (None if shared and unknown), range."""

    e164: str
    country: str | None
    prefix: str


class _Code(NamedTuple):
    digits: int
    lengths: frozenset[int]
    trunk_zero: bool  # national numbers never begin with 0 there: it is dialled before them


@cache
def _codes() -> dict[str, _Code]:
    """First three digits of a number → its country code's length and the national lengths that are possible."""
    table: dict[str, _Code] = {}
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items():
        lengths: set[int] = set()
        for region in regions:
            metadata = (
                PhoneMetadata.metadata_for_nongeo_region(code)
                if region == "001"
                else PhoneMetadata.metadata_for_region(region)
            )
            if metadata is not None and metadata.general_desc is not None:
                lengths.update(metadata.general_desc.possible_length or ())
        text = str(code)
        main = PhoneMetadata.metadata_for_region(regions[0])
        trunk = (main.national_prefix or "") if main is not None else ""
        entry = _Code(len(text), frozenset(lengths), trunk.startswith("0"))
        for rest in range(10 ** (3 - len(text))):
            table[f"{text}{rest:0{3 - len(text)}d}" if len(text) < 3 else text] = entry
    return table


@cache
def _leading() -> dict[int, list[tuple[re.Pattern[str], str]]]:
    """Shared country codes → national beginnings that belong to one of the smaller countries."""
    table: dict[int, list[tuple[re.Pattern[str], str]]] = {}
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items():
        for region in regions[1:]:
            metadata = PhoneMetadata.metadata_for_region(region)
            if metadata is not None and metadata.leading_digits:
                table.setdefault(code, []).append((re.compile(metadata.leading_digits), region))
    return table


@cache
def _nanp_country(area: str) -> str:
    """The country of a North American area code."""
    # any subscriber digits do: countries are told apart by area code alone
    region = phonenumbers.region_code_for_number(phonenumbers.PhoneNumber(NANP, int(area + "2345678")))
    return region or "US"


def load_tables() -> None:
    """Read the library's metadata now: it takes most of a second, which no request should wait for."""
    _codes()
    _leading()


def country_of(code: int, national: str) -> str | None:
    """ISO country of a number by its beginning; None for codes of no country (satellite, free phone)."""
    if code == NANP:
        return _nanp_country(national[:3])
    regions = COUNTRY_CODE_TO_REGION_CODE[code]
    if regions[0] == "001":
        return None
    for pattern, region in _leading().get(code, ()):
        if pattern.match(national):
            return region
    return regions[0]


def e164(digits: str) -> Number | None:
    """``digits`` without ``+``: the number if its country code exists and its length is possible there."""
    if len(digits) < 7 or len(digits) > 15 or not digits.isascii() or not digits.isdigit():
        return None
    code = _codes().get(digits[:3])
    if code is None:
        return None
    national = digits[code.digits :]
    if len(national) not in code.lengths:
        return None
    country_code = int(digits[: code.digits])
    if national[0] == "0" and code.trunk_zero:
        return None
    shown = max(0, min(PREFIX_DIGITS, len(national) - HIDDEN_DIGITS))
    return Number("+" + digits, country_of(country_code, national), digits[: code.digits + shown])


class Normaliser:
    """Writings of a number → E.164, by the rules of one country (or none: international writings only)."""

    _NOISE = str.maketrans("", "", " -().\u00a0/")

    def __init__(self, country: str | None = None, trunk_prefix: str | None = None) -> None:
        self.country = country
        self._code = str(phonenumbers.country_code_for_region(country)) if country else None
        metadata = PhoneMetadata.metadata_for_region(country) if country else None
        if trunk_prefix is None:
            trunk_prefix = (metadata.national_prefix or "") if metadata else ""
        self._trunk = trunk_prefix
        exit_code = (metadata.international_prefix or "") if metadata else ""
        self._exit = exit_code if exit_code.isdigit() else ("00" if country else "")

    def number(self, text: str) -> Number | None:
        """A possible number, or None. Without a country: digits with or without ``+``."""
        if self._code is None:
            return e164(text[1:] if text[:1] == "+" else text)
        plain = text.translate(self._NOISE)
        if plain[:1] == "+":
            return e164(plain[1:])
        if not plain.isascii() or not plain.isdigit():
            return None
        if self._exit and plain.startswith(self._exit):
            return e164(plain[len(self._exit) :])
        if self._trunk and plain.startswith(self._trunk):
            return e164(self._code + plain[len(self._trunk) :])
        if self._trunk and self._trunk != self._code:
            # national numbers carry the trunk prefix here, so this one is international already, or nothing
            return e164(plain)
        return e164(self._code + plain) or e164(plain)


def plmn_of_imsi(imsi: str) -> str:
    """``MCC-MNC`` of an IMSI."""
    mcc = imsi[:3]
    return f"{mcc}-{imsi[3:6] if mcc in THREE_DIGIT_MNC else imsi[3:5]}"
