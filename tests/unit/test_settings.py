"""Settings: where they come from, which one wins, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from podium.memory.errors import ConfigError
from podium.orchestrator.settings import load_settings, settings_sources


@pytest.fixture
def user_file(home: Path) -> Path:
    home.mkdir()
    return home / "config.toml"


def test_defaults(home: Path) -> None:
    settings = load_settings()
    assert settings.home == home
    assert settings.database == f"sqlite:///{home / 'podium.db'}"
    assert (settings.tenant, settings.budget, settings.max_parallel) == ("default", "1.00", 64)
    assert settings.pool_file is None


def test_flag_over_environment_over_project_over_user(
    user_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sources() -> dict[str, tuple[str, str]]:
        return {key: (value, source) for key, value, source in settings_sources()}

    user_file.write_text('tenant = "user"\nbudget = 0.5\n')
    assert load_settings().tenant == "user"
    assert sources()["budget"] == ("0.5", str(user_file))
    (tmp_path / "podium.toml").write_text('tenant = "project"\n')
    assert sources()["tenant"] == ("project", "podium.toml")
    monkeypatch.setenv("PODIUM_TENANT", "environment")
    assert sources()["tenant"] == ("environment", "environment")
    assert load_settings(tenant="flag", budget=None).tenant == "flag"
    assert load_settings().budget == "0.5"
    assert sources()["max_parallel"] == ("64", "default")


def test_values_from_the_environment_are_converted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_MAX_PARALLEL", "3")
    monkeypatch.setenv("PODIUM_POOL", "mine.yaml")
    monkeypatch.setenv("PODIUM_BUDGET", "")
    settings = load_settings()
    assert settings.max_parallel == 3
    assert settings.pool_file == Path("mine.yaml").absolute()
    assert settings.budget == "1.00"


def test_a_pool_file_in_the_folder_is_found(home: Path, tmp_path: Path) -> None:
    (tmp_path / "pool.yaml").write_text("models: []\n")
    assert load_settings().pool_file == tmp_path / "pool.yaml"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PODIUM_TENNANT", "x", "did you mean PODIUM_TENANT?"),
        ("PODIUM_MAX_PARALLEL", "many", "max_parallel (environment)"),
        ("PODIUM_MAX_PARALLEL", "0", "max_parallel (environment)"),
        ("PODIUM_BUDGET", "lots", "budget (environment)"),
        ("PODIUM_ZZZ", "x", "settings are: home"),
    ],
)
def test_wrong_settings_are_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert said in str(caught.value)
    assert caught.value.exit_code == 3


def test_variables_of_tests_are_no_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_TEST_POSTGRES_DIR", "/somewhere")
    monkeypatch.setenv("PODIUM_FAULT", "task.finish:before")
    load_settings()


@pytest.mark.parametrize(
    ("text", "said"), [("tenant = ", "config.toml"), ("colour = 1", "unknown setting colour")]
)
def test_a_broken_file_is_told(user_file: Path, text: str, said: str) -> None:
    user_file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_settings()
