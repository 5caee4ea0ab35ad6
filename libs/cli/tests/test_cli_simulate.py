from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from typer.testing import CliRunner

from telestream_cli import simulate

runner = CliRunner()


def app() -> typer.Typer:
    built = typer.Typer()
    simulate.register(built)
    built.command("other")(lambda: None)
    return built


def test_simulate_writes_the_files_and_says_what_must_be_reported(tmp_path: Path) -> None:
    sizes = ["--records", "2000", "--customers", "50", "--cells", "10", "--asterisk", "20"]
    result = runner.invoke(app(), ["simulate", "--out", str(tmp_path), *sizes, "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert summary["cdr"] == truth["cdr"]
    assert truth["start"] == (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    assert truth["asterisk"]["cdr"]["stored"] >= 20
    assert all(Path(path).exists() for path in summary["files"])


def test_simulate_asks_for_files_or_live_but_not_both(tmp_path: Path) -> None:
    assert runner.invoke(app(), ["simulate"]).exit_code == 2
    assert runner.invoke(app(), ["simulate", "--out", str(tmp_path), "--live", "5"]).exit_code == 2


def test_days_that_reach_into_the_future_are_wrong_usage(tmp_path: Path) -> None:
    today = datetime.now(UTC).date().isoformat()
    result = runner.invoke(app(), ["simulate", "--out", str(tmp_path), "--start", today])
    assert result.exit_code == 2
    assert "reach past yesterday" in result.output


def test_a_scenario_that_cannot_be_is_wrong_usage_with_every_mistake(tmp_path: Path) -> None:
    result = runner.invoke(
        app(), ["simulate", "--out", str(tmp_path), "--customers", "1", "--duplicates", "2"], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 2
    assert "customers must be at least 20" in result.output
    assert "duplicates is a share" in result.output
