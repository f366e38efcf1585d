"""What every verb keeps to: stdout is data, exit codes, errors with a mend, light help, a current schema."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROUTER = [
    "eval",
    "rank",
    "frontier",
    "train",
    "versions",
    "rollback",
    "explain",
    "replay",
    "profile",
    "export",
]
VERBS = [
    "init",
    "ask",
    "plan",
    "run",
    "router",
    "feedback",
    "runs",
    "show",
    "watch",
    "logs",
    "resume",
    "retry",
    "fork",
    "approve",
    "pause",
    "change",
    "cancel",
    "replay",
    "diff",
    "schedules",
    "memory",
    "models",
    "up",
    "down",
    "status",
    "db",
    "doctor",
    "config",
]
MEMORY = (
    "put", "get", "history", "search", "list", "link", "links", "context", "fork", "diff", "rollback",
    "retract", "forget", "sweep", "compact", "vacuum", "export", "import",
)  # fmt: skip


def test_published_schema_is_current() -> None:
    from podium.orchestrator.cli.output import published_schema

    stored = json.loads((ROOT / "docs" / "cli.schema.json").read_text())
    assert stored == published_schema(), "python -m podium.orchestrator.cli.output > docs/cli.schema.json"


def test_money_is_a_decimal_string_in_every_record() -> None:
    from podium.orchestrator.cli.output import published_schema

    for name, record in published_schema()["$defs"].items():
        for key, kind in record.get("properties", {}).items():
            if "usd" in key:
                kinds = [one for one in kind.get("anyOf", [kind]) if one.get("type") != "null"]
                assert all(one["type"] == "string" for one in kinds), f"{name}.{key}"


def test_help_names_every_verb_and_imports_nothing_heavy(project: Any) -> None:
    code = (
        "import sys; from podium.orchestrator.cli import main; code = main.execute(['--help']);"
        "heavy = {'ray', 'torch', 'transformers', 'sqlalchemy', 'networkx', 'pydantic', 'rich', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=project.env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.strip() == "[]"
    listed = re.findall(r"^  (\w+)  ", done.stdout.split("Commands:")[1], flags=re.MULTILINE)
    assert sorted(listed) == sorted(VERBS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_verb_explains_itself(project: Any, flag: str) -> None:
    from podium.orchestrator.cli.main import execute

    below = [
        "models pull",
        "models add",
        "models test",
        "runs prune",
        "db check",
        *(f"router {verb}" for verb in ROUTER),
    ]
    for verb in [*VERBS, *below, *(f"memory {verb}" for verb in MEMORY)]:
        assert execute([*verb.split(), flag]) == 0


def test_runs_imports_no_ray_and_no_torch(project: Any) -> None:
    code = (
        "import sys; from podium.orchestrator.cli import main; main.execute(['runs']);"
        "print(sorted({'ray', 'torch', 'transformers', 'networkx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=project.env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_unknown_verb_and_option_exit_2_with_the_nearest(cold: Any, project: Any) -> None:
    done = cold.podium("shwo", code=2)
    assert done.stdout == ""
    assert "'show'" in done.stderr
    assert "→" in done.stderr
    assert "--budget" in project.podium("run", "--budgt", "1", code=2).stderr


def test_an_error_is_told_on_stderr_and_as_json_on_stdout(cold: Any, project: Any) -> None:
    done = cold.podium("show", "nothing", "--json", code=2)
    found = json.loads(done.stdout)
    project.validate("error", found)
    assert found["error"]["kind"] == "NotFound"
    assert "podium runs" in found["error"]["mend"]
    assert done.stderr.startswith("error: there is no run nothing\n  → ")
    assert project.podium("show", "nothing", code=2).stdout == ""


def test_usage_errors_are_json_too(project: Any) -> None:
    found = project.json("run", "--nonsense", verb="error", code=2)
    assert found["error"]["exit_code"] == 2


def test_unknown_setting_exits_3_with_the_nearest(project: Any) -> None:
    assert "PODIUM_BUDGET?" in project.podium("runs", code=3, PODIUM_BUDGTE="1").stderr
    project.write("podium.toml", "pol = 'x.yaml'\n")
    assert "did you mean pool?" in project.podium("config", code=3).stderr


def test_unknown_key_of_the_pool_file_exits_3_with_the_nearest(project: Any) -> None:
    project.write("pool.yaml", (project.folder / "pool.yaml").read_text().replace("price:", "prise:", 1))
    done = project.podium("run", "brief.yaml", "-i", "docs=@papers/", code=3)
    assert "did you mean 'price'?" in done.stderr
    assert project.json("runs", verb="runs") == {"runs": []}


def test_flag_beats_environment_beats_project_beats_user(cold: Any, project: Any) -> None:
    def budget(**env: str) -> tuple[str, str]:
        rows = project.json("config", verb="config", **env)["settings"]
        return next((row["value"], row["source"]) for row in rows if row["key"] == "budget")

    assert budget() == ("1.00", "default")
    project.write("home/config.toml", 'budget = "2"\n')
    assert budget()[0] == "2"
    project.write("podium.toml", 'budget = "3"\n')
    assert budget() == ("3", "podium.toml")
    assert budget(PODIUM_BUDGET="4") == ("4", "environment")
    other = project.folder / "other"
    rows = cold.json("--home", str(other), "config", verb="config")["settings"]
    assert next(row for row in rows if row["key"] == "home") == {
        "key": "home",
        "value": str(other),
        "source": "flag",
    }


def test_a_reader_that_goes_away_gets_no_traceback(project: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [*project.program, "--help"],
            env=project.env,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_version(cold: Any) -> None:
    from importlib.metadata import version

    assert cold.podium("--version").stdout.strip() == version("podium")
