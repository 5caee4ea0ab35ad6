"""Finding profiles: an operator's own folder first, then the shipped ones."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ingest_gateway.domain.profile import Profile, ProfileInvalid, parse_profile

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Found:
    """A profile and a digest of its text: another text is another way to read the same file."""

    profile: Profile
    digest: str


def shipped() -> Any:
    """The folder of shipped profiles."""
    packaged = resources.files("ingest_gateway") / "profiles"
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[4] / "schemas" / "profiles"


def find_profile(name: str, folder: Path | None) -> Found:
    """Raises ProfileInvalid if there is none of this name, or it cannot work."""
    if not _NAME.fullmatch(name):
        raise ProfileInvalid("a profile's name is made of small letters, digits, '-' and '_'")
    for place in (folder, shipped()):
        if place is None:
            continue
        path = place / f"{name}.yaml"
        if path.is_file():
            text = path.read_text("utf-8")
            return Found(parse_profile(text, name), hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
    raise ProfileInvalid(f"there is no profile {name}")
