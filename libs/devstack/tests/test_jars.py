"""Downloads: exactly what the lock file says, or nothing and one clear line."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from telestream_devstack.errors import DownloadFailed
from telestream_devstack.jars import Jar, ensure, format_lock, read_lock, remote_repositories, unpacked, verify


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Maven repository on this machine, and a home directory without settings."""
    root = tmp_path / "repository"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TELESTREAM_MAVEN_REPOSITORY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("M2_REPO", raising=False)
    yield root
    server.shutdown()
    server.server_close()


def publish(repository: Path, name: str, content: bytes, promised: bytes | None = None) -> Jar:
    """Put a file into the repository; the lock promises `promised`, or what is there."""
    expected = content if promised is None else promised
    jar = Jar("kafka", "org.example", name, "1.0", "", "jar", len(expected), hashlib.sha256(expected).hexdigest())
    path = repository / jar.relative
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return jar


def test_the_lock_file_is_whole_and_names_no_address() -> None:
    jars = read_lock()
    assert {jar.program for jar in jars} == {"kafka", "registry"}
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)
    assert "http" not in format_lock(jars)


def test_a_lock_that_is_written_is_read_back() -> None:
    jars = read_lock()
    lines = format_lock(jars).splitlines()
    assert len(lines) == len(jars) + 1
    assert any(":tar.gz:all:" in line for line in lines)


def test_a_missing_file_is_fetched_and_one_that_is_there_is_not(repository: Path, tmp_path: Path) -> None:
    jar = publish(repository, "alpha", b"alpha" * 1000)
    places = ensure(["kafka"], tmp_path / "cache", [jar])
    assert places["kafka"][0].read_bytes() == b"alpha" * 1000
    (repository / jar.relative).unlink()
    assert ensure(["kafka"], tmp_path / "cache", [jar]) == places


def test_a_file_that_differs_from_the_lock_never_enters_the_cache(repository: Path, tmp_path: Path) -> None:
    jar = publish(repository, "alpha", b"tampered" * 100, promised=b"original" * 100)
    with pytest.raises(DownloadFailed, match="differs from the lock file"):
        ensure(["kafka"], tmp_path / "cache", [jar])
    assert not list((tmp_path / "cache").rglob("*alpha*.jar"))


def test_a_file_that_was_damaged_later_is_found_and_fetched_again(repository: Path, tmp_path: Path) -> None:
    jar = publish(repository, "alpha", b"alpha" * 1000)
    place = ensure(["kafka"], tmp_path / "cache", [jar])["kafka"][0]
    place.write_bytes(b"omega" * 1000)
    assert verify(["kafka"], tmp_path / "cache", [jar]) == [jar]
    assert ensure(["kafka"], tmp_path / "cache", [jar])["kafka"][0].read_bytes() == b"alpha" * 1000


def test_a_truncated_file_is_fetched_again(repository: Path, tmp_path: Path) -> None:
    jar = publish(repository, "alpha", b"alpha" * 1000)
    place = ensure(["kafka"], tmp_path / "cache", [jar])["kafka"][0]
    place.write_bytes(b"alp")
    assert ensure(["kafka"], tmp_path / "cache", [jar])["kafka"][0].stat().st_size == 5000


def test_what_was_fetched_before_a_failure_is_kept(repository: Path, tmp_path: Path) -> None:
    good = publish(repository, "alpha", b"alpha" * 1000)
    bad = publish(repository, "beta", b"wrong", promised=b"right")
    with pytest.raises(DownloadFailed, match="beta"):
        ensure(["kafka"], tmp_path / "cache", [good, bad])
    assert (tmp_path / "cache" / "jars" / good.relative).exists()


def test_without_a_network_there_is_one_line_that_says_what_to_do(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = publish(repository, "alpha", b"alpha")
    monkeypatch.setenv("TELESTREAM_MAVEN_REPOSITORY", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed) as caught:
        ensure(["kafka"], tmp_path / "cache", [jar])
    assert "\n" not in str(caught.value)
    assert "check the network" in str(caught.value)


def test_two_processes_that_download_at_once_both_get_whole_files(repository: Path, tmp_path: Path) -> None:
    jars = [publish(repository, f"part{number}", bytes([number]) * 300_000) for number in range(8)]
    (tmp_path / "lock").write_text(format_lock(jars))
    program = (
        "import sys; from pathlib import Path; from telestream_devstack.jars import ensure, matches, read_lock;"
        "lock = read_lock(Path(sys.argv[1])); places = ensure(['kafka'], Path(sys.argv[2]), lock);"
        "assert all(matches(path, jar) for path, jar in zip(places['kafka'], lock))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "lock"), str(tmp_path / "cache")])
        for _ in range(2)
    ]
    assert [process.wait(timeout=60) for process in running] == [0, 0]


def test_the_size_is_named_before_a_download_starts(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jar = publish(repository, "alpha", b"a" * 3_000_000)
    ensure(["kafka"], tmp_path / "cache", [jar])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("1 files, 3 MB")
    assert "3 of 3 MB" in lines[-1]


def test_a_file_of_the_local_maven_repository_is_taken_if_it_is_the_right_one(repository: Path, tmp_path: Path) -> None:
    jar = publish(repository, "alpha", b"alpha" * 10)
    local = tmp_path / "home" / ".m2" / "repository" / jar.relative
    local.parent.mkdir(parents=True)
    (repository / jar.relative).replace(local)
    assert ensure(["kafka"], tmp_path / "cache", [jar])["kafka"][0].read_bytes() == b"alpha" * 10


def test_a_mirror_of_the_users_maven_settings_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text(
        "<settings xmlns='http://maven.apache.org/SETTINGS/1.0.0'><mirrors>"
        "<mirror><id>other</id><mirrorOf>jcenter</mirrorOf><url>http://127.0.0.1:1/no</url></mirror>"
        "<mirror><id>house</id><mirrorOf>*,!private</mirrorOf><url>http://127.0.0.1:1/yes/</url></mirror>"
        "</mirrors></settings>"
    )
    assert remote_repositories({}) == {"central": "http://127.0.0.1:1/yes"}
    assert remote_repositories({"TELESTREAM_MAVEN_REPOSITORY": "http://127.0.0.1:2/"}) == {
        "central": "http://127.0.0.1:2"
    }


def test_an_archive_that_is_broken_off_leaves_no_half_directory(tmp_path: Path) -> None:
    archive = tmp_path / "thing-1.0.tar.gz"
    archive.write_bytes(b"\x1f\x8b not an archive")
    with pytest.raises(tarfile.ReadError):
        unpacked(archive, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "unpacked").iterdir()] == [".lock"]
