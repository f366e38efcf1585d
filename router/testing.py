"""A policy for tests: it follows a script, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .policy import Fixed, plain_review
from .stats import Stats
from .types import ModelSpec, Query, Review, Route
from .verifiers.contract import Check


@dataclass
class ScriptedPolicy:
    """Takes the scripted models one after the other, and the last one from then on.

    The Routes are real ones: estimates, fits and alternatives as `Fixed` gives them. `query.pinned` binds it.
    """

    script: Sequence[str]
    name: str = "scripted"
    #: every query it was asked, in order
    asked: list[Query] = field(default_factory=list)

    def choose(self, query: Query, models: Sequence[ModelSpec], stats: Stats) -> Route:
        """See `policy.Policy.choose`."""
        model = self.script[min(len(self.asked), len(self.script) - 1)]
        self.asked.append(query)
        return replace(Fixed(model).choose(query, models, stats), policy=self.name)

    def review(self, query: Query, route: Route, answer: str, checks: Sequence[Check]) -> Review:
        """See `policy.Policy.review`."""
        return plain_review(checks)
