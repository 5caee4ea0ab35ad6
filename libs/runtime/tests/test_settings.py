from pathlib import Path

import pytest

from telestream_runtime import ServiceSettings, SettingsError


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        ServiceSettings.from_env(
            {
                "TELESTREAM_GENERATION": "0",
                "TELESTREAM_BUSINESS_TIMEZONE": "Mars/Olympus",
                "TELESTREAM_POSTGRES_FILE": str(tmp_path / "none"),
            }
        )
    for variable in ("TELESTREAM_GENERATION", "TELESTREAM_BUSINESS_TIMEZONE", "TELESTREAM_POSTGRES_FILE"):
        assert variable in str(caught.value)


def test_a_secret_can_come_from_a_file_and_is_not_printed(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://u:secret@h/db\n")
    settings = ServiceSettings.from_env({"TELESTREAM_POSTGRES_FILE": str(tmp_path / "dsn")})
    assert settings.postgres.get_secret_value() == "postgresql://u:secret@h/db"
    assert "secret@" not in repr(settings)


def test_the_process_environment_is_not_read_behind_the_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELESTREAM_GENERATION", "7")
    assert ServiceSettings.from_env({}).generation == 1
    assert ServiceSettings.from_env().generation == 7
