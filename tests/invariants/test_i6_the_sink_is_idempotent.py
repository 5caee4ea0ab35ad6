"""I6: inserting any range again, killing the sink, or running two at once changes no answer."""

from __future__ import annotations

from collections import Counter

import pytest

from telestream_warehouse import PUBLISHED_VIEWS

from .corner import Corner, Worker, until
from .model import judge
from .traffic import calls

pytestmark = pytest.mark.stack
VIEWS = [view for view in PUBLISHED_VIEWS if view not in ("dim_time", "active_generation")]
UPSERTED = ("agg_quality_all", "agg_cell_all", "agg_subscriber_day_all")
Answers = dict[str, list[str]]


def answers(corner: Corner) -> Answers:
    """All rows of everything people may query."""
    found = {view: corner.rows(f"SELECT hex(toString(tuple(*))) AS row FROM {view}") for view in VIEWS}
    return {view: sorted(row["row"] for row in rows) for view, rows in found.items()}


def check_answers(corner: Corner, expected: Answers) -> None:
    """Every published view has the rows it had."""
    found = answers(corner)
    assert [view for view in VIEWS if found[view] != expected[view]] == [], "these views answer otherwise"


def insert_again(corner: Corner, *tables: str) -> None:
    """The earliest state of every row once more, after all later ones."""
    for table in tables:
        key = corner.rows(
            f"SELECT sorting_key AS key FROM system.tables WHERE database = currentDatabase() AND name = '{table}'"
        )[0]["key"]
        age = "src_to" if table.startswith("agg_") else "src_offset"
        assert corner.warehouse is not None
        corner.warehouse.command(f"INSERT INTO {table} SELECT * FROM {table} ORDER BY {age} LIMIT 1 BY {key}")


def sink(corner: Corner, *switches: str) -> Worker:
    return corner.start("warehouse-sink", *switches, sink_max_rows="40")


@pytest.fixture(scope="module")
def expected(corner: Corner) -> Answers:
    """The answers after everything was inserted, by a sink that was killed three times; merges stand still."""
    warehouse = corner.make_warehouse()
    for table in corner.rows(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%Tree'"
    ):
        warehouse.command(f"SYSTEM STOP MERGES {warehouse.database}.{table['name']}")
    corner.start("cdr-enricher")
    aggregator = corner.start("window-aggregator")
    corner.send(
        "cell", 0, [{"cell_id": f"208-01-{n}", "valid_from": 0, "deleted": False, "name": "X"} for n in range(4)]
    )
    verdicts: Counter[str] = Counter()
    for partition in range(corner.partitions):
        log = calls(partition, 240)
        verdicts.update(verdict for verdict, _, _ in judge(log))
        for begin in range(0, 240, 80):
            corner.send("cdr", partition, log[begin : begin + 80])
            before = len(corner.rows("SELECT 1 FROM judgement"))
            worker = sink(corner)
            until(lambda n=before: len(corner.rows("SELECT 1 FROM judgement")) > n, "rows")  # type: ignore[misc]
            worker.kill()
    corner.judged()
    quality = corner.topics.agg("quality")
    until(lambda: sum(w["records"] for w in corner.latest(quality).values()) == 480, "all aggregated")
    aggregator.stop()  # or it would add upserts to what is compared
    worker = sink(corner)
    corner.await_written()
    worker.stop()
    found = corner.rows("SELECT verdict, count() AS n FROM judgement GROUP BY verdict")
    assert {row["verdict"]: int(row["n"]) for row in found} == verdicts
    assert len(corner.rows("SELECT 1 FROM fact_cdr")) == verdicts["STORED"]
    return answers(corner)


def test_two_sinks_that_insert_everything_again_at_once_change_no_answer(corner: Corner, expected: Answers) -> None:
    def physical() -> int:
        return int(corner.rows("SELECT count() AS n FROM judgement_all")[0]["n"])

    before = physical()
    assert corner.warehouse is not None
    corner.warehouse.command("TRUNCATE TABLE sink_position")
    two = [sink(corner), sink(corner, "own-group=second")]
    until(lambda: physical() >= before + 2 * len(expected["judgement"]), "everything inserted twice more")
    corner.await_written()
    check_answers(corner, expected)
    for worker in two:
        worker.stop()
    check_answers(corner, expected)


def test_the_earliest_state_of_every_row_inserted_last_changes_no_answer(corner: Corner, expected: Answers) -> None:
    insert_again(corner, *UPSERTED, "fact_cdr_all", "judgement_all", "duplicate_all", "dead_letter_all")
    check_answers(corner, expected)


def test_control_a_view_without_final_answers_otherwise(corner: Corner, expected: Answers) -> None:
    assert corner.warehouse is not None
    text = corner.rows(
        "SELECT create_table_query AS q FROM system.tables WHERE database = currentDatabase() AND name = 'fact_cdr'"
    )[0]["q"]
    assert " FINAL" in text
    replace = text.replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    corner.warehouse.command(replace.replace(" FINAL", ""))
    try:
        with pytest.raises(AssertionError, match="these views answer otherwise"):
            check_answers(corner, expected)
    finally:
        corner.warehouse.command(replace)
    check_answers(corner, expected)


def test_control_a_table_without_a_version_lets_an_old_upsert_win(corner: Corner, expected: Answers) -> None:
    assert corner.warehouse is not None
    for sql in (
        "CREATE TABLE unversioned AS agg_quality_all ENGINE = ReplacingMergeTree PARTITION BY (generation, "
        "toYYYYMM(window_start)) ORDER BY (generation, type, size_s, source, verdict, rule, window_start, partition, "
        "segment)",
        "INSERT INTO unversioned SELECT * FROM agg_quality_all ORDER BY src_to",
        "EXCHANGE TABLES unversioned AND agg_quality_all",
    ):
        corner.warehouse.command(sql)
    try:
        check_answers(corner, expected)
        corner.warehouse.command(
            "INSERT INTO agg_quality_all SELECT * FROM unversioned ORDER BY src_to LIMIT 1 BY type, source, verdict, "
            "rule, window_start, partition, segment"
        )
        with pytest.raises(AssertionError, match="these views answer otherwise"):
            check_answers(corner, expected)
    finally:
        corner.warehouse.command("EXCHANGE TABLES unversioned AND agg_quality_all")


def test_merging_at_last_changes_no_answer(corner: Corner, expected: Answers) -> None:
    assert corner.warehouse is not None
    for table in ("fact_cdr_all", "judgement_all", *UPSERTED):
        corner.warehouse.command(f"SYSTEM START MERGES {corner.warehouse.database}.{table}")
        corner.warehouse.command(f"OPTIMIZE TABLE {table} FINAL")
    check_answers(corner, expected)
