"""Which generations' newest minutes are held: what people see, and what they may see next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import polars as pl

from query_api import metrics
from query_api.domain.problems import Problem, unavailable
from query_api.domain.progress import Progress
from query_api.domain.tail import Names, Tail
from query_api.kafka import Live, TailReader
from telestream_contracts import Registry
from telestream_domain import TYPES, TelestreamError, Topics
from telestream_opstore import Derivation, DerivationState
from telestream_runtime import get_logger

POLL_S = 2.0

log = get_logger(__name__)

Generations = Mapping[str, int]
Derivations = Mapping[int, Derivation]


def to_follow(active: Iterable[int], derivations: Iterable[Derivation], at_most: int) -> list[int]:
    """Whose tails are held: what people see first, then the newest of those whose workers run and that they may see.

    What people see is followed whatever ``at_most`` says: there are as many as types at most.
    """
    seen = sorted(set(active))
    others = sorted((d.generation for d in derivations if d.wanted and not d.compare_only), reverse=True)
    more = [generation for generation in others if generation not in seen]
    return [*seen, *more[: max(0, at_most - len(seen))]]


class SharedNames(Names):
    """Names that the threads of several tails give codes to, so that their rows can be put together."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def encode(self, names: pl.Series) -> pl.Series:
        with self._lock:
            return super().encode(names)


class Tails:
    """One reader for each generation that is followed, by what the two stores say every ``POLL_S``.

    ``active`` and ``derivations`` ask them; each raises a TelestreamError while its store is away, and then what was
    known before stays.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        registry: Registry,
        max_keys: int,
        at_most: int,
        active: Callable[[], Generations],
        derivations: Callable[[], list[Derivation]],
    ) -> None:
        self._bootstrap, self._prefix, self._registry = bootstrap, prefix, registry
        self._max_keys, self._at_most = max_keys, at_most
        self._ask_active, self._ask_derivations = active, derivations
        self._names: Names = SharedNames()
        self._readers: dict[int, TailReader] = {}
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tails", daemon=True)
        self._active: Generations | None = None
        self._derivations: Derivations = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        for reader in [*self._readers.values()]:
            reader.stop()

    @property
    def last_active(self) -> dict[str, int] | None:
        """What people saw when it was last asked for; None: never known."""
        return None if self._active is None else dict(self._active)

    def noted(self, active: Generations) -> None:
        """What people see, as a request has just read it: followed from now on."""
        self._active = active
        if not set(active.values()) <= self._readers.keys():
            self._wake.set()

    def derivation(self, generation: int) -> Derivation | None:
        """A generation's row as last read; None if it is not known (yet)."""
        return self._derivations.get(generation)

    def is_going(self, generation: int) -> bool:
        """Whether it is being dropped: some of its rows may be gone already."""
        row = self._derivations.get(generation)
        return row is not None and row.state in (DerivationState.DROPPING, DerivationState.DROPPED)

    def live(self, generation: int) -> Live | None:
        """What the tail of a generation holds now; None while it has not caught up, or is not followed."""
        reader = self._readers.get(generation)
        return None if reader is None else reader.live

    def any_live(self) -> Live | None:
        """One of those that are read, for what is the same in all: the partitions of raw."""
        return next((live for reader in [*self._readers.values()] if (live := reader.live) is not None), None)

    def held(self, generations: Generations) -> Live:
        """The tails of each type side by side, as one. Raises Problem: 503 while one is not ready, 422 where none is
        kept."""
        found: dict[str, Live] = {}
        for record_type, generation in generations.items():
            reader = self._readers.get(generation)
            if reader is None and self._active is not None and generation not in self._active.values():
                raise Problem(
                    422,
                    "not_followed",
                    f"the newest minutes of generation {generation} are not kept: only those of what people see and of "
                    "replays whose workers run; ask /v1/metrics/timeseries",
                    "generation",
                )
            live = None if reader is None else reader.live
            if live is None:
                why = "its reader is being started" if reader is None else reader.missing()
                raise Problem(
                    503,
                    "unavailable",
                    f"the newest minutes of generation {generation} are not read yet ({why}); ask again",
                    retry_after_s=2,
                )
            found[record_type] = live
        return side_by_side(found)

    def missing(self) -> str | None:
        """Why the newest minutes of what people see are not there, or None."""
        if self._active is None:
            return "it is not known yet which generation people see"
        for generation in sorted(set(self._active.values())):
            reader = self._readers.get(generation)
            reason = "its reader is being started" if reader is None else reader.missing()
            if reason is not None:
                return reason if len(self._readers) < 2 else f"generation {generation}: {reason}"
        return None

    def alive(self) -> str | None:
        """Why the process has to be restarted, or None."""
        if not self._thread.is_alive() and self._thread.ident is not None and not self._stop.is_set():
            return "the thread that minds the tails has ended"
        return next((reason for reader in [*self._readers.values()] if (reason := reader.alive())), None)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            # one at a time: while the one store keeps us waiting, what the other said is done
            for look in (self._look_at_active, self._look_at_derivations):
                try:
                    look()
                except TelestreamError as err:
                    log.debug("a store does not say which generations there are", reason=str(err))
                except Exception:
                    log.exception("looking for generations failed")
                self._follow()
            self._wake.wait(POLL_S)

    def _look_at_active(self) -> None:
        self._active = self._ask_active() or self._active

    def _look_at_derivations(self) -> None:
        self._derivations = {row.generation: row for row in self._ask_derivations()}
        if self._active is None:
            self._active = _only_choice(self._derivations.values())

    def _follow(self) -> None:
        if self._active is None or self._stop.is_set():
            return
        wanted = to_follow(self._active.values(), self._derivations.values(), self._at_most)
        for generation in [number for number in self._readers if number not in wanted]:
            self._readers.pop(generation).stop()
            metrics.TAIL_KEYS.remove(str(generation))
            metrics.TAIL_LAG_SECONDS.remove(str(generation))
            log.info("tail given up", generation=generation)
        for generation in wanted:
            if generation not in self._readers:
                reader = TailReader(
                    self._bootstrap,
                    Topics(self._prefix, generation),
                    self._registry,
                    self._max_keys,
                    self._current_names,
                    self._renewed,
                )
                self._readers[generation] = reader
                reader.start()
                log.info("tail followed", generation=generation)

    def _current_names(self) -> Names:
        return self._names

    def _renewed(self, names: Names) -> None:
        """Too many names: all readers begin anew with none."""
        if self._names is names:
            self._names = SharedNames()


