"""A whole stack of real parts under its supervisor: up, killed, up again, generations come and go, down."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from telestream_contracts import Registry
from telestream_contracts.topics import apply_topics
from telestream_devstack import PART_NAMES, PortTaken, StackConflict, reserve_base
from telestream_devstack.bootstrap import PARTITIONS
from telestream_devstack.doctor import examine
from telestream_devstack.errors import PartFailed
from telestream_devstack.parts import Parts
from telestream_devstack.ports import replay_port
from telestream_devstack.postgres import psql
from telestream_devstack.stack import MemberStatus, down, log_files, status, status_document, up
from telestream_devstack.state import StackState, load
from telestream_domain import DEFAULT_PREFIX, TYPES, Topics
from telestream_opstore import DerivationState, Plan, create_derivation_async, move_derivation_async

pytestmark = pytest.mark.stack
SINK = "warehouse-sink"


class Running:
    """A stack for the tests of this file, which kill it and start it again."""

    def __init__(self, state_dir: Path, port_base: int, only: Sequence[str] = PART_NAMES) -> None:
        self.state_dir = state_dir
        self.port_base = port_base
        self.only = only
        self.parts = Parts.at(state_dir, port_base)

    def up(self) -> StackState:
        return up(self.state_dir, self.port_base, self.only)

    def pids(self) -> dict[str, int]:
        found = load(self.state_dir)
        assert found is not None
        return {name: member.process.pid for name, member in found.members.items() if member.process}

    def supervisor(self) -> int:
        found = load(self.state_dir)
        assert found is not None
        assert found.supervisor is not None
        return found.supervisor.pid


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    stack = Running(tmp_path_factory.mktemp("own") / "state", reserve_base(), (*PART_NAMES, SINK))
    try:
        stack.up()
        yield stack
    finally:
        down(stack.state_dir)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that starts quickly, for tests of the supervisor alone."""
    stack = Running(tmp_path_factory.mktemp("small") / "state", reserve_base(), ("clickhouse", "postgres"))
    stack.up()
    yield stack
    down(stack.state_dir)


