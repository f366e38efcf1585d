"""`pool.yaml`: the models of the pool and the policy that chooses between them.

    models:
      - name: smollm2-135m
        engine: llamacpp
        source: smollm2-135m
        price: {input: 0.08, output: 0.28}    # USD per million tokens
        max_concurrent: 8                     # calls at the same time, of all engines together
        calls_per_minute: 60                  # calls that begin in any minute, likewise
    policy: {kind: cheapest}

Relative paths in `source` are meant from the pool file's folder. Nothing in the file is expanded or run; keys
of providers stay in the environment and are named by `api_key_env`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..memory.errors import ConfigError
from ..router.policy import KINDS
from ..router.types import ModelSpec, Price, Resources

DEFAULT_POOL = Path(__file__).with_name("default_pool.yaml")


class PolicySpec(BaseModel):
    """How a model is chosen; `router.policy` takes it as a mapping (`data()`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cheapest", "fixed", "learned"] = "cheapest"
    #: with `fixed`: the model of every call
    model: str | None = None
    #: models to try after one that failed, in order
    fallback: list[str] = Field(default_factory=list)
    #: with `learned`, all of what follows. How much of the best model's expected quality is kept, for the
    #: least money: cheap 80 %, balanced 95 % (the default), best all of it; or `quality`, that share itself
    aim: Literal["cheap", "balanced", "best"] | None = None
    quality: float | None = Field(default=None, ge=0, le=1)
    #: expected score below which no model is asked
    floor: float | None = Field(default=None, ge=0, le=1)
    #: the only models that may be asked, and those that may not
    allow: list[str] = Field(default_factory=list)
    deny: list[str] = Field(default_factory=list)
    #: only models that run here
    local: bool | None = None
    #: USD that a second of waiting costs
    second_usd: Decimal | None = Field(default=None, ge=0)
    #: share of the spent money that may go into trying models that look worse, to learn
    explore: float | None = Field(default=None, ge=0, le=1)
    #: ask a model so many times where that is expected to pay, and take what most answers come to
    samples: int | None = Field(default=None, ge=2, le=9)
    #: have a model look over its own draft where that is expected to pay
    refine: bool | None = None
    #: put the task's template (`podium router distill`) into the prompt where that is expected to pay
    templates: bool | None = None
    #: the model that is asked about answers in doubt before a dearer one is
    judge: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> PolicySpec:
        if self.kind == "fixed" and self.model is None:
            raise ValueError("policy `fixed` needs `model`")
        if self.aim is not None and self.quality is not None:
            raise ValueError("`aim` is a name for a `quality`; give one of them")
        if extra := sorted(set(self.data()) - KINDS[self.kind] - {"kind", "fallback"}):
            raise ValueError(f"policy `{self.kind}` takes no `{extra[0]}`")
        return self

    def data(self) -> dict[str, Any]:
        """What is said, as JSON."""
        said = self.model_dump(mode="json")
        return {key: value for key, value in said.items() if value not in (None, [])}

    @property
    def names(self) -> list[str]:
        """The models that it names."""
        single = [name for name in (self.model, self.judge) if name]
        return [*single, *self.fallback, *self.allow, *self.deny]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: list[ModelSpec] = Field(min_length=1)
    policy: PolicySpec = PolicySpec()


@dataclass(frozen=True, slots=True)
class PoolFile:
    """A valid pool file."""

    #: by name, in the file's order
    models: Mapping[str, ModelSpec]
    policy: PolicySpec
    #: where it was read
    path: Path


def load_pool(path: Path | None, home: Path) -> PoolFile:
    """The pool file at `path`; without one `<home>/pool.yaml`, and if that is missing the default pool.

    Raises:
        ConfigError: no such file, no YAML, an unknown key (with the nearest match), a wrong value, a name
            given twice, or a policy that names a model that the file does not have.
    """
    if path is None:
        own = home / "pool.yaml"
        path = own if own.is_file() else DEFAULT_POOL
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the pool file {path}: {error}", mend="run `podium init`, or correct --pool"
        ) from error
    return parse_pool(text, path)


def parse_pool(text: str, path: Path) -> PoolFile:
    """`load_pool` for a text; `path` is where it stands or will stand."""
    tree = _compose(text, path)
    try:
        file = _File.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise _explain(error, path, tree) from error
    models: dict[str, ModelSpec] = {}
    for spec in file.models:
        if spec.name in models:
            raise ConfigError(f"{path}: two models are called {spec.name!r}", mend="rename one of them")
        models[spec.name] = _anchored(spec, path.absolute().parent)
    for name in file.policy.names:
        if name not in models:
            raise ConfigError(
                f"{path}: the policy names model {name!r}, which the pool does not have",
                mend=_nearest(name, models) or f"use one of: {', '.join(models)}",
            )
    return PoolFile(models, file.policy, path)


