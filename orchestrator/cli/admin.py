"""`init`, `db`, `config`, `doctor`: a project, its database, its settings, and whether all is well."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from .common import Json, Pool, emit, note, settings, table

db_app = typer.Typer(help="Bring the database's schema up to date, or check it.", rich_markup_mode=None)


def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where; default: here.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Make a small project: a pool file, a workflow, a tool. Files that are there are kept."""
    from ...memory.errors import ConfigError
    from .output import InitOut

    made: list[str] = []
    kept: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in _project_files():
            target = folder / source.name
            if target.exists() and not force:
                kept.append(source.name)
                continue
            target.write_bytes(source.read_bytes())
            made.append(source.name)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {folder}: {error.strerror}", mend="choose a folder of yours"
        ) from error
    if as_json:
        emit(InitOut(folder=str(folder), files=made, kept=kept))
    else:
        for name in made:
            print(folder / name)
    for name in kept:
        note(f"kept {folder / name}")
    go = "" if folder == Path(".") else f"cd {folder}; "
    note(f"  → {go}podium models pull; podium run workflow.yaml -i topic='the tides'")


def _project_files() -> list[Traversable]:
    folder = resources.files("podium.orchestrator.cli").joinpath("project")
    found = (file for file in folder.iterdir() if file.is_file() and not file.name.endswith(".pyc"))
    return sorted(found, key=lambda file: file.name)


@db_app.callback(invoke_without_command=True)
def db(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@db_app.command("upgrade")
def upgrade(as_json: Json = False) -> None:
    """Bring the database to the newest schema."""
    from ...memory.database import Database

    database = Database(settings().database)
    database.upgrade()
    _tell_schema(database, as_json)


@db_app.command("check")
def check(as_json: Json = False) -> None:
    """Compare the database's schema with the one this Podium needs, and what is stored with its hashes."""
    from ...memory.database import Database

    _tell_schema(Database(settings().database), as_json, thorough=True)


def _tell_schema(database: object, as_json: bool, *, thorough: bool = False) -> None:
    from ...memory.damage import damage
    from ...memory.database import HEAD, Database
    from ...memory.errors import ConfigError
    from .output import DbOut

    assert isinstance(database, Database)
    try:
        revision = database.revision()
        wrong = database.differences() if revision is not None else []
        if thorough and revision == HEAD:
            wrong += damage(database)
        shown = database.url.render_as_string()
    finally:
        database.close()
    ok = revision == HEAD and not wrong
    if as_json:
        emit(DbOut(revision=revision, newest=HEAD, differences=wrong, ok=ok))
    else:
        print(f"{shown}: schema {revision or 'none'}, newest {HEAD}{', as it should be' if ok else ''}")
        for line in wrong:
            print(f"  {line}")
    if not ok and not as_json:
        why = f"{len(wrong)} things are wrong" if wrong else f"schema {revision or 'none'} instead of {HEAD}"
        mend = "restore a backup, or use another database" if wrong else "podium db upgrade"
        raise ConfigError(f"the database is not as it should be: {why}", mend=mend)
    if not ok:
        raise typer.Exit(3)


def config(pool: Pool = None, as_json: Json = False) -> None:
    """Show every setting, its value and where it comes from."""
    from ..settings import settings_sources
    from .common import FLAGS
    from .output import ConfigOut, SettingOut

    found = settings_sources(home=FLAGS.home, tenant=FLAGS.tenant, pool=pool)
    shown = [
        (key, _hide_password(value) if key == "database_url" else value, source)
        for key, value, source in found
    ]
    if as_json:
        emit(ConfigOut(settings=[SettingOut(key=k, value=v, source=s) for k, v, s in shown]))
        return
    table(["setting", "value", "source"], [list(row) for row in shown])


def _hide_password(url: str) -> str:
    from ...memory.database import parse_url

    return parse_url(url).render_as_string() if url else url


def doctor(pool: Pool = None, as_json: Json = False) -> None:
    """Check Python, packages, home, database, pool, models, cluster, memory and disk, each with its mend."""
    from . import checks
    from .output import DoctorOut

    found = checks.all_checks(settings(pool))
    ok = all(check.state != "fail" for check in found)
    if as_json:
        emit(DoctorOut(ok=ok, checks=found))
    else:
        table(["check", "state", "detail"], [[c.name, c.state, c.detail] for c in found])
    for c in found:
        if c.mend:
            note(f"{c.name}\n  → {c.mend}")
    if not ok:
        raise typer.Exit(3)
