from __future__ import annotations

import pytest

from cdr_enricher.settings import EnricherSettings
from telestream_domain import Severity
from telestream_runtime import SettingsError


def test_lists_and_severities_are_read_from_text() -> None:
    settings = EnricherSettings.from_env(
        {
            "TELESTREAM_HOME_PLMNS": "208-01, 208-02",
            "TELESTREAM_SEVERITIES": "duration_too_long=rejected, too_old=warn",
            "TELESTREAM_LATENESS_S": "60",
        }
    )
    assert settings.home_plmns == ("208-01", "208-02")
    assert settings.severities == {"duration_too_long": Severity.REJECTED, "too_old": Severity.WARN}
    assert settings.lateness_ms == 60_000


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        EnricherSettings.from_env(
            {
                "TELESTREAM_HOME_PLMNS": "20801",
                "TELESTREAM_SEVERITIES": "undecodable=warn",
                "TELESTREAM_LATENESS_S": "-1",
                "TELESTREAM_RUNNER": "spark",
            }
        )
    for name in ("HOME_PLMNS: 20801", "SEVERITIES: 'undecodable'", "LATENESS_S", "RUNNER"):
        assert f"TELESTREAM_{name}" in str(caught.value)


@pytest.mark.parametrize("text", ["too_old=refused", "too_old", "=warn"])
def test_a_severity_is_rejected_or_warn(text: str) -> None:
    with pytest.raises(SettingsError):
        EnricherSettings.from_env({"TELESTREAM_SEVERITIES": text})
