"""Ports, process identities, logs and backing off."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telestream_devstack.errors import DevstackError, PortTaken
from telestream_devstack.members import last_words, pause_before_restart
from telestream_devstack.ports import (
    OFFSETS,
    REPLAY_SLOTS,
    WORKERS_OF_ONE,
    check_base,
    replay_port,
    require_free,
    reserve_base,
    slot_for,
)
from telestream_devstack.process import LOG_LIMIT_BYTES, Command, Identity, end, identity_of, rotate, spawn, tail
from telestream_devstack.services import DERIVING, member_name, service_and_generation


def command(tmp_path: Path, code: str, **options: object) -> Command:
    return Command(
        arguments=[sys.executable, "-c", code],
        log=tmp_path / "logs" / "child.log",
        environment=dict(os.environ),
        cwd=tmp_path,
        **options,  # type: ignore[arg-type]
    )


def test_a_taken_port_is_named_with_who_holds_it_and_what_to_do() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        number = holder.getsockname()[1]
        with pytest.raises(PortTaken) as caught:
            require_free({"kafka": number})
    assert f"port {number} for kafka is taken by" in str(caught.value)
    assert f"(pid {os.getpid()})" in str(caught.value)
    assert "--port-base" in str(caught.value)


def test_a_reserved_port_base_is_not_given_twice() -> None:
    assert reserve_base() != reserve_base()


def test_a_port_base_without_room_for_all_ports_is_refused() -> None:
    with pytest.raises(DevstackError, match="out of range"):
        check_base(65500)


def test_workers_of_other_generations_have_ports_of_their_own_within_the_layout() -> None:
    ports = [replay_port(0, slot, worker) for slot in range(REPLAY_SLOTS) for worker in range(WORKERS_OF_ONE)]
    assert len(set(ports)) == REPLAY_SLOTS * WORKERS_OF_ONE
    assert not set(ports) & set(OFFSETS.values())
    assert min(OFFSETS.values()) < min(ports) <= max(ports) < max(OFFSETS.values())


def test_a_generation_has_the_same_slot_again_unless_another_one_has_it() -> None:
    assert slot_for(2, []) == slot_for(2, [5, 7]) == 2
    assert slot_for(2 + REPLAY_SLOTS, [2, 3]) == 4
    assert slot_for(2, range(REPLAY_SLOTS)) is None


def test_a_member_s_name_says_service_and_generation() -> None:
    for service in DERIVING:
        for generation in (1, 2, 12):
            assert service_and_generation(member_name(service, generation)) == (service, generation)
    assert service_and_generation("enricher.g3") == ("cdr-enricher", 3)
    assert service_and_generation("kafka") == ("kafka", 1)


def test_a_pid_that_belongs_to_another_process_is_not_ours() -> None:
    mine = identity_of(os.getpid())
    assert mine is not None
    assert mine.alive()
    assert not Identity(mine.pid, mine.started_at - 100).alive()


def test_a_process_that_does_not_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True);"
        "time.sleep(60)"
    )
    child = spawn(command(tmp_path, code))
    while not (said := tail(tmp_path / "logs" / "child.log", 1)):
        time.sleep(0.05)
    grandchild = identity_of(int(said[0]))
    identity = identity_of(child.pid)
    assert identity is not None
    assert grandchild is not None
    assert end([identity], timeout_seconds=0.3) == 2
    assert not identity.alive()
    assert not grandchild.alive()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_child_ends_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from telestream_devstack.process import Command, spawn;"
        "child = spawn(Command([sys.executable, '-c', 'import time; time.sleep(60)'], Path(sys.argv[1]) / 'log',"
        " dict(os.environ), Path(sys.argv[1]))); print(child.pid, flush=True); child.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = identity_of(int(parent.stdout.readline()))
    parent.stdout.close()
    assert child is not None
    time.sleep(0.5)  # until it has become the program that it was started for
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while child.alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.alive()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="gives up root")
def test_a_program_started_as_another_user_can_still_read_a_closed_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "data").write_text("here")
    code = f"import os; print(os.geteuid(), open({str(closed / 'data')!r}).read(), flush=True)"
    child = spawn(command(tmp_path, code, user=(65534, 65534)))
    assert child.wait(timeout=20) == 0
    assert tail(tmp_path / "logs" / "child.log", 1) == ["65534 here"]


def test_a_log_that_has_grown_large_is_set_aside_once(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    log.write_bytes(b"x" * (LOG_LIMIT_BYTES + 1))
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "kafka.log.1").stat().st_size == LOG_LIMIT_BYTES + 1


def test_the_last_words_of_a_json_log_are_what_a_person_wants_to_read(tmp_path: Path) -> None:
    log = tmp_path / "sink.log"
    log.write_text('{"event": "stopped", "reason": "ClickHouse is away", "level": "error"}\n\n')
    assert last_words(log) == "stopped: ClickHouse is away"
    log.write_text("plain words\n")
    assert last_words(log) == "plain words"
    assert last_words(tmp_path / "nothing.log") == "it said nothing"


def test_pauses_between_restarts_grow_and_have_an_end() -> None:
    pauses = [pause_before_restart(failures) for failures in range(1, 12)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
