"""Every situation that must stop a worker: made for real, and met by the real process.

Each row of ``SITUATIONS`` is a line that some page of docs/runbook shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from installation import Installation, Stopped, until

ENRICHER, AGGREGATOR, SINK, GATEWAY = "cdr-enricher", "window-aggregator", "warehouse-sink", "ingest-gateway"
OTHER_ID = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Situation:
    page: str
    service: str
    meet: Callable[[Installation], Stopped]
    slow: bool = False

    @property
    def name(self) -> str:
        return f"{self.service} {self.meet.__name__}"


SITUATIONS: list[Situation] = []


def situation(
    page: str, service: str, *, slow: bool = False
) -> Callable[[Callable[[Installation], Stopped]], Callable[[Installation], Stopped]]:
    def keep(meet: Callable[[Installation], Stopped]) -> Callable[[Installation], Stopped]:
        SITUATIONS.append(Situation(page, service, meet, slow))
        return meet

    return keep


def _judge(at: Installation, count: int, **settings: str) -> None:
    """Let an enricher judge what lies in raw, and end."""
    with at.running(ENRICHER, **settings) as running:
        at.until_committed(ENRICHER, at.topics.raw("cdr"), count)
        assert running.terminate() == 0


# -- topic-made-anew


@situation("topic-made-anew", ENRICHER)
def raw_made_anew(at: Installation) -> Stopped:
    at.begin()
    at.make_anew(at.topics.raw("cdr"))
    return at.stopped(ENRICHER)


@situation("topic-made-anew", AGGREGATOR)
def enriched_made_anew(at: Installation) -> Stopped:
    at.begin()
    at.make_anew(at.topics.enriched("cdr"))
    return at.stopped(AGGREGATOR)


@situation("topic-made-anew", SINK)
def reference_made_anew(at: Installation) -> Stopped:
    at.position(at.topics.ref("region"), 4, OTHER_ID)
    return at.stopped(SINK)


@situation("topic-made-anew", ENRICHER)
def position_of_another_cluster(at: Installation) -> Stopped:
    at.raw(5)
    at.commit(ENRICHER, at.topics.raw("cdr"), 3, f"topic-id={OTHER_ID};")
    return at.stopped(ENRICHER)


@situation("topic-made-anew", ENRICHER, slow=True)
def raw_made_anew_while_read(at: Installation) -> Stopped:
    at.raw(5)
    with at.running(ENRICHER) as running:
        running.ready()
        at.make_anew(at.topics.raw("cdr"))
        at.raw(9)
        return running.ended()


# -- position-outside-the-log


@situation("position-outside-the-log", ENRICHER)
def raw_overtaken_by_retention(at: Installation) -> Stopped:
    at.raw(10)
    at.commit(ENRICHER, at.topics.raw("cdr"), 3)
    at.cut(at.topics.raw("cdr"), 7)
    return at.stopped(ENRICHER)


@situation("position-outside-the-log", AGGREGATOR)
def enriched_restored_short(at: Installation) -> Stopped:
    at.judged(0, 1, 2)
    at.commit(AGGREGATOR, at.topics.enriched("cdr"), 50, "{}")
    return at.stopped(AGGREGATOR)


@situation("position-outside-the-log", SINK)
def written_beyond_the_end(at: Installation) -> Stopped:
    at.judged(0, 1, 2)
    at.position(at.topics.enriched("cdr"), 50)
    return at.stopped(SINK)


@situation("position-outside-the-log", SINK)
def overtaken_before_it_was_written(at: Installation) -> Stopped:
    at.judged(0, 1, 2, 3, 4)
    at.position(at.topics.enriched("cdr"), 1)
    at.cut(at.topics.enriched("cdr"), 3)
    return at.stopped(SINK)


# -- partition-count-changed


@situation("partition-count-changed", ENRICHER)
def raw_grown(at: Installation) -> Stopped:
    at.grow(at.topics.raw("cdr"))
    return at.stopped(ENRICHER)


@situation("partition-count-changed", AGGREGATOR)
def everything_grown(at: Installation) -> Stopped:
    at.begin()
    topics = at.topics
    by_type = [of(kind) for kind in ("cdr", "network") for of in (topics.raw, topics.enriched, topics.rejected)]
    families = [topics.agg(family) for family in ("cell", "region", "plan", "subscriber_day", "quality")]
    at.grow(*by_type, *families, topics.state_dedup)
    return at.stopped(AGGREGATOR)


@situation("partition-count-changed", GATEWAY, slow=True)
def raw_grown_between_two_starts_of_the_gateway(at: Installation) -> Stopped:
    with at.running(GATEWAY) as running:
        running.ready()
        assert running.terminate() == 0
    at.grow(at.topics.raw("cdr"), at.topics.ref("customer"))
    return at.stopped(GATEWAY)


@situation("partition-count-changed", ENRICHER, slow=True)
def raw_grown_while_read(at: Installation) -> Stopped:
    at.raw(5)
    with at.running(ENRICHER) as running:
        running.ready()
        at.grow(at.topics.raw("cdr"))
        return running.ended(120)


# -- settings-differ-from-the-generation


@situation("settings-differ-from-the-generation", AGGREGATOR)
def another_time_zone(at: Installation) -> Stopped:
    at.begin()
    return at.stopped(AGGREGATOR, business_timezone="Europe/Paris")


@situation("settings-differ-from-the-generation", ENRICHER)
def another_horizon(at: Installation) -> Stopped:
    at.begin(dedup_horizon_days=35)
    return at.stopped(ENRICHER, dedup_horizon_days="60")


@situation("settings-differ-from-the-generation", GATEWAY)
def clear_numbers_after_pseudonyms(at: Installation) -> Stopped:
    at.begin_installation()
    return at.stopped(GATEWAY, identity="clear")


# -- generation-not-wanted


@situation("generation-not-wanted", AGGREGATOR)
def generation_that_nobody_began(at: Installation) -> Stopped:
    return at.stopped(AGGREGATOR, generation="7")


@situation("generation-not-wanted", ENRICHER)
def generation_that_was_dropped(at: Installation) -> Stopped:
    at.begin_generation(2, "DROPPED")
    return at.stopped(ENRICHER, generation="2")


# -- key-is-another


@situation("key-is-another", GATEWAY)
def another_permanent_key(at: Installation) -> Stopped:
    at.begin_installation()
    return at.stopped(GATEWAY, permanent_key="33" * 32)


@situation("key-is-another", GATEWAY, slow=True)
def another_identity_key(at: Installation) -> Stopped:
    at.begin_installation()
    return at.stopped(GATEWAY, identity_key="33" * 32)


# -- raw-has-a-hole


@situation("raw-has-a-hole", ENRICHER)
def raw_written_in_transactions(at: Installation) -> Stopped:
    raw = at.topics.raw("cdr")
    at.raw(5, transactional=True)
    # a commit is answered before its marker lies in the log: without waiting, the next records come before it
    until(lambda: at.end(raw) == 6, "the transaction's marker is written")
    at.raw(5)
    return at.stopped(ENRICHER)


# -- judged-records-gap-or-repeat


@situation("judged-records-gap-or-repeat", ENRICHER)
def gap_met_when_state_is_rebuilt(at: Installation) -> Stopped:
    at.raw(3)
    _judge(at, 3)
    at.judged(4, 5)
    return at.stopped(ENRICHER)


@situation("judged-records-gap-or-repeat", AGGREGATOR)
def gap_in_judged_records(at: Installation) -> Stopped:
    at.judged(0, 1, 2, 5, 6)
    return at.stopped(AGGREGATOR, runner="faust")


@situation("judged-records-gap-or-repeat", AGGREGATOR)
def repeat_in_judged_records(at: Installation) -> Stopped:
    at.judged(0, 1, 2, 1, 2)
    return at.stopped(AGGREGATOR)


@situation("judged-records-gap-or-repeat", SINK)
def gap_before_the_warehouse(at: Installation) -> Stopped:
    at.judged(0, 1, 2, 5, 6)
    return at.stopped(SINK)


# -- position-without-metadata


@situation("position-without-metadata", ENRICHER)
def enricher_moved_from_outside(at: Installation) -> Stopped:
    at.raw(5)
    at.commit(ENRICHER, at.topics.raw("cdr"), 3)
    return at.stopped(ENRICHER)


@situation("position-without-metadata", AGGREGATOR)
def aggregator_moved_from_outside(at: Installation) -> Stopped:
    at.judged(0, 1, 2, 3, 4)
    at.commit(AGGREGATOR, at.topics.enriched("cdr"), 3)
    return at.stopped(AGGREGATOR)


# -- position-gone


@situation("position-gone", ENRICHER)
def enrichers_group_deleted(at: Installation) -> Stopped:
    at.raw(5)
    at.judged(0, 1, 2)
    return at.stopped(ENRICHER)


@situation("position-gone", AGGREGATOR)
def aggregators_group_deleted(at: Installation) -> Stopped:
    at.judged(0, 1, 2)
    at.write(at.topics.agg("cell"), {"type": "cdr", "size_s": 900}, key="cdr|900|1790000000000|208-01-7|0|0")
    return at.stopped(AGGREGATOR)


# -- derived-topic-was-cut


@situation("derived-topic-was-cut", ENRICHER)
def enriched_emptied(at: Installation) -> Stopped:
    at.raw(3)
    _judge(at, 3)
    at.cut(at.topics.enriched("cdr"), at.end(at.topics.enriched("cdr")))
    return at.stopped(ENRICHER)


@situation("derived-topic-was-cut", ENRICHER, slow=True)
def enriched_written_by_another(at: Installation) -> Stopped:
    at.raw(3)
    _judge(at, 3)
    at.judged(3)
    return at.stopped(ENRICHER)


@situation("derived-topic-was-cut", ENRICHER)
def beginning_of_the_open_segment_cut(at: Installation) -> Stopped:
    at.raw(3)
    _judge(at, 3)
    at.cut(at.topics.enriched("cdr"), 2)
    return at.stopped(ENRICHER)


@situation("derived-topic-was-cut", ENRICHER, slow=True)
def what_closed_segments_left_behind_is_gone(at: Installation) -> Stopped:
    at.raw(40)
    _judge(at, 40, dedup_segment_bits="4")
    at.empty_compacted(at.topics.state_dedup)
    return at.stopped(ENRICHER, dedup_segment_bits="4", state_dir=str(at.folder / "another machine"))


@situation("derived-topic-was-cut", ENRICHER, slow=True)
def what_is_to_be_reversed_is_gone(at: Installation) -> Stopped:
    at.raw(40)
    _judge(at, 40, dedup_segment_bits="4")
    at.cut(at.topics.enriched("cdr"), 10)
    at.reversal(7)
    return at.stopped(ENRICHER, dedup_segment_bits="4")


@situation("derived-topic-was-cut", AGGREGATOR)
def enriched_cut_before_it_was_counted(at: Installation) -> Stopped:
    at.judged(0, 1, 2, 3, 4)
    # long intervals: the open segment is re-read from its start
    quiet = {f"{name}_flush_s": "3000" for name in ("minute", "cell_minute", "quarter", "subscriber_day", "quality")}
    with at.running(AGGREGATOR, idle_flush_s="3000", **quiet) as running:
        running.ready()
        at.until_committed(AGGREGATOR, at.topics.enriched("cdr"), 5)
        assert running.terminate() == 0
    at.cut(at.topics.enriched("cdr"), 2)
    return at.stopped(AGGREGATOR)


@situation("derived-topic-was-cut", AGGREGATOR)
def nothing_committed_and_the_beginning_gone(at: Installation) -> Stopped:
    at.judged(0, 1, 2, 3, 4)
    at.cut(at.topics.enriched("cdr"), 2)
    return at.stopped(AGGREGATOR)
