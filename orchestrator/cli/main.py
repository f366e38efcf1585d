"""The program `podium`: its verbs, and the one place where errors become text and exit codes.

Exit codes: 0 ok, 1 run failed, 2 usage, 3 config, 4 budget stopped, 5 provider, 6 cluster, 7 waiting for a
person, 130 interrupted. Nothing heavy is imported before a verb needs it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...memory.errors import PodiumError
from . import (
    admin,
    ask,
    cluster,
    compare,
    control,
    feedback,
    memory,
    models,
    plan,
    router,
    router_distill,
    router_explain,
    router_learning,
    runs,
    schedules,
    show,
)
from .common import FLAGS

HELP = """\
Runs multi-step agent workflows over a pool of models.

stdout is data, stderr is progress. Every verb has --json. State lives in PODIUM_HOME (default ~/.podium).
"""
INTERRUPTED = 130

app = typer.Typer(
    name="podium",
    help=HELP,
    # rich help costs 150 ms, and a person who asks for help waits for it
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB ...",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("podium"))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def podium(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Folder of the state, instead of PODIUM_HOME.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose runs and money.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    FLAGS.home, FLAGS.tenant = home, tenant
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command("init")(admin.init)
app.command("ask")(ask.ask)
app.command("plan")(plan.plan)
app.command("run")(runs.run)
app.add_typer(runs.runs_app, name="runs")
app.command("show")(show.show)
app.command("watch")(show.watch)
app.command("logs")(show.logs)
app.command("resume")(runs.resume)
app.command("retry")(runs.retry)
app.command("fork")(control.fork)
app.command("approve")(control.approve)
app.command("pause")(control.pause)
app.command("change")(control.change)
app.command("cancel")(control.cancel)
app.command("replay")(compare.replay)
app.command("diff")(compare.diff)
app.command("feedback")(feedback.feedback)
app.command("schedules")(schedules.schedules)
app.add_typer(memory.memory_app, name="memory")
app.add_typer(models.models_app, name="models")
app.add_typer(router.router_app, name="router")
router.router_app.command("train")(router_learning.train)
router.router_app.command("versions")(router_learning.versions)
router.router_app.command("rollback")(router_learning.rollback)
router.router_app.command("profile")(router_learning.profile)
router.router_app.command("export")(router_learning.export)
router.router_app.command("distill")(router_distill.distill)
router.router_app.command("explain")(router_explain.explain)
router.router_app.command("replay")(router_explain.replay)
app.command("up")(cluster.up)
app.command("down")(cluster.down)
app.command("status")(cluster.status)
app.add_typer(admin.db_app, name="db")
app.command("doctor")(admin.doctor)
app.command("config")(admin.config)


def main() -> None:
    """The console script: runs the command line of this process and exits with its code."""
    code = execute(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
    sys.exit(code)


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; errors are told on stderr. Returns the exit code."""
    as_json = "--json" in arguments
    try:
        return app(args=list(arguments), prog_name="podium", standalone_mode=False) or 0
    except PodiumError as error:
        return _tell(error.data() | {"exit_code": error.exit_code}, str(error), as_json)
    except (KeyboardInterrupt, EOFError, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except typer.TyperException as error:
        return _usage(error, as_json)
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # noqa: BLE001 - a defect of ours: said in full, with an exit code of the contract
        traceback.print_exc()
        data = {
            "kind": type(error).__name__,
            "message": str(error),
            "mend": "please report this",
            "exit_code": 1,
        }
        return _tell(data, f"{type(error).__name__}: {error}\n  → please report this", as_json)


def _usage(error: typer.TyperException, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "podium"
    text = error.format_message()
    mend = f"`{path} --help` shows how it is used"
    data = {"kind": "UsageError", "message": text, "mend": mend, "exit_code": error.exit_code}
    return _tell(data, f"{text}\n  → {mend}", as_json)


def _tell(data: dict[str, Any], text: str, as_json: bool) -> int:
    print(f"error: {text}", file=sys.stderr, flush=True)
    if as_json:
        fields = ("kind", "message", "mend", "exit_code", "run", "task", "attempt")
        print(json.dumps({"error": {name: data.get(name) for name in fields}}, indent=2, ensure_ascii=False))
    return int(data["exit_code"])


def _drop_stdout() -> None:
    """Whoever read our output has gone: what is left in the buffer goes nowhere, without a complaint."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