def eventually(holds: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


SCHEMA = {"schema": json.dumps({"type": "record", "name": "kept", "fields": [{"name": "a", "type": "long"}]})}


def write_everywhere(parts: Parts) -> int:
    """Leave something in each part; returns the id that the registry gave."""
    admin = AdminClient({"bootstrap.servers": parts.kafka})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result()
    producer = Producer({"bootstrap.servers": parts.kafka, "acks": "all"})
    producer.produce("kept", b"a record")
    assert producer.flush(20) == 0
    for statement in (
        "CREATE TABLE telestream.kept (a Int64) ENGINE = MergeTree ORDER BY a",
        "INSERT INTO telestream.kept VALUES (7)",
    ):
        httpx.post(parts.clickhouse, content=statement).raise_for_status()
    assert psql(parts.postgres, "CREATE TABLE kept AS SELECT 7 AS a").returncode == 0
    # Last, so that it is killed right after it answered.
    registered = httpx.post(f"{parts.registry}/subjects/kept-value/versions", json=SCHEMA).raise_for_status()
    return int(registered.json()["id"])


def read_everywhere(parts: Parts) -> tuple[int, bytes | None, str, str]:
    """What is there of that."""
    found = httpx.post(f"{parts.registry}/subjects/kept-value", json=SCHEMA).raise_for_status()
    consumer = Consumer({"bootstrap.servers": parts.kafka, "group.id": "reader"})
    consumer.assign([TopicPartition("kept", 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    return (
        int(found.json()["id"]),
        message.value() if message is not None else None,
        httpx.post(parts.clickhouse, content="SELECT a FROM telestream.kept").text.strip(),
        psql(parts.postgres, "SELECT a FROM kept").stdout.strip(),
    )


def test_everything_killed_at_once_comes_back_with_all_data(running: Running) -> None:
    schema_id = write_everywhere(running.parts)
    killed = [running.supervisor(), *running.pids().values()]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    running.up()
    assert not set(killed) & set(running.pids().values())
    assert read_everywhere(running.parts) == (schema_id, b"a record", "7", "7")


def test_up_a_second_time_changes_nothing(running: Running) -> None:
    before = (running.supervisor(), running.pids())
    running.up()
    assert (running.supervisor(), running.pids()) == before


def test_status_shows_every_part_with_its_process_and_health(running: Running) -> None:
    document = status_document(running.state_dir)
    services = document["services"]
    assert isinstance(services, list)
    assert [service["name"] for service in services] == [*PART_NAMES, SINK]
    for service in services:
        assert service["healthy"]
        assert service["pid"] == running.pids()[service["name"]]
        assert service["rss_bytes"] > 1_000_000
        assert service["lag_records"] is None or service["name"] == SINK
        assert service["generation"] == (1 if service["name"] == SINK else None)
    assert document["api_key"]


def test_secrets_are_readable_by_their_owner_only(running: Running) -> None:
    for name in ("api_key", "identity.key", "permanent.key"):
        assert (running.state_dir / name).stat().st_mode & 0o077 == 0


def test_a_part_that_dies_is_started_again_and_status_says_why(running: Running) -> None:
    before = running.pids()["clickhouse"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: running.pids().get("clickhouse", before) != before)
    eventually(lambda: all(row.healthy for row in status(running.state_dir)[1]))
    row = next(row for row in status(running.state_dir)[1] if row.name == "clickhouse")
    assert row.restarts == 1
    assert row.last_error is not None
    assert "killed by SIGKILL" in row.last_error
    assert "clickhouse.log" in row.last_error


def test_other_options_for_a_running_stack_are_refused(running: Running) -> None:
    with pytest.raises(StackConflict, match="telestream down"):
        up(running.state_dir, running.port_base, ["kafka"])


def test_a_second_stack_on_the_same_ports_is_told_which_and_by_whom(running: Running, tmp_path: Path) -> None:
    with pytest.raises(PortTaken, match=rf"port {running.port_base + 92} for kafka is taken by java \(pid \d+\)"):
        up(tmp_path / "another", running.port_base, PART_NAMES)


def begin_generation(parts: Parts) -> int:
    """What the control plane does before workers are wanted."""
    made = asyncio.run(
        create_derivation_async(parts.postgres, DEFAULT_PREFIX, TYPES, Plan(), reason="a test", actor="a test")
    )
    names = Topics(DEFAULT_PREFIX, made.generation)
    apply_topics(parts.kafka, names, partitions=PARTITIONS, replication=1)
    Registry(parts.registry).register_all(names)
    move(parts, made.generation, DerivationState.PREPARING, DerivationState.RUNNING)
    return made.generation


def move(parts: Parts, generation: int, since: DerivationState, to: DerivationState) -> None:
    asyncio.run(
        move_derivation_async(
            parts.postgres, DEFAULT_PREFIX, generation, to, since=[since], actor="a test", action="a test"
        )
    )


def test_a_wanted_generation_s_workers_run_beside_the_first_s_until_it_is_dropped(running: Running) -> None:
    def row(name: str) -> MemberStatus | None:
        return next((row for row in status(running.state_dir)[1] if row.name == name), None)

    def said(name: str) -> str:
        found = row(name)
        return (found.last_error if found is not None else None) or ""

    before = running.pids()[SINK]
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", replay_port(running.port_base, 2, 2)))
        holder.listen()
        generation = begin_generation(running.parts)
        mine = f"{SINK}.g{generation}"
        eventually(lambda: f"for {mine}'s admin port is taken by" in said(mine))
        running.up()  # a replay that cannot run keeps nobody waiting
    eventually(lambda: (found := row(mine)) is not None and found.healthy)
    found = row(mine)
    assert found is not None
    assert (found.generation, found.required) == (generation, False)
    assert log_files(running.state_dir, [f"g{generation}"])[mine].exists()
    assert (running.state_dir / "services" / mine).is_dir()
    os.kill(running.pids()[mine], signal.SIGKILL)
    eventually(lambda: "killed by SIGKILL" in said(mine) and running.pids().get(mine) is not None)

    move(running.parts, generation, DerivationState.RUNNING, DerivationState.DROPPING)
    eventually(lambda: row(mine) is None)
    move(running.parts, generation, DerivationState.DROPPING, DerivationState.DROPPED)
    eventually(lambda: not (running.state_dir / "services" / mine).exists())
    assert running.pids()[SINK] == before


def test_doctor_finds_a_running_stack_in_good_health(running: Running) -> None:
    findings = {finding.check: finding for finding in examine(running.state_dir)}
    assert [name for name, finding in findings.items() if not finding.ok] == []
    assert {"python", "java", "disk", *PART_NAMES} <= set(findings)


def test_a_supervisor_that_is_killed_leaves_nobody_behind(small: Running) -> None:
    children = list(small.pids().values())
    os.kill(small.supervisor(), signal.SIGKILL)
    eventually(lambda: gone(children))
    small.up()


def test_a_supervisor_that_is_told_to_stop_takes_everybody_along(small: Running) -> None:
    everybody = [small.supervisor(), *small.pids().values()]
    os.kill(small.supervisor(), signal.SIGTERM)
    eventually(lambda: gone(everybody))
    found = load(small.state_dir)
    assert found is not None
    assert found.phase == "stopped"


def test_down_stops_everything_and_is_harmless_twice(small: Running) -> None:
    small.up()
    everybody = [small.supervisor(), *small.pids().values()]
    assert down(small.state_dir)
    assert gone(everybody)
    assert not down(small.state_dir)
    assert not any(row.healthy for row in status(small.state_dir)[1])


def test_a_part_that_cannot_start_is_one_line_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "clickhouse").mkdir()
    (tmp_path / "clickhouse" / "data").write_text("not a directory")
    with pytest.raises(PartFailed) as caught:
        up(tmp_path, reserve_base(), ["clickhouse"])
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "logs" / "clickhouse.log") in str(caught.value)
    assert not any(row.pid for row in status(tmp_path)[1])


def test_a_stale_pid_file_of_postgres_does_not_keep_it_down(tmp_path: Path) -> None:
    base = reserve_base()
    up(tmp_path, base, ["postgres"])
    down(tmp_path)
    (tmp_path / "postgres" / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n0\n")
    try:
        up(tmp_path, base, ["postgres"])
    finally:
        down(tmp_path)


def test_a_part_of_ones_own_is_used_and_not_started(tmp_path: Path) -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        mine.listen()
        address = f"127.0.0.1:{mine.getsockname()[1]}"
        parts = Parts.at(tmp_path, 20000, {"kafka": address})
    assert parts.environment()["TELESTREAM_KAFKA"] == address
    assert parts.environment()["TELESTREAM_CLICKHOUSE"] == "http://127.0.0.1:20023"


def test_up_and_its_supervisor_do_not_need_the_terminal_they_were_started_from(tmp_path: Path) -> None:
    base = reserve_base()
    program = (
        "import sys; from pathlib import Path; from telestream_devstack.stack import up;"
        "up(Path(sys.argv[1]), int(sys.argv[2]), ['postgres'])"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path), str(base)], check=True, timeout=60)
    try:
        assert [row.healthy for row in status(tmp_path)[1]] == [True]
    finally:
        assert down(tmp_path)
