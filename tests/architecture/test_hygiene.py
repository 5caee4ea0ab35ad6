"""The project speaks of itself alone, and nothing happens at import."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    wrong = []
    needles = ["/" + "work" + "/", "/" + "root" + "/", "/" + "home" + "/"]
    for path in _tracked():
        if path.suffix in {".png", ".gz", ".zst", ".jar"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        wrong += [f"{path.relative_to(ROOT)}: {needle}" for needle in needles if needle in text]
    assert not wrong, "\n".join(wrong)


def test_no_module_reads_the_environment_at_import() -> None:
    wrong = []
    for path in [*ROOT.glob("libs/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.If):
                continue
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute) and inner.attr in ("environ", "getenv"):
                    wrong.append(f"{path.relative_to(ROOT)}:{inner.lineno}")
    assert not wrong, "\n".join(wrong)
