"""Which class runs which engine. Engines are imported when one is asked for, never before."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ...memory.errors import ConfigError
from ...router.types import EngineName, ModelSpec
from ..contract import ModelEngine


@dataclass(frozen=True, slots=True)
class _Kind:
    module: str
    name: str
    #: packages it imports, and the command that brings them
    needs: tuple[str, ...] = ()
    install: str = ""


_KINDS: dict[EngineName, _Kind] = {
    "llamacpp": _Kind("llamacpp", "LlamaCppEngine", ("xllamacpp",), "pip install xllamacpp"),
    "torch": _Kind(
        "torch_engine",
        "TorchEngine",
        ("torch", "transformers", "accelerate", "gguf", "llguidance"),
        "pip install 'podium[torch]'",
    ),
    "openai": _Kind("openai_engine", "OpenAIEngine", ("openai",), "pip install openai"),
    "replay": _Kind("replay", "ReplayEngine"),
}


def create_engine(spec: ModelSpec, home: Path) -> ModelEngine:
    """The engine of a spec, not loaded yet; `home` is PODIUM_HOME, below which model files lie.

    Raises:
        ConfigError: a package that the engine needs is not installed, or an option is wrong.
    """
    kind = _KINDS[spec.engine]
    missing = [package for package in kind.needs if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"model {spec.name} needs the {spec.engine} engine, and {', '.join(missing)} is not installed",
            mend=f"run `{kind.install}`",
        )
    module = importlib.import_module(f".{kind.module}", __package__)
    return getattr(module, kind.name)(spec, home)
