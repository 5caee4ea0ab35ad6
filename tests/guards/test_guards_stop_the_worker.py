"""Each guard stops the real process with one line and status 1, and the runbook shows that very line."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from pathlib import Path

import pytest
from installation import Installation, Stopped, free_port, until
from situations import AGGREGATOR, SITUATIONS, Situation

from telestream_runtime.runbook import FOLDER, PAGES

RUNBOOK = Path(__file__).resolve().parents[2] / FOLDER
SHOWN_BY_OTHERS = {"rejections-above-the-limit"}


def shown(page: str) -> list[str]:
    """The lines that a page shows as the service's own: those of its first block of text."""
    text = (RUNBOOK / f"{page}.md").read_text(encoding="utf-8")
    return [line for line in text.split("```text\n")[1].split("```")[0].splitlines() if line]


def _case(situation: Situation) -> object:
    marks = [pytest.mark.faults] if situation.slow else []
    return pytest.param(situation, id=situation.name.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("situation", [_case(situation) for situation in SITUATIONS])
def test_the_worker_stops_with_the_line_that_its_page_shows(
    situation: Situation, met: dict[str, Future[Stopped]]
) -> None:
    stopped = met[situation.name].result()
    assert stopped.status == 1
    assert "Traceback" not in stopped.stderr
    assert stopped.page == f"{FOLDER}/{situation.page}.md", stopped.line
    assert stopped.line in shown(situation.page)


def test_every_line_that_the_runbook_shows_is_met() -> None:
    by_page = Counter((situation.page, situation.service) for situation in SITUATIONS)
    for page in sorted({situation.page for situation in SITUATIONS}):
        services = Counter(line.split(": ")[0] for line in shown(page))
        assert services == {service: n for (p, service), n in by_page.items() if p == page}, page


def test_every_page_is_in_the_index_and_every_error_has_its_page() -> None:
    index = (RUNBOOK / "README.md").read_text(encoding="utf-8")
    pages = {path.stem for path in RUNBOOK.glob("*.md")} - {"README"}
    assert not [page for page in sorted(pages) if f"({page}.md)" not in index]
    assert not set(PAGES.values()) - pages - SHOWN_BY_OTHERS


def test_a_worker_waits_for_postgres_at_its_start_and_says_so(installation: Installation) -> None:
    port = str(free_port())
    nowhere = f"postgresql://postgres@127.0.0.1:{port}/telestream"
    with installation.running(AGGREGATOR, postgres=nowhere) as running:
        until(running.missing, "what is missing")
        said = (running.missing() or {})["postgres"].replace(port, "18032")
        assert running.terminate() == 0
    assert f"{AGGREGATOR}: {said}" in shown("postgres-away-at-start")
    assert '"event": "waiting"' in running.log.read_text()
