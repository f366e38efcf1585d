"""`import podium` costs next to nothing and brings every public name."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import podium
import pytest

HEAVY = (
    "ray",
    "torch",
    "transformers",
    "xllamacpp",
    "openai",
    "sqlalchemy",
    "networkx",
    "numpy",
    "pydantic",
    "rich",
)

LOOK = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
import podium
took = time.perf_counter() - start
print(json.dumps({"took": took, "modules": sorted(set(sys.modules) - before)}))
"""


def _look() -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def test_the_import_is_light() -> None:
    seen = [_look() for _ in range(3)]
    modules = seen[0]["modules"]
    assert isinstance(modules, list)
    assert [name for name in modules if name.split(".")[0] in HEAVY] == []
    assert [name for name in modules if name.startswith("podium.")] == []
    # the best of three: other processes share the machine
    assert min(float(str(one["took"])) for one in seen) < 0.030


@pytest.mark.parametrize("name", podium.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(podium, name) is not None
    assert name in dir(podium)


def test_a_class_is_the_rooms_own() -> None:
    from podium.orchestrator.client import Podium
    from podium.orchestrator.problems import WorkflowError

    assert podium.Podium is Podium
    assert podium.WorkflowError is WorkflowError
    assert issubclass(podium.WorkflowError, podium.UsageError)
    assert podium.__version__ == version("podium")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Conductor'"):
        podium.Conductor  # noqa: B018
