"""Dependencies point one way: edges → domain → libs/domain; libs never import services; services not one another."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBS = {path.name: path for path in ROOT.glob("libs/*/src/*") if path.is_dir()}
SERVICES = {path.name: path for path in ROOT.glob("services/*/src/*") if path.is_dir()}

MAY_IMPORT: dict[str, set[str]] = {
    "telestream_domain": set(),
    "faust_batch": set(),
    "telestream_runtime": {"telestream_domain"},
    "telestream_contracts": {"telestream_domain"},
    "telestream_opstore": {"telestream_domain"},
    "telestream_guards": {"telestream_domain", "telestream_opstore", "telestream_runtime"},
    "telestream_warehouse": {"telestream_domain", "telestream_contracts"},
    "telestream_simulator": {"telestream_domain", "telestream_runtime"},
    "telestream_devstack": {
        "telestream_domain",
        "telestream_runtime",
        "telestream_contracts",
        "telestream_warehouse",
        "telestream_opstore",
    },
}
# what the pure heart of a service may touch: columns and time zones, no Kafka, HTTP, SQL, environment, clock or logs
PURE = {"polars", "polars_hash", "pyarrow", "numpy", "msgspec", "yaml", "pydantic", "phonenumbers"}
PURE |= {"telestream_domain", "telestream_contracts", "telestream_warehouse", "zstandard"}  # names of tables; unpacking
IMPURE_STDLIB = {"os", "logging", "socket", "subprocess", "threading", "asyncio", "random", "time", "secrets"}


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0], node.lineno


def _ours(package: Path) -> Iterator[tuple[str, Path, int]]:
    for path in package.rglob("*.py"):
        for name, line in _imports(path):
            if name in LIBS or name in SERVICES:
                yield name, path, line


@pytest.mark.parametrize("library", sorted(MAY_IMPORT))
def test_a_library_imports_only_what_lies_below_it(library: str) -> None:
    allowed = MAY_IMPORT[library] | {library}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for name, path, line in _ours(LIBS[library])
        if name not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_every_library_has_its_row() -> None:
    assert set(LIBS) == set(MAY_IMPORT) | {"telestream_cli"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_imports_no_other_service_nor_the_command(service: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for name, path, line in _ours(SERVICES[service])
        if name != service
        and (name in SERVICES or name in ("telestream_cli", "telestream_devstack", "telestream_simulator"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_the_domain_of_a_service_is_pure(service: str) -> None:
    wrong = []
    for path in (SERVICES[service] / "domain").rglob("*.py"):
        for name, line in _imports(path):
            if name == service:
                continue
            pure = name in PURE or (name in sys.stdlib_module_names and name not in IMPURE_STDLIB)
            if not pure:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_simulators_truth_shares_no_code_with_the_services() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in LIBS["telestream_simulator"].rglob("*.py")
        for name, line in _imports(path)
        if name in SERVICES or name in {"polars", "telestream_contracts", "telestream_warehouse"}
    ]
    assert not wrong, "\n".join(wrong)
