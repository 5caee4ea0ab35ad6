"""Which derivation a question is about: what people see now, a generation by its number, or what they saw at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from query_api.domain.problems import Problem, bad_parameter

Generations = dict[str, int]
"""Type → generation."""


@dataclass(frozen=True, slots=True)
class Point:
    """At most one of the two; none: what people see now."""

    generation: int | None = None
    at: datetime | None = None

    @property
    def is_now(self) -> bool:
        return self.generation is None and self.at is None


NOW = Point()


@dataclass(frozen=True, slots=True)
class Known:
    """What one look at the warehouse said: what people see, what they saw at the time asked for (empty: nothing yet),
    and of which types which generations have rows."""

    active: Mapping[str, int]
    then: Mapping[str, int]
    having: frozenset[tuple[str, int]]

    def has(self, record_type: str, generation: int) -> bool:
        return self.active.get(record_type) == generation or (record_type, generation) in self.having


def known(rows: Iterable[tuple[str, str, int]]) -> Known:
    """From rows of ``what``, ``type``, ``generation``."""
    active: Generations = {}
    then: Generations = {}
    having = set()
    for what, record_type, generation in rows:
        if what == "rows":
            having.add((record_type, generation))
        else:
            (active if what == "active" else then)[record_type] = generation
    return Known(active, then, frozenset(having))


def resolved(point: Point, types: Sequence[str], found: Known) -> Generations:
    """The generation of each of ``types`` that answers; raises Problem where there is none.

    A type that the generation asked for does not derive is read from what people see: as it would be if that generation
    were activated. One of ``types`` at least must be its own.
    """
    if point.at is not None:
        return _then(types, found)
    if point.generation is None:
        return {name: found.active[name] for name in types}
    number = point.generation
    if not any(found.has(name, number) for name in found.active):
        raise Problem(
            404, "unknown_generation", f"there are no rows of generation {number}: see /v1/generations", "generation"
        )
    own = [name for name in types if found.has(name, number)]
    if not own:
        derived = " and ".join(name for name in found.active if found.has(name, number))
        raise bad_parameter(
            "generation", f"{number} has rows of {derived} only, not of {' or '.join(types)}", "generation_lacks_type"
        )
    return {name: number if name in own else found.active[name] for name in types}


def still_there(pinned: Generations, found: Known) -> Generations:
    """What a cursor pinned; raises Problem if it was dropped meanwhile."""
    for name, number in pinned.items():
        if not found.has(name, number):
            raise Problem(
                404, "generation_dropped", f"generation {number}, which this list is of, is gone: begin anew", "cursor"
            )
    return pinned


def _then(types: Sequence[str], found: Known) -> Generations:
    missing = [name for name in types if name not in found.then]
    if missing:
        raise bad_parameter("at", "lies before the first activation: nobody saw anything then", "before_first")
    for name in types:
        if not found.has(name, found.then[name]):
            raise Problem(
                404,
                "generation_dropped",
                f"generation {found.then[name]} answered for {name} then, and was dropped: see /v1/generations",
                "at",
            )
    return {name: found.then[name] for name in types}
