"""Keys of a stack: made once, kept in its state directory, readable by their owner only."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StackKeys:
    """Files with the stack's secrets."""

    api_key: Path
    identity: Path
    permanent: Path


def stack_keys(state_dir: Path) -> StackKeys:
    return StackKeys(state_dir / "api_key", state_dir / "identity.key", state_dir / "permanent.key")


def make_keys(state_dir: Path) -> StackKeys:
    """Make the keys that are missing: another permanent key would split every subscriber in two, so one that is
    there is never touched."""
    keys = stack_keys(state_dir)
    _write_once(keys.api_key, f"ts_dev_{secrets.token_urlsafe(24)}")
    _write_once(keys.identity, secrets.token_hex(32))
    _write_once(keys.permanent, secrets.token_hex(32))
    return keys


def _write_once(path: Path, text: str) -> None:
    if path.exists() and path.stat().st_size:
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(text + "\n")
        target.flush()
        os.fsync(target.fileno())
    scratch.replace(path)
