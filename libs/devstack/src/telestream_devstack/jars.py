"""The Java programs: exactly the files that the lock file names, fetched once and checked on the way in.

The lock file holds coordinate, size and SHA-256, never an address: where Maven artifacts come from is a matter of the
machine (`~/.m2/settings.xml` mirrors, TELESTREAM_MAVEN_REPOSITORY, else Maven Central).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from telestream_devstack.cache import cache_dir, locked
from telestream_devstack.errors import DownloadFailed

LOCK_FILE = Path(__file__).parent / "jars.lock"
_PARALLEL = 4
_ATTEMPTS = 3

Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Jar:
    """One file of the lock. `classifier` is "" if there is none; `packaging` is the file's ending."""

    program: str
    group: str
    artifact: str
    version: str
    classifier: str
    packaging: str
    size: int
    sha256: str

    @property
    def coordinate(self) -> str:
        parts = [self.group, self.artifact, self.packaging, *([self.classifier] if self.classifier else [])]
        return ":".join([*parts, self.version])

    @property
    def filename(self) -> str:
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{suffix}.{self.packaging}"

    @property
    def relative(self) -> Path:
        """Its place in a Maven repository."""
        return Path(*self.group.split("."), self.artifact, self.version, self.filename)


def read_lock(path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """Lines of `program coordinate size sha256`; a coordinate is group:artifact:packaging[:classifier]:version."""
    jars = []
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        program, coordinate, size, sha256 = line.split()
        group, artifact, packaging, *classifier, version = coordinate.split(":")
        jars.append(
            Jar(program, group, artifact, version, classifier[0] if classifier else "", packaging, int(size), sha256)
        )
    return tuple(jars)


def format_lock(jars: Sequence[Jar]) -> str:
    head = "# program coordinate size sha256; made by `python -m telestream_devstack.resolve_jars`\n"
    return head + "".join(f"{jar.program} {jar.coordinate} {jar.size} {jar.sha256}\n" for jar in jars)


def sha256_of(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def matches(path: Path, jar: Jar) -> bool:
    """Whether a file is there and is exactly what the lock says."""
    return path.is_file() and path.stat().st_size == jar.size and sha256_of(path) == jar.sha256


def remote_repositories(environ: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """Name → address from the machine's own settings; None for the default, Maven Central."""
    if own := environ.get("TELESTREAM_MAVEN_REPOSITORY"):
        return {"central": own.rstrip("/")}
    settings = Path.home() / ".m2" / "settings.xml"
    try:
        root = ElementTree.parse(settings).getroot()
    except (OSError, ElementTree.ParseError):
        return None
    for mirror in root.iter():
        if mirror.tag.rpartition("}")[2] != "mirror":
            continue
        fields = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in mirror}
        covered = {part.strip() for part in fields.get("mirrorOf", "").split(",")}
        if fields.get("url") and covered & {"*", "central", "external:*"} and "!central" not in covered:
            return {"central": fields["url"].rstrip("/")}
    return None


def _fetch(jar: Jar, into: Path, report: Report) -> Path:
    """Download one file into an own directory by jgo; returns where it lies."""
    from jgo.maven import MavenContext, PythonResolver

    @contextmanager
    def progress(_filename: str, _total: int) -> Iterator[Report]:
        yield report

    def callback(filename: str, total: int) -> AbstractContextManager[Report]:
        return progress(filename, total)

    context = MavenContext(
        resolver=PythonResolver(progress_callback=callback),
        repo_cache=into,
        remote_repos=remote_repositories(),
        timeout=30,
    )
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    return Path(component.artifact(jar.classifier, jar.packaging).resolve())


def _obtain(jar: Jar, target: Path, report: Report) -> None:
    """Put one file of the lock in its place, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    local = Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository") / jar.relative
    problem = ""
    for attempt in range(_ATTEMPTS):
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as scratch:
            taken = 0

            def count(size: int) -> None:
                nonlocal taken
                taken += size
                report(size)

            if attempt == 0 and matches(local, jar):
                shutil.copyfile(local, Path(scratch) / jar.filename)
                (Path(scratch) / jar.filename).replace(target)
                report(jar.size)
                return
            try:
                fetched = _fetch(jar, Path(scratch), count)
            except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
                problem = _reason(error)
            else:
                if matches(fetched, jar):
                    fetched.replace(target)
                    report(jar.size - taken)
                    return
                problem = "what came differs from the lock file (size or SHA-256)"
            report(-taken)
    raise DownloadFailed(
        f"{jar.coordinate} could not be fetched ({problem}): check the network, or name a Maven repository with "
        "TELESTREAM_MAVEN_REPOSITORY, and run the command again; what is already there is kept"
    )


def _reason(error: Exception) -> str:
    text = type(error).__name__
    return "it is not in the repository" if "not found in remote" in str(error) else text


def ensure(
    programs: Sequence[str], cache: Path | None = None, lock: Sequence[Jar] | None = None
) -> dict[str, list[Path]]:
    """Program → its files, all present and checked when fetched; what is missing is downloaded, with its size named.

    Two processes may do this at once: one downloads, the other waits. Raises DownloadFailed.
    """
    root = (cache or cache_dir()) / "jars"
    jars = [jar for jar in (lock if lock is not None else read_lock()) if jar.program in programs]
    if _missing(jars, root):
        with locked(root / ".lock"):
            if missing := _missing(jars, root):
                _download(missing, root)
    places: dict[str, list[Path]] = {program: [] for program in programs}
    for jar in jars:
        places[jar.program].append(root / jar.relative)
    return places


def _missing(jars: Sequence[Jar], root: Path) -> list[Jar]:
    # The content is checked when a file enters the cache; afterwards its size tells a damaged disk's file well enough.
    return [
        jar for jar in jars if not (root / jar.relative).is_file() or (root / jar.relative).stat().st_size != jar.size
    ]


def verify(programs: Sequence[str], cache: Path | None = None, lock: Sequence[Jar] | None = None) -> list[Jar]:
    """Remove the files in the cache that are not what the lock says, so that they are fetched anew; returns them."""
    root = (cache or cache_dir()) / "jars"
    broken = []
    for jar in lock if lock is not None else read_lock():
        path = root / jar.relative
        if jar.program in programs and path.exists() and not matches(path, jar):
            path.unlink()
            broken.append(jar)
    return broken


def _download(missing: Sequence[Jar], root: Path) -> None:
    total = sum(jar.size for jar in missing)
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < 2 * total:
        raise DownloadFailed(f"{root} has {free >> 20} MiB free, {2 * total >> 20} MiB are needed: make room")
    broken_off = threading.Event()
    with _bar(len(missing), total) as report, ThreadPoolExecutor(_PARALLEL) as pool:

        def count(size: int) -> None:
            if broken_off.is_set():
                raise DownloadFailed("the download was broken off; what is already there is kept")
            report(size)

        running = [pool.submit(_obtain, jar, root / jar.relative, count) for jar in missing]
        try:
            for future in running:
                future.result()
        except BaseException:  # Ctrl-C too: not after the 150 MB that are under way
            broken_off.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _bar(files: int, total: int) -> Iterator[Report]:
    """A progress bar on a terminal, a line every tenth elsewhere; both name the total size before it starts."""
    title = f"Downloading Kafka and the schema registry once: {files} files, {total / 1e6:.0f} MB"
    guard = threading.Lock()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        console = Console(stderr=True)
        console.print(title)
        with Progress(
            BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), console=console
        ) as progress:
            task = progress.add_task("", total=total)
            yield lambda size: progress.advance(task, size)
        return

    print(title, file=sys.stderr, flush=True)
    done = shown = 0

    def report(size: int) -> None:
        nonlocal done, shown
        with guard:
            done += size
            if done * 10 // total > shown:
                shown = done * 10 // total
                print(f"  {done / 1e6:.0f} of {total / 1e6:.0f} MB", file=sys.stderr, flush=True)

    yield report


def unpacked(archive: Path, cache: Path | None = None) -> Path:
    """The directory with an archive's content, unpacked once per archive name (names carry versions)."""
    root = (cache or cache_dir()) / "unpacked"
    target = root / archive.name.removesuffix(".tar.gz")
    if target.exists():
        return target
    with locked(root / ".lock"):
        if target.exists():
            return target
        scratch = Path(tempfile.mkdtemp(dir=root, prefix=".part-"))
        try:
            with tarfile.open(archive) as source:
                source.extractall(scratch, filter="data")
            scratch.replace(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return target
