"""Random programs of batches, crashes, rebalances, late and repeated data and reversals, compared with a plain model.

Hypothesis writes the programs and prints the one that failed, step by step, with what repeats it.
"""

from __future__ import annotations

import random
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from telestream_devstack import Parts

from .corner import Corner, Ended, Worker, until
from .model import judge
from .sums import Logs, expected_sums, found_sums
from .traffic import Call, calls

pytestmark = pytest.mark.stack
STAGES = ("cdr-enricher", "window-aggregator")
PLACES = [(stage, instance) for stage in STAGES for instance in (0, 1)]
BITS = 5
"""Segments of 32 records close all the time."""

which = st.sampled_from(PLACES)
partitions = st.integers(0, 1)
step = st.sampled_from(("produced", "offsets", "committed"))


class Program(RuleBasedStateMachine):
    """One raw log, up to two enrichers and two aggregators, and what is done to them."""

    def __init__(self, corner: Corner) -> None:
        super().__init__()
        self.corner = corner
        self.logs: Logs = [[], []]
        self.running: dict[tuple[str, int], Worker] = {}
        self.died: set[tuple[str, int]] = set()
        for stage in STAGES:
            self._start((stage, 0))

    def _start(self, place: tuple[str, int], *switches: str) -> None:
        stage, instance = place
        own = (f"segment-bits={BITS}",) if stage == "window-aggregator" else ()
        small = {"dedup_segment_bits": str(BITS)} if stage == "cdr-enricher" else {}
        self.running[place] = self.corner.start(stage, *own, *switches, instance=instance, **small)
        self.died.discard(place)

    @rule(partition=partitions, seed=st.integers(0, 2**32), count=st.integers(1, 60))
    def send(self, partition: int, seed: int, count: int) -> None:
        """New records, and some that repeat, contradict or mend what came before, however long ago."""
        log = self.logs[partition]
        self._append(partition, calls(seed, count, first=len(log), before=log))

    @rule(partition=partitions, seed=st.integers(0, 2**32), count=st.integers(1, 5))
    @precondition(lambda self: any(self.logs))
    def reverse(self, partition: int, seed: int, count: int) -> None:
        """Reversals of any offset: what was stored there, what was not, what is reversed already."""
        rng, log = random.Random(seed), self.logs[partition]
        places = [place for place, record in enumerate(log) if isinstance(record, dict)]
        reversals: list[Call | bytes] = []
        for place in rng.choices(places, k=count) if places else []:
            record = log[place]
            assert isinstance(record, dict)
            reversals.append(record | {"reverses_offset": place + rng.choice((0, 0, 0, 1))})
        self._append(partition, reversals)

    def _append(self, partition: int, records: list[Call | bytes]) -> None:
        self.corner.send("cdr", partition, records)
        self.logs[partition] += records

    @rule(place=which)
    def kill(self, place: tuple[str, int]) -> None:
        if place in self.running:
            self.running.pop(place).kill()
            self.died.add(place)

    @rule(place=which)
    def leave(self, place: tuple[str, int]) -> None:
        """SIGTERM: its partitions go to its like, if there is one."""
        if place in self.running:
            worker = self.running.pop(place)
            assert worker.stop() in (0, -signal.SIGTERM), worker.said()[-2000:]

    @rule(place=which)
    def join(self, place: tuple[str, int]) -> None:
        if place not in self.running:
            self._start(place)

    @rule(place=which, at=step, commits=st.integers(1, 3))
    def die_in_a_commit(self, place: tuple[str, int], at: str, commits: int) -> None:
        """From now on it works, and dies in one of its next commits."""
        self.kill(place)
        self._start(place, f"killed-in-commit={at}:{commits}")

    def teardown(self) -> None:
        """Let everything that is there finish, and compare."""
        try:
            for place, worker in list(self.running.items()):
                if worker.ended:
                    assert worker.process.returncode == -signal.SIGKILL, worker.said()[-2000:]
                    self.died.add(place)
                    del self.running[place]
            # static members that died come back, or their like would wait for their session to end
            for place in {*self.died, *((stage, 0) for stage in STAGES)} - set(self.running):
                self._start(place)
            for partition in range(2):
                self._append(partition, calls(partition, 3, first=10**6))
            self._until(lambda: self._verdicts() == [judge(log) for log in self.logs], self._wrong)
            expected = expected_sums(self.logs)
            self._until(lambda: found_sums(self.corner, 1) == expected, lambda: "aggregates are not the model's")
        finally:
            self.corner.stop_all()

    def _verdicts(self) -> list[list[tuple[Any, Any, Any]]]:
        found = []
        for partition in range(2):
            judged = self.corner.records(self.corner.topics.enriched("cdr"), partition)
            assert [record["src_offset"] for record in judged] == list(range(len(judged)))
            found.append([(record["verdict"], record["rule"], record["first_offset"]) for record in judged])
        return found

    def _wrong(self) -> str:
        for partition, (found, log) in enumerate(zip(self._verdicts(), self.logs, strict=True)):
            for offset, expected in enumerate(judge(log)):
                if offset >= len(found) or found[offset] != expected:
                    seen = found[offset] if offset < len(found) else "not judged"
                    return f"{partition}@{offset}: {seen}, expected {expected}: {log[offset]!r}"
        return "nothing is wrong any more"

    def _until(self, condition: Callable[[], bool], wrong: Callable[[], str]) -> None:
        def holds() -> bool:
            for place, worker in list(self.running.items()):
                if worker.ended and worker.process.returncode == -signal.SIGKILL:
                    self._start(place)  # the death it was meant to die
                elif worker.ended:
                    raise Ended(worker.said()[-2000:])
            return condition()

        try:
            until(holds, "as in the model", 90, 0.4)
        except AssertionError as err:
            raise AssertionError(wrong()) from err


def run_programs(parts: Parts, folder: Path, examples: int, steps: int) -> None:
    def program() -> Program:
        name = f"t{uuid.uuid4().hex[:12]}"
        (folder / name).mkdir()
        return Program(Corner(parts, f"{name}.", folder / name))

    run_state_machine_as_test(
        program,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            phases=[Phase.generate],  # a smaller program takes as long as the first
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_few_random_programs_end_as_the_model_says(parts: Parts, tmp_path: Path) -> None:
    run_programs(parts, tmp_path, examples=2, steps=10)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_many_random_programs_end_as_the_model_says(parts: Parts, tmp_path: Path) -> None:
    run_programs(parts, tmp_path, examples=40, steps=30)
