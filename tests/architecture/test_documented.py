"""Every setting, metric, topic, rule and field stands in docs/reference, which is made from the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from telestream_cli.reference import pages

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_reference_says_what_the_code_says(name: str) -> None:
    path = REFERENCE / name
    assert path.exists(), f"docs/reference/{name} is missing: run `make docs`"
    assert path.read_text(encoding="utf-8") == pages()[name], f"docs/reference/{name} is stale: run `make docs`"


def test_every_setting_says_what_it_is() -> None:
    from telestream_cli.config import SETTINGS, settings_of

    silent = [
        f"{service}: {name}"
        for service in SETTINGS
        for name, field in settings_of(service).model_fields.items()
        if not field.description
    ]
    assert not silent, silent
