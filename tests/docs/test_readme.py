"""Every command of the README runs as written, on a stack of its own ports; what cannot run here is marked."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- not run by a test:[^>]*-->\n)?```sh\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[str]:
    """The shell blocks of a page that are not marked as not run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for mark, code in BLOCK.findall(text) if not mark]


def test_every_command_of_the_readme_runs(stack: Any, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / ".telestream").symlink_to(stack.state_dir)
    found = blocks("README.md")
    assert found, "the README shows no command that runs"
    script = "set -euo pipefail\n" + "\n".join(found)
    script = re.sub(r"127\.0\.0\.1:18(\d{3})", lambda port: f"127.0.0.1:{stack.port_base + int(port.group(1))}", script)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, f"{script}\n--- printed\n{done.stdout[-3000:]}\n--- complained\n{done.stderr[-3000:]}"


def test_links_between_the_pages_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/*/README.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, "\n".join(broken)
