"""Settings: flag > environment (`PODIUM_…`) > project (`podium.toml`) > user (`<home>/config.toml`)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..memory.errors import ConfigError, UsageError
from ..memory.money import parse_usd

if TYPE_CHECKING:
    from ..memory.database import Database

PROJECT_FILE = "podium.toml"
USER_FILE = "config.toml"
PREFIX = "PODIUM_"
#: how the variables of this prefix begin that are no settings
OTHER_VARIABLES = ("PODIUM_FAULT", "PODIUM_TEST_")


class Settings(BaseModel):
    """What can be set. Secrets are not here: endpoints read their keys from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: folder of the state: database, models, locks
    home: Path = Field(default_factory=lambda: Path.home() / ".podium")
    #: empty: podium.db in the home
    database_url: str = ""
    #: pool file; empty: ./pool.yaml if there is one, else the built-in pool
    pool: Path | None = None
    tenant: str = Field(default="default", min_length=1)
    #: USD a run may cost when no --budget is given
    budget: str = "1.00"
    #: tasks that one engine works on at the same time
    max_parallel: int = Field(default=64, ge=1, le=1024)
    #: seconds without a beat until an engine counts as dead; the same for all engines of a database
    lease_seconds: float = Field(default=12.0, ge=1, le=3600)
    #: model calls that a tenant may have at the same time, and begin in any minute; of all engines of a
    #: database together, and for each tenant alike. None: not limited
    tenant_max_concurrent: int | None = Field(default=None, ge=1)
    tenant_calls_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    #: days after which a run's items become one summary; None: they stay
    memory_days: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    #: the model that writes the texts of summaries; empty: they are put together without one
    memory_digests: str = ""
    #: the model that reads outputs of ended runs for facts that rules do not find; empty: none does
    memory_facts: str = ""
    #: where the key is that contents are sealed with: env:NAME or file:PATH; empty: they are not
    memory_key: str = ""
    #: where the key is that receipts of what was forgotten are made with; empty: each has a salt of its own
    memory_receipt_key: str = ""

    @field_validator("home", "pool", mode="after")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path is not None else None

    @field_validator("budget", mode="before")
    @classmethod
    def _money(cls, amount: Any) -> str:
        try:
            parse_usd(amount)
        except UsageError as error:
            raise ValueError(error.message) from None
        return str(amount)

    @property
    def database(self) -> str:
        """The URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'podium.db'}"

    def open_database(self) -> Database:
        """The database, with its schema current and, if a key is set, its contents sealed.

        Raises:
            ConfigError: it cannot be opened, is newer than this Podium, or the key is not there.
        """
        from ..memory.database import Database
        from ..memory.sealing import use

        database = Database(self.database)
        if self.memory_key:
            use(database, self.memory_key)
        database.ensure_schema()
        return database

    def engine_options(self) -> dict[str, Any]:
        """What an engine takes from the settings."""
        return {
            "max_parallel": self.max_parallel,
            "lease": self.lease_seconds,
            "tenant_max_concurrent": self.tenant_max_concurrent,
            "tenant_calls_per_minute": self.tenant_calls_per_minute,
        }

    @property
    def pool_file(self) -> Path | None:
        """The pool file in force, None for the built-in pool."""
        if self.pool is not None:
            return self.pool
        local = Path("pool.yaml").absolute()
        return local if local.is_file() else None


def load_settings(**flags: Any) -> Settings:
    """The settings in force. Flags that are None do not count.

    Raises:
        ConfigError: an unknown key or a value that does not fit, with the place it came from.
    """
    values = {key: value for key, (value, _) in _merged(flags).items()}
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        source = _merged(flags).get(key, ("", "the defaults"))[1]
        raise ConfigError(
            f"setting {key} ({source}): {first['msg']}", mend=f"give {key} another value"
        ) from error


def settings_sources(**flags: Any) -> list[tuple[str, str, str]]:
    """(key, value in force, where it comes from), one a setting."""
    merged, settings = _merged(flags), load_settings(**flags)
    return [
        (key, str(getattr(settings, key) or ""), merged.get(key, (None, "default"))[1])
        for key in Settings.model_fields
    ]


def _merged(flags: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    given = {key: value for key, value in flags.items() if value is not None}
    environment = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and not name.startswith(OTHER_VARIABLES) and value
    }
    project = _file(Path(PROJECT_FILE))
    home = Path(
        given.get("home") or environment.get("home") or project.get("home") or Path.home() / ".podium"
    )
    found: dict[str, tuple[Any, str]] = {}
    for source, values in (
        (str(home / USER_FILE), _file(home.expanduser() / USER_FILE)),
        (PROJECT_FILE, project),
        ("environment", environment),
        ("flag", given),
    ):
        for key, value in values.items():
            if key not in Settings.model_fields:
                raise _unknown(key, source)
            found[key] = (value, source)
    return found


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", mend="mend the file's TOML, or remove it") from error


def _unknown(key: str, source: str) -> ConfigError:
    shown = PREFIX + key.upper() if source == "environment" else key
    near = get_close_matches(key, Settings.model_fields, n=1)
    known = ", ".join(Settings.model_fields)
    name = PREFIX + near[0].upper() if near and source == "environment" else near[0] if near else ""
    return ConfigError(
        f"unknown setting {shown} ({source})",
        mend=f"did you mean {name}?" if name else f"settings are: {known}",
    )
