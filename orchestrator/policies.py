"""Routing policies as people write them, and as they would decide now, with what was learned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..memory.database import Connection
from ..memory.errors import UsageError
from ..router.policy import Policy, make_policy
from ..router.types import ModelSpec

if TYPE_CHECKING:
    from ..router.decision.policy import Known
    from ..router.learned import LearnedRouter

#: names of shares of the best model's quality (`router.decision.policy.AIMS` has the shares)
AIM_NAMES = ("cheap", "balanced", "best")


def learned_spec(aim: str | None, quality: float | None) -> dict[str, Any]:
    """The learned policy with an aim, or with the share of the best model's quality that is to be kept.

    Raises:
        UsageError: both are given, or one that is none.
    """
    if aim is not None and quality is not None:
        raise UsageError("an aim and a quality exclude each other", mend="give --aim, or --quality")
    if aim is not None and aim not in AIM_NAMES:
        raise UsageError(f"there is no aim {aim!r}", mend=f"use one of: {', '.join(AIM_NAMES)}")
    if quality is not None and not 0 <= quality <= 1:
        raise UsageError(f"the quality {quality:g} is not in 0…1", mend="give a share, such as 0.95")
    found: dict[str, Any] = {"kind": "learned"}
    if aim is not None:
        found["aim"] = aim
    if quality is not None:
        found["quality"] = quality
    return found


def parse_policy(text: str) -> dict[str, Any]:
    """A policy as people write it: `cheapest`, `fixed:MODEL`, `learned`, `learned:AIM`, `learned:0.9`, JSON,
    or the path of a YAML or JSON file that is a policy or has one under `policy` (a pool file).

    Raises:
        UsageError: it is none of these.
    """
    kind, _, said = text.partition(":")
    if text == "cheapest":
        return {"kind": "cheapest"}
    if kind == "fixed" and said:
        return {"kind": "fixed", "model": said}
    if kind == "learned":
        share = _share(said)
        return learned_spec(None if share is not None else said or None, share)
    if text.lstrip().startswith("{"):
        return _mapping(text, text)
    return _in_file(Path(text).expanduser(), text)


def _share(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _in_file(path: Path, text: str) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(
            f"there is no policy {text!r}, and no such file",
            mend="use cheapest, fixed:MODEL, learned, learned:cheap, a file or JSON",
        )
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", mend="give a text file that you may read") from error
    found = _mapping(content, str(path))
    if "models" in found and "policy" not in found:
        return {"kind": "cheapest"}  # what a pool file without a policy means
    inner = found.get("policy", found)
    if not isinstance(inner, dict):
        raise UsageError(f"the policy in {path} is no object", mend="write kind, model and fallback under it")
    return inner


def _mapping(text: str, what: str) -> dict[str, Any]:
    import yaml

    try:
        found = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{what[:80]} is no policy: {error}", mend='write {"kind": "cheapest"}') from error
    if not isinstance(found, dict):
        raise UsageError(f"{what[:80]} is no policy", mend='write {"kind": "cheapest"}')
    return found


def policy_now(
    connection: Connection, tenant: str, spec: Mapping[str, Any], models: Sequence[ModelSpec]
) -> Policy:
    """The policy as it would decide now. One that learns knows what was learned, and tries nothing out: it
    takes what looks best, the same each time.

    Raises:
        ConfigError: it is no policy, or names a model that is not in `models`.
    """
    return Policies(connection, tenant, spec, models)()


class Policies:
    """Makes the same policy again and again, each with a pacer of its own: one for each run."""

    def __init__(
        self, connection: Connection, tenant: str, spec: Mapping[str, Any], models: Sequence[ModelSpec]
    ) -> None:
        """Reads what was learned once. Raises: see `policy_now`."""
        self._spec, self._names = dict(spec), [model.name for model in models]
        self._known: Known | None = None
        make_policy(spec, self._names)
        if spec.get("kind") == "learned":
            from ..router.decision.policy import Known, Shelf
            from . import routing, templates

            self._spec["explore"] = 0
            shelf = Shelf(*routing.known(connection, tenant, self._names))
            self._known = Known(shelf, template=templates.load(connection, tenant).get)

    @property
    def router(self) -> LearnedRouter | None:
        """What was learned; None: nothing, or the policy does not learn."""
        return None if self._known is None else self._known.router

    def __call__(self) -> Policy:
        return make_policy(self._spec, self._names, self._known)
