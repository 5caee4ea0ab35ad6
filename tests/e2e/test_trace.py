"""One record's story on the whole stack: asked of the API and the command, by the producer's own id."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from telestream_opstore import create_key

from .test_reversals import NUMBERS, World, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
TELESTREAM = Path(sys.executable).parent / "telestream"
BEHIND_PLUS = [number.removeprefix("+") for number in NUMBERS]


class Asking:
    """What a trace says: asked of the API, and through the command as a user would."""

    def __init__(self, world: World) -> None:
        self.world, self.said = world, list[str]()

    def run(self, event_id: str, *options: str) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = self.world.stack.run("trace", self.world.name, event_id, *options)
        self.said += [done.stdout, done.stderr]
        return done

    def copies(self, event_id: str) -> list[dict[str, Any]]:
        url = f"{self.world.url['query-api']}/v1/events/trace"
        answer = self.world.http.post(url, json={"source": self.world.name, "event_id": event_id, "type": "cdr"})
        self.said.append(answer.text)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]["copies"]
        return found

    def send(self, number: int, **fields: Any) -> None:
        """One call of the n-th number; the id holds the number, as those of some switches do."""
        world = self.world
        world.post(
            "/v1/events/cdr",
            [
                {
                    "event_id": self.id_of(number),
                    "started_at": world.at.isoformat(),
                    "record_type": "VOICE",
                    "status": "COMPLETED",
                    "msisdn": NUMBERS[number],
                    "cell_id": "208-01-77",
                    "duration_ms": 1_000 + number,
                }
                | fields
            ],
        )

    def id_of(self, number: int) -> str:
        return f"{BEHIND_PLUS[number]}-{number}"


@pytest.fixture(scope="module")
def asking(stack: Any) -> Asking:
    world = World(stack)
    asking = Asking(world)
    world.plan_of_all("gold")
    asking.send(0, last_cell_id="208-01-78")
    asking.send(1)
    asking.send(1)
    asking.send(1, duration_ms=7)
    asking.send(2, duration_ms=-5)
    asking.send(3)
    header = "event_id,started_at,record_type,status,msisdn,duration_ms\n"
    rows = "".join(f"file-{n},{world.at.isoformat()},SMS,COMPLETED,{NUMBERS[n]},0\n" for n in range(4, 9))
    url = f"{world.url['ingest-gateway']}/v1/files/{world.name}/day.csv"
    answer = world.http.put(url, params={"type": "cdr"}, content=header + rows)
    assert answer.status_code == 202, answer.text
    until(11, lambda: world.books()["accepted"])
    until(0, lambda: world.books()["in_flight"])
    place = asking.copies(asking.id_of(3))[0]["raw"]
    world.reverse([record for record in world.raw() if record[:2] == (place["partition"], place["offset"])])
    until((1, 0), lambda: (world.books()["withdrawn"], world.books()["in_flight"]))
    return asking


def test_a_stored_record_shows_its_row_its_references_and_every_window_it_counts_in(asking: Asking) -> None:
    until(True, lambda: all(window["included"] for window in asking.copies(asking.id_of(0))[0]["windows"]))
    (copy,) = asking.copies(asking.id_of(0))
    assert (copy["verdict"], copy["origin"]["kind"]) == ("STORED", "request")
    assert copy["warehouse"]["table"] == "fact_cdr_all"
    assert (copy["raw"]["in_log"], copy["raw"]["schema_version"]) == (True, 1)
    windows = {(window["family"], window["size_s"], window["only_ends"]) for window in copy["windows"]}
    assert windows == {
        *((family, size, False) for family in ("cell", "region", "plan") for size in (60, 900)),
        *(("cell", size, True) for size in (60, 900)),
        ("subscriber_day", 86_400, False),
    }
    references = {entry["entity"]: entry for entry in copy["references"]}
    assert references["customer"]["held"]["customer_id"] == f"{asking.world.name}-0"
    assert references["customer"]["same"]
    since = datetime.fromisoformat(references["customer"]["valid_from"])
    assert abs(since - (asking.world.at - timedelta(days=100))) < timedelta(milliseconds=1)


def test_a_duplicate_and_a_conflict_name_the_record_they_repeat(asking: Asking) -> None:
    first, same, other = asking.copies(asking.id_of(1))
    assert [copy["verdict"] for copy in (first, same, other)] == ["STORED", "DUPLICATE", "DUPLICATE"]
    assert [copy["conflict"] for copy in (first, same, other)] == [False, False, True]
    of = {"partition": first["raw"]["partition"], "offset": first["raw"]["offset"]}
    assert same["duplicate_of"] == other["duplicate_of"] == of
    assert not same["windows"]


def test_a_rejected_record_shows_the_rule_and_why(asking: Asking) -> None:
    (copy,) = asking.copies(asking.id_of(2))
    assert (copy["verdict"], copy["rule"], copy["field"]) == ("REJECTED", "negative_value", "duration_ms")
    assert copy["reason"]
    assert copy["warehouse"]["table"] == "dead_letter_all"


def test_a_reversed_record_is_in_no_view_and_is_taken_back_from_its_windows(asking: Asking) -> None:
    (copy,) = asking.copies(asking.id_of(3))
    assert copy["verdict"] == "STORED"
    assert copy["warehouse"]["table"] is None
    assert [entry["took_effect"] for entry in copy["reversals"]] == [True]
    assert copy["reversals"][0]["appended_at"] > copy["appended_at"]
    assert sum(window["adds"] for window in copy["windows"]) == 0


def test_a_record_of_a_file_shows_its_name_and_line(asking: Asking) -> None:
    (copy,) = asking.copies("file-6")
    assert (copy["origin"]["kind"], copy["origin"]["name"], copy["origin"]["line"]) == ("file", "day.csv", 4)


def test_an_unknown_id_is_one_clear_line_and_exit_1(asking: Asking) -> None:
    done = asking.run(asking.id_of(19), "--type", "cdr")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no record of this source and event id among everything judged of cdr" in done.stderr
    assert not done.stdout


def test_a_key_needs_both_roles_and_nothing_else_than_the_event_is_taken(asking: Asking) -> None:
    url, dsn = f"{asking.world.url['query-api']}/v1/events/trace", asking.world.url["postgres"]
    asked = {"source": asking.world.name, "event_id": asking.id_of(0)}
    for roles in (["read"], ["identity"]):
        key, _ = create_key(dsn, f"trace-{roles[0]}", roles, ["*"])
        answer = httpx.post(url, json=asked, headers={"X-API-Key": key})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    for wrong in ({"source": "x"}, {**asked, "more": 1}, {**asked, "type": "sms"}, {**asked, "event_id": "x" * 129}):
        assert asking.world.http.post(url, json=wrong).status_code == 422


def test_the_story_is_told_in_words_too_and_no_number_or_id_of_a_producer_is_said_or_logged(asking: Asking) -> None:
    told = asking.run(asking.id_of(0))
    assert told.returncode == 0, told.stderr
    assert "fact_cdr_all, generation 1: stored" in told.stdout
    given = subprocess.run(
        [str(TELESTREAM), "trace", asking.world.name, "-", "--state-dir", str(asking.world.stack.state_dir)],
        input=f"{asking.id_of(1)}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "3 copies, by arrival" in given.stdout
    text = "".join([*asking.said, given.stdout])
    logs = b"".join(path.read_bytes() for path in asking.world.stack.state_dir.rglob("*.log"))
    assert logs
    for number in BEHIND_PLUS[:4]:
        assert number not in text
        assert number.encode() not in logs
