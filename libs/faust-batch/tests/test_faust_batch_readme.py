"""The README's example runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from faust_batch_corner import Corner, Process, until

pytestmark = pytest.mark.stack

README = Path(__file__).parents[1] / "README.md"


def test_the_example_of_the_readme_runs(corner: Corner, tmp_path: Path) -> None:
    words, loud = corner.topics("words", "loud", partitions=1)
    found = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    code = found[1].replace("localhost:9092", corner.bootstrap).replace("shout", corner.prefix + "shout")
    script = tmp_path / "example.py"
    script.write_text(code.replace('"words"', f'"{words}"').replace('"loud"', f'"{loud}"'))
    log = tmp_path / "example.log"
    with log.open("w") as stderr:
        process = Process(subprocess.Popen([sys.executable, str(script)], stderr=stderr), log)
    corner.processes.append(process)
    corner.produce(words, {0: [b"hush", b"now"]})
    until(lambda: corner.values(loud, 0) == [b"HUSH", b"NOW"])
    assert process.stop() == 0, process.said


def test_every_test_that_the_table_of_defects_names_exists() -> None:
    here = Path(__file__).parent
    defined = {
        name for path in here.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    text = (here.parent / "docs" / "faust-defects.md").read_text()
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", text))
    files = {name for name in named if name.endswith(".py")}
    assert len(named) > 40
    assert named - files - defined == set()
    assert {name for name in files if not (here / name).exists()} == set()
