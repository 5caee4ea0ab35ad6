"""Setting a fresh stack up: keys, topics, schemas, tables. Every step may be done again at any time.

Run as a program by the supervisor, side by side with the start of the parts: each step waits for its part.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from telestream_devstack.errors import PartFailed
from telestream_devstack.keys import make_keys
from telestream_devstack.part import Part
from telestream_devstack.parts import PART_NAMES, Parts, make_parts
from telestream_devstack.process import wait_until
from telestream_domain import DEFAULT_PREFIX, TelestreamError, Topics

PARTITIONS = 4
_PATIENCE_SECONDS = 90.0


def _topics(parts: Parts, _key: Path, names: Topics) -> None:
    from telestream_contracts.topics import apply_topics

    apply_topics(parts.kafka, names, partitions=PARTITIONS, replication=1)


def _schemas(parts: Parts, _key: Path, names: Topics) -> None:
    from telestream_contracts import Registry

    Registry(parts.registry).register_all(names)


def _warehouse(parts: Parts, _key: Path, _names: Topics) -> None:
    from telestream_warehouse import migrate

    migrate(parts.clickhouse, parts.clickhouse_database)


def _opstore(parts: Parts, key: Path, _names: Topics) -> None:
    from telestream_opstore import ensure_development_key, migrate

    migrate(parts.postgres)
    ensure_development_key(parts.postgres, key.read_text().strip())


def _names(dsn: str | None) -> Topics:
    """Of the lowest generation that is wanted: nothing of a dropped one is made again. Without a DSN: of the first."""
    prefix = os.environ.get("TELESTREAM_TOPIC_PREFIX", DEFAULT_PREFIX)
    found = Topics(prefix, int(os.environ.get("TELESTREAM_GENERATION", "1")))
    if dsn is None:
        return found
    try:
        from telestream_opstore import derivations
    except ImportError:
        return found
    wanted = [row.generation for row in derivations(dsn, prefix) if row.wanted]
    return found if not wanted or found.generation in wanted else Topics(prefix, min(wanted))


_STEPS: Mapping[str, Callable[[Parts, Path, Topics], None]] = {
    "kafka": _topics,
    "registry": _schemas,
    "clickhouse": _warehouse,
    "postgres": _opstore,
}


def prepare(
    parts: Parts,
    state_dir: Path,
    available: Collection[str] = PART_NAMES,
    ours: Mapping[str, Part] | None = None,
) -> list[str]:
    """Do all steps whose part is `available`, side by side (but for PostgreSQL's, which knows the generations); returns
    what was left out because code for it is not installed. Parts in `ours` are waited for first. Raises
    TelestreamError."""
    api_key = make_keys(state_dir).api_key

    def step(name: str, names: Topics) -> str | None:
        if ours and name in ours:
            _await(ours[name])
        try:
            _STEPS[name](parts, api_key, names)
        except ImportError as error:
            return f"{name}: {error}"
        return None

    left_out = [step("postgres", _names(None))] if "postgres" in available else []
    names = _names(parts.postgres if "postgres" in available else None)
    with ThreadPoolExecutor(len(_STEPS)) as pool:
        running = [pool.submit(step, name, names) for name in _STEPS if name in available and name != "postgres"]
        left_out += [future.result() for future in running]
    return [line for line in left_out if line is not None]


def _await(part: Part) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (reason := part.ready()) is not None:
        if not wait_until(deadline):
            raise PartFailed(f"{part.name} did not become ready: {reason}")
    part.settle()


def main() -> int:
    """Options as one JSON object: state_dir, port_base, parts (those of ours that run), overrides."""
    parser = argparse.ArgumentParser(prog="telestream_devstack.bootstrap", description=__doc__)
    parser.add_argument("options", help=main.__doc__)
    options = json.loads(parser.parse_args().options)
    state_dir = Path(options["state_dir"])
    ours = make_parts(state_dir, options["port_base"], options["parts"])
    try:
        left_out = prepare(
            Parts.at(state_dir, options["port_base"], options["overrides"]),
            state_dir,
            [*ours, *options["overrides"]],
            ours,
        )
    except TelestreamError as error:
        print(str(error), file=sys.stderr)
        return 1
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
