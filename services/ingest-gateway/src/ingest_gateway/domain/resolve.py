"""Numbers, IMSIs, lines, devices, parties and cells as written → what a record carries of them.

Every answer is remembered by the writing, so that a block of a file asks once for each different value. Both paths ask
here, which is why they agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ingest_gateway.domain.fields import CELL_CHARS, NUMBER_CHARS, PARTY_CHARS, PLMN_CHARS
from ingest_gateway.domain.identity import CELL, E164, IMEI, IMSI, LINE, Identity, Party
from ingest_gateway.domain.numbers import EMERGENCY, Normaliser, Number, plmn_of_imsi
from ingest_gateway.domain.refusal import Refused

REMEMBERED = 100_000  # values of one kind, about 50 MB; more different ones in a file only cost time
T = TypeVar("T")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CELL = re.compile(r"(\d{3})-(\d{2,3})-(?:(\d{1,5})-)?(\d{1,11})", re.ASCII)
_PLMN = re.compile(r"\d{3}-\d{2,3}", re.ASCII)
_MAX_LAC = 0xFFFF
_MAX_CELL = 0xFFF_FFFF  # 28 bits: UMTS and LTE
_MAX_NR_CELL = 0xF_FFFF_FFFF  # 36 bits: NR
_ANONYMOUS = frozenset(["anonymous", "unknown", "withheld", "private", "restricted", "unavailable"])
ALPHANUMERIC_CHARS = 11  # what GSM 03.38 lets a sender be called
_DIGITS = re.compile(r"\d+", re.ASCII)

NOT_A_NUMBER = "a possible E.164 number: country code and length"


class Memo(dict[str, T | Refused], Generic[T]):
    """``memo[writing]``: the answer or the refusal, worked out once; forgets everything when full."""

    def __init__(self, work: Callable[[str], T], limit: int) -> None:
        super().__init__()
        self._work, self._limit = work, limit

    def __missing__(self, writing: str) -> T | Refused:
        if len(writing) > self._limit:
            return Refused("too_long", f"at most {self._limit} characters")
        try:
            answer: T | Refused = self._work(writing)
        except Refused as refused:
            answer = refused.with_traceback(None)
        if len(self) >= REMEMBERED:
            self.clear()
        self[writing] = answer
        return answer


@dataclass(frozen=True, slots=True)
class PartyRules:
    """How one profile writes parties. ``extension_digits``: shortest and longest extension, None if there are none."""

    country: str | None = None
    trunk_prefix: str | None = None
    short_numbers: Literal["accept", "refuse"] = "accept"
    extension_digits: tuple[int, int] | None = None
    names: Literal["ALPHANUMERIC", "SIP"] = "ALPHANUMERIC"


class Resolver:
    """All lookups under one set of rules. Not safe for several threads at once."""

    def __init__(self, identity: Identity, rules: PartyRules) -> None:
        self.identity, self.rules = identity, rules
        self._normaliser = Normaliser(rules.country, rules.trunk_prefix)
        self.msisdn: Memo[Party] = Memo(self._msisdn, NUMBER_CHARS)
        self.imsi: Memo[Party] = Memo(self._imsi, NUMBER_CHARS)
        self.imei: Memo[Party] = Memo(self._imei, NUMBER_CHARS)
        self.line: Memo[Party] = Memo(self._line, PARTY_CHARS)
        self.party: Memo[Party] = Memo(self._party, PARTY_CHARS)
        self.peer: Memo[Party] = Memo(self._peer, PARTY_CHARS)
        self.cell: Memo[Party] = Memo(self._cell, CELL_CHARS)
        self.plmn: Memo[Party] = Memo(self._plmn, PLMN_CHARS)

    def _of_number(self, number: Number) -> Party:
        identity = self.identity
        return Party(
            number.e164,
            identity.pseudonym(E164, number.e164),
            identity.shard(E164, number.e164),
            "MSISDN",
            number.country,
            number.prefix,
        )

    def _msisdn(self, text: str) -> Party:
        number = self._normaliser.number(text)
        if number is None:
            raise Refused("bad_msisdn", NOT_A_NUMBER)
        return self._of_number(number)

    def _imsi(self, text: str) -> Party:
        if not 14 <= len(text) <= 15 or not _DIGITS.fullmatch(text):
            raise Refused("bad_msisdn", "an IMSI: 14 or 15 digits")
        identity = self.identity
        return Party(text, identity.pseudonym(IMSI, text), identity.shard(IMSI, text), "IMSI", plmn=plmn_of_imsi(text))

    def _imei(self, text: str) -> Party:
        if not 14 <= len(text) <= 16 or not _DIGITS.fullmatch(text):
            raise Refused("wrong_type", "an IMEI: 14 to 16 digits")
        device = text[:14]  # check digit and software version name no other device
        return Party(device, self.identity.pseudonym(IMEI, device), 0, "IMEI", prefix=text[:8])

    def _line(self, text: str) -> Party:
        if _CONTROL.search(text):
            raise Refused("bad_msisdn", "an extension or SIP user, without control characters")
        identity = self.identity
        return Party(text, identity.pseudonym(LINE, text), identity.shard(LINE, text), "LINE")

    def _party(self, text: str) -> Party:
        """A subscriber written as whatever the switch had: a number if it can be one, else a line."""
        if self._is_extension(text):
            return self._line(text)
        number = self._normaliser.number(text)
        if number is not None:
            return self._of_number(number)
        if _DIGITS.fullmatch(text) and self.rules.short_numbers == "refuse":
            raise Refused("bad_msisdn", NOT_A_NUMBER)
        return self._line(text)

    def _is_extension(self, text: str) -> bool:
        bounds = self.rules.extension_digits
        return bounds is not None and bounds[0] <= len(text) <= bounds[1] and bool(_DIGITS.fullmatch(text))

    def _peer(self, text: str) -> Party:
        if _CONTROL.search(text):
            raise Refused("wrong_type", "the other party, without control characters")
        if text in EMERGENCY:
            return Party(text, text, 0, "EMERGENCY")
        if self._is_extension(text):
            return Party(text, self.identity.pseudonym(LINE, text), 0, "EXTENSION")
        number = self._normaliser.number(text)
        if number is not None:
            known = self._of_number(number)
            return known._replace(kind="E164")
        if text[0] in "*#":
            return Party(text, text, 0, "SERVICE")
        digits = text[1:] if text[0] == "+" else text
        if _DIGITS.fullmatch(digits):
            if self.rules.short_numbers == "refuse":
                raise Refused("bad_msisdn", NOT_A_NUMBER)
            if len(digits) <= 6 and text[0] != "+":
                return Party(text, text, 0, "SHORT_CODE")
            # somebody dialled it: kept, but no country and range are known of it
            return Party(digits, self.identity.pseudonym(E164, digits), 0, "E164")
        if text.lower() in _ANONYMOUS:
            return Party("", None, 0, "ANONYMOUS")  # type: ignore[arg-type]
        named = any(character.isalpha() for character in text)
        if named and self.rules.names == "ALPHANUMERIC" and len(text) <= ALPHANUMERIC_CHARS and "@" not in text:
            return Party(text, text, 0, "ALPHANUMERIC")
        return Party(text, self.identity.pseudonym(LINE, text), 0, "SIP")

    def _cell(self, text: str) -> Party:
        match = _CELL.fullmatch(text)
        if match is None:
            raise Refused("bad_cell_id", "MCC-MNC-cell or MCC-MNC-LAC-cell in decimal")
        mcc, mnc, lac, cell = match.groups()
        if (lac is not None and int(lac) > _MAX_LAC) or int(cell) > (_MAX_NR_CELL if lac is None else _MAX_CELL):
            raise Refused("bad_cell_id", "MCC-MNC-cell (36 bits at most) or MCC-MNC-LAC-cell (16 and 28 bits)")
        plmn = f"{mcc}-{mnc}"
        canonical = f"{plmn}-{int(cell)}" if lac is None else f"{plmn}-{int(lac)}-{int(cell)}"
        return Party(canonical, canonical, self.identity.shard(CELL, canonical), "CELL", plmn=plmn)

    def _plmn(self, text: str) -> Party:
        if not _PLMN.fullmatch(text):
            raise Refused("wrong_type", "MCC-MNC, such as 208-01")
        return Party(text, text, 0, "PLMN")
