"""Free checks of an answer: what says without another model call whether it can be trusted.

    check = Arithmetic().check(prompt, answer)
    check.verdict, check.score, check.evidence      # "fail", 0.5, "does not hold: 3 * 4 = 15"

A check that has nothing to look at (no calculation, no schema asked for) is `unknown` and counts for nothing.
`router.doubt` turns an answer and its checks into a probability of being wrong.

Sources: recomputed steps, Cobbe et al., 2021; agreement of samples, Wang et al., 2022; comparison with graded
answers, Liu et al., 2024; code by its tests, Chen et al., 2022; checks before a dearer model is called:
FrugalGPT (Chen et al., 2023), AutoMix (Aggarwal et al., 2023).
"""

from collections.abc import Sequence

from .agreement import Agreement, Citations, Reference, SimilarAnswers, majority
from .arithmetic import Arithmetic
from .contract import Check, Verdict, Verifier, check_all
from .programs import CodeTests, Runner, SqlRuns
from .structure import Schema
from .text import Whole
from .trace import NumbersUsed, ResultFollows

#: what costs nothing and needs no setting
FREE: Sequence[Verifier] = (Whole(), Arithmetic(), NumbersUsed(), ResultFollows())

__all__ = [
    "FREE",
    "Agreement",
    "Arithmetic",
    "Check",
    "Citations",
    "CodeTests",
    "NumbersUsed",
    "Reference",
    "ResultFollows",
    "Runner",
    "Schema",
    "SimilarAnswers",
    "SqlRuns",
    "Verdict",
    "Verifier",
    "Whole",
    "check_all",
    "majority",
]
