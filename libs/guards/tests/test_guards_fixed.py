"""Who starts first fixes; who starts later compares."""

from __future__ import annotations

import pytest

from telestream_guards.errors import PartitionsChanged, SettingsDiffer, TopicMadeAnew
from telestream_guards.fixed import compare
from telestream_opstore import fix_generation, migrate

TOPIC = "telestream.cdr.raw"
KEPT = {"cdr": {"business_timezone": "UTC", f"partitions of {TOPIC}": 4, f"topic id of {TOPIC}": "a" * 32}}


def test_the_first_worker_fixes_and_a_later_version_only_adds(postgres_dsn: str) -> None:
    migrate(postgres_dsn)
    assert fix_generation(postgres_dsn, "t.", 1, {"cdr": {"bits": 18}}) == {"cdr": {"bits": 18}}
    later = fix_generation(postgres_dsn, "t.", 1, {"cdr": {"bits": 20, "horizon": 35}})
    assert later == {"cdr": {"bits": 18, "horizon": 35}}
    # another generation, type or installation is another row
    assert fix_generation(postgres_dsn, "t.", 2, {"cdr": {"bits": 20}}) == {"cdr": {"bits": 20}}
    assert fix_generation(postgres_dsn, "u.", 1, {"cdr": {"bits": 20}}) == {"cdr": {"bits": 20}}
    assert fix_generation(postgres_dsn, "t.", 1, {"network": {"bits": 20}}) == {"network": {"bits": 20}}


def test_what_others_fixed_and_what_nobody_fixed_does_not_matter() -> None:
    compare("generation 1", KEPT, {"cdr": {"business_timezone": "UTC", "new": 1}})


@pytest.mark.parametrize(
    ("own", "error", "said"),
    [
        ({"business_timezone": "Europe/Paris"}, SettingsDiffer, "TELESTREAM_BUSINESS_TIMEZONE is Europe/Paris here"),
        ({f"partitions of {TOPIC}": 6}, PartitionsChanged, f"{TOPIC} from 4 to 6"),
        ({f"topic id of {TOPIC}": "b" * 32, "business_timezone": "X"}, TopicMadeAnew, f"{TOPIC} \\(topic id a+ before"),
    ],
)
def test_each_kind_of_difference_has_its_own_error(
    own: dict[str, str | int], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        compare("generation 1", KEPT, {"cdr": own})
