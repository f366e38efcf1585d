"""When a dearer answer is worth its price.

The rule is that of expected value: escalate when what the dearer answer is expected to bring is worth more
than what it costs on top (FrugalGPT, Chen et al., 2023, has a threshold there; "When Does Confidence-Based
Cascade Deferral Suffice?", Jitkrittum et al., 2023, why the gain and not the doubt alone decides). The weak
call is always billed: it has been made when the question comes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...memory.money import format_usd


@dataclass(frozen=True, slots=True)
class Escalation:
    """Whether to ask the dearer model, and why in plain words. Money in nano-dollars."""

    escalate: bool
    #: expected points of score that the dearer answer brings, −1 … 1
    gain: float
    cost_nano: int
    #: what the gain is worth
    worth_nano: int
    reason: str

    def billed(self, weak_nano: int) -> int:
        """What both calls cost: the weak one always, the dearer one when it is made."""
        return weak_nano + (self.cost_nano if self.escalate else 0)


def decide(gain: float, cost_nano: int, point_nano: int) -> Escalation:
    """`gain`: expected points of score; `cost_nano`: of the dearer call; `point_nano`: what one point of
    score (from all wrong to all right) is worth, 1/λ of quality − λ·cost."""
    worth = round(gain * point_nano)
    go = worth > cost_nano
    sign = "more" if go else "no more"
    reason = (
        f"a dearer answer is expected to bring {gain:+.2f} of score, worth {format_usd(worth)} USD: "
        f"{sign} than the {format_usd(cost_nano)} USD that it costs"
    )
    return Escalation(go, gain, cost_nano, worth, reason)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a cascade is expected to do, by the gains of answers like those to come: the share of answers that
    escalate, the score that it brings on top of the weak model's, the mean cost in nano-dollars."""

    share: float
    gain: float
    cost_nano: float


def outlook(gains: Sequence[float], weak_nano: int, cost_nano: int, point_nano: int) -> Outlook:
    """Of a cascade under `decide`, before its weak call is made: what a policy compares with asking one model
    directly. Of no gains: nothing escalates."""
    taken = [gain for gain in gains if decide(gain, cost_nano, point_nano).escalate]
    many = max(len(gains), 1)
    share = len(taken) / many
    return Outlook(share, sum(taken) / many, weak_nano + share * cost_nano)
