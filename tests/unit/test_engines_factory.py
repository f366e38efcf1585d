"""The factory: lazy imports, missing packages, checked options."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from podium.memory.errors import ConfigError
from podium.router.types import EngineName, ModelSpec, Price, Resources
from podium.workers.engines.factory import create_engine
from podium.workers.engines.llamacpp import LlamaCppEngine

PRICE = Price(input=Decimal(1), output=Decimal(1))


def spec(engine: EngineName, **changes: Any) -> ModelSpec:
    return ModelSpec(**({"name": "m", "engine": engine, "source": "smollm2-135m", "price": PRICE} | changes))


def test_each_engine_has_its_own_class(tmp_path: Path) -> None:
    made = create_engine(spec("llamacpp"), tmp_path)
    assert isinstance(made, LlamaCppEngine)
    assert made.spec.name == "m"
    names = {kind: type(create_engine(spec(kind), tmp_path)).__name__ for kind in ("openai", "replay")}
    assert names == {"openai": "OpenAIEngine", "replay": "ReplayEngine"}


@pytest.mark.parametrize(
    ("engine", "hidden", "command"),
    [
        ("torch", {"torch", "llguidance"}, "pip install 'podium[torch]'"),
        ("llamacpp", {"xllamacpp"}, "pip install xllamacpp"),
    ],
)
def test_a_missing_package_says_how_to_get_it(
    engine: EngineName, hidden: set[str], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else found(name))
    with pytest.raises(ConfigError) as caught:
        create_engine(spec(engine), tmp_path)
    assert command in caught.value.mend
    assert all(name in caught.value.message for name in hidden)


def test_unknown_and_mistyped_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no option 'thread'") as caught:
        create_engine(spec("llamacpp", options={"thread": 2}), tmp_path)
    assert "did you mean threads?" in caught.value.mend
    for wrong in ("two", True, 1.5):
        with pytest.raises(ConfigError, match="not of type int"):
            create_engine(spec("llamacpp", options={"threads": wrong}), tmp_path)
    create_engine(spec("llamacpp", options={"threads": 2}, resources=Resources(cpus=4)), tmp_path)


def test_the_contract_and_the_pool_file_import_no_heavy_library() -> None:
    code = (
        "import sys, podium.workers.contract, podium.workers.poolfile, podium.workers.models, "
        "podium.workers.engines.factory\n"
        "heavy = {'torch', 'ray', 'xllamacpp', 'transformers', 'openai', 'numpy', 'llguidance'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