def add_model(path: Path, spec: ModelSpec) -> PoolFile:
    """Write `spec` into the pool file at `path` and return what the file is then.

    An entry of the same name is replaced; all others, and comments outside of it, stay as they are. A
    missing file starts with this one model. The file changes by one rename or not at all.

    Raises:
        ConfigError: the file is not valid before or after, or cannot be written.
    """
    entry = _entry(spec)
    if path.exists():
        load_pool(path, path.parent)
        text = _with_entry(path.read_text(encoding="utf-8"), entry, path)
    else:
        text = _dump({"models": [entry]})
    pool = parse_pool(text, path)
    _write(path, text)
    return pool


def _anchored(spec: ModelSpec, folder: Path) -> ModelSpec:
    """Local sources as absolute paths: workers have other working directories than the person has."""
    source = Path(spec.source).expanduser()
    local = (
        spec.engine == "replay"
        or (spec.engine in ("llamacpp", "torch") and spec.source.endswith(".gguf"))
        or (spec.engine == "torch" and (folder / source).is_dir())
    )
    return spec.model_copy(update={"source": str(folder / source)}) if local else spec


def _compose(text: str, path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}", mend="correct it at that place") from error


_MODELS: Mapping[str, type[BaseModel]] = {"price": Price, "resources": Resources, "policy": PolicySpec}


def _explain(error: ValidationError, path: Path, tree: yaml.Node | None) -> ConfigError:
    """The first problem, with its line and the nearest key; a misspelt key before the one missing for it."""
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = problem["loc"]
    line = _line(tree, location)
    place = f"{path}{f' line {line}' if line else ''}"
    dotted = ".".join(map(str, location))
    if problem["type"] == "extra_forbidden":
        known = _fields_at(location[:-1])
        key = str(location[-1])
        return ConfigError(
            f"{place}: unknown key {dotted!r}",
            mend=_nearest(key, known) or f"known keys here: {', '.join(known)}",
        )
    given = problem.get("input")
    shown = f" (it is {given!r})" if isinstance(given, (str, int, float)) else ""
    what = problem["msg"].removeprefix("Value error, ")
    where = dotted or "the file"
    return ConfigError(f"{place}: {where}: {what}{shown}", mend="correct the pool file")


def _fields_at(location: Sequence[int | str]) -> list[str]:
    kind: type[BaseModel] = _File
    for step in location:
        if step == "models":
            kind = ModelSpec
        elif isinstance(step, str) and step in _MODELS:
            kind = _MODELS[step]
    return list(kind.model_fields)


def _nearest(word: str, known: Mapping[str, object] | Sequence[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _line(node: yaml.Node | None, location: Sequence[int | str]) -> int | None:
    """Line of the deepest node on the way to `location`, from 1."""
    line = None
    for step in location:
        child = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    line, child = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            child = node.value[step]
            line = child.start_mark.line + 1
        if child is None:
            break
        node = child
    return line


def _entry(spec: ModelSpec) -> dict[str, Any]:
    """What differs from the defaults, prices as plain numbers."""
    entry = json.loads(spec.model_dump_json(exclude_defaults=True))
    entry["price"] = {"input": float(spec.price.input), "output": float(spec.price.output)}
    return entry


def _dump(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _with_entry(text: str, entry: Mapping[str, Any], path: Path) -> str:
    root = _compose(text, path)
    assert isinstance(root, yaml.MappingNode)  # the file was valid
    models = next(value for key, value in root.value if key.value == "models")
    if models.flow_style:
        return _rewritten(text, entry)
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    indent = " " * models.start_mark.column
    block = [f"{indent}{line}\n" for line in _dump([dict(entry)]).splitlines()]
    start, end = _end_line(models), _end_line(models)
    for node in models.value:
        if any(key.value == "name" and value.value == entry["name"] for key, value in node.value):
            start, end = node.start_mark.line, _end_line(node)
    return "".join([*lines[:start], *block, *lines[end:]])


def _rewritten(text: str, entry: Mapping[str, Any]) -> str:
    """For `models: [...]` on one line, where nothing can be put between lines."""
    data = yaml.safe_load(text)
    others = data["models"]
    names = [item["name"] for item in others]
    if entry["name"] in names:
        others[names.index(entry["name"])] = dict(entry)
    else:
        others.append(dict(entry))
    return _dump(data)


def _end_line(node: yaml.Node) -> int:
    """Index of the first line after the node's own text; the end mark of a block is behind its comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end_line(last[1] if isinstance(last, tuple) else last)
    mark = node.end_mark
    return mark.line if mark.column == 0 else mark.line + 1


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write the pool file {path}: {error}", mend="check the folder's permissions"
        ) from error
