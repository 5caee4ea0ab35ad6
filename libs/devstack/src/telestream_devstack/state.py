"""What a stack's supervisor writes down for the commands to read: `stack.json` in the state directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from telestream_devstack.errors import DevstackError
from telestream_devstack.process import Identity

FILE = "stack.json"


@dataclass(slots=True)
class MemberState:
    """A part or a service. `state`: waiting, preparing, starting, running, backing-off, stopping, stopped."""

    name: str
    url: str
    state: str = "waiting"
    process: Identity | None = None
    restarts: int = 0
    failures: int = 0  # in a row, since it last ran for a while
    last_error: str | None = None
    admin_url: str | None = None
    is_service: bool = False
    generation: int = 1
    required: bool = True  # False: a replay that nobody has activated; the stack is healthy without it


@dataclass(slots=True)
class StackState:
    """A stack with its options; `overrides` are parts of the user's own, by name."""

    port_base: int
    only: list[str]
    overrides: dict[str, str]
    supervisor: Identity | None = None
    phase: str = "starting"  # starting, running, stopping, stopped
    setup_error: str | None = None
    members: dict[str, MemberState] = field(default_factory=dict)

    def save(self, state_dir: Path) -> None:
        """Whole or not at all: a reader never sees half of it."""
        scratch = state_dir / f".{FILE}.{os.getpid()}"
        scratch.write_text(json.dumps(asdict(self), indent=1))
        scratch.replace(state_dir / FILE)


def _identity(found: Mapping[str, Any] | None) -> Identity | None:
    return None if found is None else Identity(int(found["pid"]), float(found["started_at"]))


def load(state_dir: Path) -> StackState | None:
    """The stack last started in a state directory, or None. Raises DevstackError if the file is damaged."""
    path = state_dir / FILE
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DevstackError(f"{path} cannot be read ({error}): remove it; data is kept elsewhere") from None
    try:
        members = {
            name: MemberState(**(member | {"process": _identity(member["process"])}))
            for name, member in found["members"].items()
        }
        return StackState(**(found | {"supervisor": _identity(found["supervisor"]), "members": members}))
    except (KeyError, TypeError, ValueError) as error:
        raise DevstackError(f"{path} is of another version ({error}): remove it; data is kept elsewhere") from None