def side_by_side(by_type: Mapping[str, Live]) -> Live:
    """Of each type what its own tail holds. Raises Problem while they are being read anew with other names."""
    lives = list(by_type.values())
    if all(live is lives[0] for live in lives):
        return lives[0]
    names = lives[0].tail.names
    if any(live.tail.names is not names for live in lives):
        raise unavailable("the tail of the aggregates", retry_after_s=2)
    tail = replace(
        Tail(names=names),
        windows={
            key: window for kind, live in by_type.items() for key, window in live.tail.windows.items() if key[1] == kind
        },
        included={
            key: offset
            for kind, live in by_type.items()
            for key, offset in live.tail.included.items()
            if key[1] == kind
        },
        since_ms=max(live.tail.since_ms for live in lives),
    )
    return Live(tail, progress_of({kind: live.progress for kind, live in by_type.items()}), lives[0].partitions)


def progress_of(by_type: Mapping[str, Progress]) -> Progress:
    """Of each type its own progress."""
    marks = {key: held for kind, found in by_type.items() for key, held in found.marks.items() if key[0] == kind}
    arrivals = {key: at for kind, found in by_type.items() for key, at in found.arrivals.items() if key[0] == kind}
    return Progress(marks, arrivals)


def _only_choice(derivations: Iterable[Derivation]) -> Generations | None:
    """What people see, where only one generation was ever decided on; None: only the warehouse knows."""
    decided = {row.generation for row in derivations if row.decided_at is not None}
    return dict.fromkeys(TYPES, decided.pop()) if len(decided) == 1 else None
