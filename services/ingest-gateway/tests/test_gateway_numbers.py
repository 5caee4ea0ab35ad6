"""Numbers: the table agrees with the library it was made from, and national writings become E.164."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_gateway.domain.identity import Identity
from ingest_gateway.domain.numbers import Normaliser, country_of, e164, plmn_of_imsi
from ingest_gateway.domain.refusal import Refused
from ingest_gateway.domain.resolve import PartyRules, Resolver


@settings(max_examples=400, deadline=None)
@given(st.integers(1_000_000, 10**15 - 1).map(str))
def test_the_table_is_never_laxer_than_the_library(digits: str) -> None:
    if e164(digits) is not None:
        assert phonenumbers.is_possible_number(phonenumbers.parse("+" + digits))


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_an_example_number_of_every_country_is_possible_and_of_that_country(region: str) -> None:
    example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    if example is None:
        example = phonenumbers.example_number(region)
    assert example is not None
    digits = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)[1:]
    number = e164(digits)
    assert number is not None
    assert digits.startswith(number.prefix)
    assert len(number.prefix) <= len(str(example.country_code)) + 4
    sharing = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[example.country_code]
    assert number.country == region or (number.country in sharing and len(sharing) > 1)


@pytest.mark.parametrize(
    ("country", "written", "number"),
    [
        ("DE", "0170 1234567", "+491701234567"),
        ("DE", "0049 170 1234567", "+491701234567"),
        ("DE", "+49 (170) 123-4567", "+491701234567"),
        ("DE", "491701234567", "+491701234567"),
        ("FR", "06 12 34 56 78", "+33612345678"),
        ("ES", "612345678", "+34612345678"),
        ("US", "(212) 555-0123", "+12125550123"),
        ("US", "12125550123", "+12125550123"),
        ("US", "011491701234567", "+491701234567"),
        (None, "491701234567", "+491701234567"),
        (None, "+491701234567", "+491701234567"),
        (None, "0170 1234567", None),
        ("DE", "112", None),
        ("DE", "", None),
    ],
)
def test_numbers_become_e164_by_the_profiles_country(country: str | None, written: str, number: str | None) -> None:
    found = Normaliser(country).number(written)
    assert (found.e164 if found else None) == number


@pytest.mark.parametrize(
    ("digits", "country"),
    [
        ("12125550123", "US"),
        ("14165550123", "CA"),
        ("77011234567", "KZ"),
        ("79161234567", "RU"),
        ("390612345678", "IT"),
    ],
)
def test_shared_country_codes_are_told_apart(digits: str, country: str) -> None:
    number = e164(digits)
    assert number is not None
    assert number.country == country


def test_codes_of_no_country_have_none() -> None:
    assert country_of(800, "12345678") is None


@pytest.mark.parametrize(
    ("imsi", "plmn"), [("262011234567890", "262-01"), ("310150123456789", "310-150"), ("302720123456789", "302-720")]
)
def test_the_home_network_is_cut_out_of_the_imsi(imsi: str, plmn: str) -> None:
    assert plmn_of_imsi(imsi) == plmn


PBX = PartyRules(country="DE", extension_digits=(2, 5), names="SIP")


@pytest.mark.parametrize(
    ("rules", "written", "kind", "clear"),
    [
        (PartyRules(), "+491701234567", "E164", False),
        (PartyRules(), "112", "EMERGENCY", True),
        (PartyRules(), "22422", "SHORT_CODE", True),
        (PartyRules(), "*100#", "SERVICE", True),
        (PartyRules(), "MyBank", "ALPHANUMERIC", True),
        (PartyRules(), "alice@example.org", "SIP", False),
        (PartyRules(), "0301234567", "E164", False),
        (PBX, "1001", "EXTENSION", False),
        (PBX, "112", "EMERGENCY", True),
        (PBX, "0301234567", "E164", False),
        (PBX, "alice", "SIP", False),
    ],
)
def test_the_other_party_is_clear_only_if_it_is_nobodys_identity(
    identity: Identity, rules: PartyRules, written: str, kind: str, clear: bool
) -> None:
    party = Resolver(identity, rules).peer[written]
    assert not isinstance(party, Refused)
    assert party.kind == kind
    assert (party.id == written) is clear
    assert clear or party.id.startswith("k1.")


def test_an_anonymous_party_has_no_identity(identity: Identity) -> None:
    party = Resolver(identity, PartyRules()).peer["Anonymous"]
    assert not isinstance(party, Refused)
    assert (party.kind, party.id) == ("ANONYMOUS", None)


def test_short_numbers_may_be_refused(identity: Identity) -> None:
    refused = Resolver(identity, PartyRules(short_numbers="refuse")).peer["22422"]
    assert isinstance(refused, Refused)
    assert refused.code == "bad_msisdn"


def test_an_extension_is_the_same_person_as_caller_and_as_called(identity: Identity) -> None:
    resolver = Resolver(identity, PBX)
    caller, called = resolver.party["1001"], resolver.peer["1001"]
    assert not isinstance(caller, Refused)
    assert not isinstance(called, Refused)
    assert caller.id == called.id
