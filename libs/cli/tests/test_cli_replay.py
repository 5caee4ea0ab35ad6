"""What `telestream replay` shows, and what it refuses before anybody is asked."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from telestream_cli import replay_view
from telestream_cli.main import build


def generation(**changed: Any) -> dict[str, Any]:
    """One as the API shows it: half of the way."""
    partitions = [
        {"type": "cdr", "partition": n, "start": 100, "end": 1_100, "raw_end": 1_200}
        | {"judged": 900, "aggregated": 800, "stored": 600, "lag": 600}
        for n in range(2)
    ]
    progress = {
        "partitions": partitions,
        "done_ratio": 0.5,
        "records_per_second": 1234.5,
        "seconds_left": 100.0,
        "caught_up": False,
        "costs": {"topic_bytes": 2048, "rows": 1_000, "bytes_on_disk": 5 << 20},
    }
    return {
        "generation": 2,
        "types": ["cdr"],
        "state": "RUNNING",
        "active": [],
        "compare_only": False,
        "reason": "late [customers]",
        "actor": "anna",
        "created_at": "2026-11-24T16:11:47.494Z",
        "problem": None,
        "active_spans": [],
        "starts": {},
        "ends": {"cdr": {"0": 1_100, "1": 1_100}},
        "progress": progress,
    } | changed


def printed(table: Any) -> str:
    output = io.StringIO()
    Console(file=output, width=200).print(table)
    return output.getvalue()


def test_progress_is_one_line_with_rate_and_time_left() -> None:
    assert replay_view.summary(generation()) == "generation 2 running: 50.0 % of 2,000 records, 1,234/s, 2 min left"


def test_progress_says_why_it_does_not_get_on() -> None:
    line = replay_view.summary(generation(problem="topic x is gone"))
    assert line.endswith(", topic x is gone")
    begun = generation(state="PREPARING", problem="Kafka does not answer")
    del begun["progress"]
    assert replay_view.summary(begun) == "generation 2 preparing: Kafka does not answer"


@pytest.mark.parametrize(
    ("found", "done"),
    [
        (generation(), False),
        (generation(state="PREPARING"), False),
        (generation(progress={"caught_up": True, "partitions": []}), True),
        (generation(state="FINISHED"), True),
        (generation(state="DROPPED"), True),
    ],
)
def test_nothing_is_waited_for_once_it_has_caught_up_ended_or_gone(found: dict[str, Any], done: bool) -> None:
    assert replay_view.is_done(found) is done


def test_the_table_of_generations_shows_who_sees_it_and_what_it_costs() -> None:
    text = printed(replay_view.generations_table([generation(active=["cdr"])]))
    for word in ("running", "cdr", "2026-11-24 16:11", "50.0 %", "1,000", "5.0 MiB", "late [customers]"):
        assert word in text


def test_a_generation_s_story_shows_offsets_spans_and_problem() -> None:
    spans = [{"type": "cdr", "from": "2026-11-24T17:00:00Z", "to": None}]
    text = printed(replay_view.story(generation(active_spans=spans, problem="it hurts [here]")))
    assert "2026-11-24 17:00 to now" in text
    assert "cdr 0: 1,100, 1: 1,100" in text
    assert "it hurts [here]" in text
    assert "1,000 rows, 5.0 MiB on disk, 2.0 KiB in topics" in text


def test_off_a_terminal_progress_is_a_line_for_what_has_changed() -> None:
    output = io.StringIO()
    with replay_view.watching(Console(file=output, width=80)) as show:
        show(generation())
        show(generation())
        show(generation(state="FINISHED"))
    assert len(output.getvalue().splitlines()) == 2


def test_on_a_terminal_every_partition_has_a_bar() -> None:
    output = io.StringIO()
    with replay_view.watching(Console(file=output, width=160, force_terminal=True)) as show:
        show(generation())
    for word in ("cdr[0]", "cdr[1]", "500 of 1,000", "all"):
        assert word in output.getvalue()


def test_all_is_never_said_before_it_is_all() -> None:
    assert [replay_view.share(ratio) for ratio in (0.0, 0.99999, 1.0)] == ["0.0 %", "99.9 %", "100 %"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["drop", "2", "--reason", "old"], "give --yes"),
        (["start", "--types", "calls", "--reason", "x"], "--types is"),
        (["start", "--rules", "nowhere.toml", "--reason", "x"], "nowhere.toml"),
        (["start"], "--reason"),
        (["status", "--watch"], "wants a generation"),
    ],
)
def test_a_wrong_word_is_refused_with_exit_2_before_anything_is_asked(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    result = CliRunner(env={"TELESTREAM_STATE_DIR": str(tmp_path), "COLUMNS": "200"}).invoke(
        build(), ["replay", *arguments]
    )
    assert result.exit_code == 2
    assert said in result.output
