"""``telestream ingest`` against a real gateway on real Kafka, registry and PostgreSQL."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from telestream_cli import ingest
from telestream_cli.access import Access
from telestream_cli.upload import FileToLoad, Tell, load_file
from telestream_devstack import Parts, reserve_base
from telestream_devstack.bootstrap import prepare
from telestream_devstack.keys import stack_keys
from telestream_domain import TelestreamError
from telestream_simulator import Scenario, Written, write_files

READY_S = 60


@dataclass(frozen=True)
class Gateway:
    """A running gateway; ``ingest`` calls the command."""

    access: Access
    state_dir: Path

    def ingest(self, *arguments: str | Path) -> Result:
        app = typer.Typer()
        ingest.register(app)
        app.command("other")(lambda: None)
        line = ["ingest", *map(str, arguments), "--gateway", self.access.gateway, "--state-dir", str(self.state_dir)]
        return CliRunner().invoke(app, line)

    def ingest_json(self, *arguments: str | Path) -> dict[str, Any]:
        result = self.ingest(*arguments, "--json")
        assert result.exit_code == 0, result.output
        answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return answer


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    start = datetime.now(UTC).date() - timedelta(days=1)
    scenario = Scenario(start=start, records=4_000, network_records=500, customers=100, cells=20, source="cli-test")
    return write_files(scenario, tmp_path_factory.mktemp("day"))


@pytest.fixture(scope="module")
def gateway(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    state_dir = tmp_path_factory.mktemp("state")
    prefix = f"t{os.getpid():x}cli."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TELESTREAM_TOPIC_PREFIX", prefix)
        prepare(parts, state_dir, ("kafka", "registry", "postgres"))
    base = reserve_base()
    keys = stack_keys(state_dir)
    environment = dict(os.environ) | parts.environment()
    environment |= {
        "TELESTREAM_TOPIC_PREFIX": prefix,
        "TELESTREAM_HTTP_PORT": str(base + 80),
        "TELESTREAM_ADMIN_PORT": str(base + 101),
        "TELESTREAM_IDENTITY_KEY_FILE": str(keys.identity),
        "TELESTREAM_PERMANENT_KEY_FILE": str(keys.permanent),
        "TELESTREAM_STATE_DIR": str(state_dir / "gateway"),
    }
    with (state_dir / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest_gateway"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _until_ready(f"http://127.0.0.1:{base + 101}/readyz", process, state_dir / "gateway.log")
        url = f"http://127.0.0.1:{base + 80}"
        yield Gateway(
            Access(url, "http://127.0.0.1:9", "http://127.0.0.1:9", keys.api_key.read_text().strip()), state_dir
        )
    finally:
        process.terminate()
        process.wait(40)


def _until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the gateway was not ready in {READY_S} s: {log.read_text()[-2000:]}")


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(headers=gateway.access.headers, timeout=60) as opened:
        yield opened


pytestmark = pytest.mark.stack


def test_a_file_is_loaded_with_every_refusal_counted_by_code(gateway: Gateway, written: Written) -> None:
    answer = gateway.ingest_json(written.cdr[0], "--type", "cdr", "--source", "counted")
    truth = written.truth["files"][0]
    assert {name: answer[name] for name in ("rows", "accepted")} == {name: truth[name] for name in ("rows", "accepted")}
    assert answer["refused_by_code"] == truth["refused"]
    assert answer["duplicate_of"] is None


def test_the_same_content_again_is_a_success_that_adds_nothing(gateway: Gateway, written: Written) -> None:
    first = gateway.ingest_json(written.cdr[0], "--type", "cdr", "--source", "again")
    second = gateway.ingest_json(written.cdr[0], "--type", "cdr", "--source", "again")
    assert second["duplicate_of"] == first["file_id"]
    assert second["accepted"] == first["accepted"]


def test_a_packed_file_is_sent_as_it_is(gateway: Gateway, written: Written, tmp_path: Path) -> None:
    packed = tmp_path / "network.csv.gz"
    packed.write_bytes(gzip.compress(written.network[0].read_bytes()))
    answer = gateway.ingest_json(packed, "--type", "network", "--source", "packed")
    assert answer["accepted"] == written.truth["network"]["accepted"]


def test_an_interrupted_upload_goes_on_where_it_stopped(
    gateway: Gateway, written: Written, client: httpx.Client, tmp_path: Path
) -> None:
    wanted = FileToLoad(written.cdr[0], "cdr", "interrupted")
    _interrupt(gateway, client, wanted, tmp_path / "notes")
    head = client.head(f"{gateway.access.gateway}/v1/files/interrupted/cdr.csv", params={"type": "cdr"})
    arrived = int(head.headers["Upload-Offset"])
    assert 0 < arrived < written.cdr[0].stat().st_size
    sent: list[int] = []
    loaded = load_file(client, gateway.access, wanted, tmp_path / "notes", _noting(sent))
    assert min(sent) > arrived, "what had arrived was sent again"
    assert loaded.accepted == written.truth["cdr"]["accepted"]
    assert loaded.duplicate_of is None


def test_the_rest_of_another_content_is_never_put_behind_an_interrupted_one(
    gateway: Gateway, written: Written, client: httpx.Client, tmp_path: Path
) -> None:
    path = tmp_path / "cdr.csv"
    path.write_bytes(written.cdr[0].read_bytes())
    wanted = FileToLoad(path, "cdr", "changed")
    _interrupt(gateway, client, wanted, tmp_path / "notes")
    lines = written.cdr[0].read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *reversed(lines[1:])]))
    sent: list[int] = []
    loaded = load_file(client, gateway.access, wanted, tmp_path / "notes", _noting(sent))
    assert min(sent) <= 1 << 18, "it was not sent from its start"
    assert loaded.accepted == written.truth["cdr"]["accepted"]


def _noting(sent: list[int]) -> Tell:
    """Keeps how far each piece that was sent reached."""

    def tell(step: str, done: int, of: int) -> None:
        if step == "sending":
            sent.append(done)

    return tell


def _interrupt(gateway: Gateway, client: httpx.Client, wanted: FileToLoad, notes: Path) -> None:
    size = wanted.path.stat().st_size

    def stop_halfway(step: str, done: int, of: int) -> None:
        if done > size // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_file(client, gateway.access, wanted, notes, stop_halfway)
    deadline = time.monotonic() + 10
    url = f"{gateway.access.gateway}/v1/files/{wanted.source}/{wanted.path.name}"
    while client.head(url, params={"type": wanted.type}).headers.get("Upload-Offset", "0") == "0":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_more_refused_rows_than_allowed_are_a_failure(gateway: Gateway, written: Written) -> None:
    result = gateway.ingest(written.cdr[0], "--type", "cdr", "--source", "strict", "--max-refused", "0.0001")
    assert result.exit_code == 1
    assert "more than --max-refused" in result.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"started_at;record_type;status;msisdn\n1;2;3;4\n", "delimiter ';'"),
        (b"started_at,status,msisdn\n2026-11-22T08:00:00Z,COMPLETED,+4930123456\n", "'record_type' is missing"),
        (b"started_at,record_type,status,msisdn,colour\n", "colour"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_that_says_why(
    gateway: Gateway, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    result = gateway.ingest(path, "--type", "cdr", "--source", "bad")
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output
    dry = gateway.ingest(path, "--type", "cdr", "--dry-run")
    assert dry.exit_code == 1
    assert words in dry.output


def test_a_dry_run_shows_rows_and_sends_nothing(gateway: Gateway, written: Written, client: httpx.Client) -> None:
    before = client.get(f"{gateway.access.gateway}/v1/files").json()["data"]
    result = gateway.ingest(written.cdr[0], "--type", "cdr", "--source", "dry", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    look = json.loads(result.stdout)
    assert look["rows"][0]["code"] is None
    assert look["accepted"] == written.truth["cdr"]["accepted"]
    assert look["refused_by_code"] == written.truth["cdr"]["refused"]
    assert client.get(f"{gateway.access.gateway}/v1/files").json()["data"] == before


def test_a_dry_run_asks_about_the_time_zone_when_most_rows_lie_ahead(gateway: Gateway, tmp_path: Path) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=2)
    rows = [f"{ahead:%Y-%m-%dT%H:%M:%SZ},VOICE,COMPLETED,+4930123{number:04d}" for number in range(50)]
    path = tmp_path / "ahead.csv"
    path.write_text("\n".join(["started_at,record_type,status,msisdn", *rows]) + "\n")
    result = gateway.ingest(path, "--type", "cdr", "--dry-run")
    assert result.exit_code == 1
    assert "time zone" in result.output


def test_a_gateway_that_does_not_run_is_one_line_that_says_what_to_do(written: Written) -> None:
    access = Access("http://127.0.0.1:9", "http://127.0.0.1:9", "http://127.0.0.1:9", "key")
    with httpx.Client() as client, pytest.raises(TelestreamError, match="telestream up"):
        load_file(client, access, FileToLoad(written.cdr[0], "cdr", "nobody"))


def test_a_file_that_is_not_there_is_an_error_before_anything_is_sent(gateway: Gateway, tmp_path: Path) -> None:
    result = gateway.ingest(tmp_path / "none.csv", "--type", "cdr")
    assert isinstance(result.exception, TelestreamError)
    assert "does not exist" in str(result.exception)
