"""Questions about sums with the recorded answers of two models, of which the cheap one miscalculates now and
then in a way that can be seen: for tests of what the router learns and does.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from engine_project import replay_spec
from podium import Podium, Price, Workflow
from podium.memory import learning
from podium.memory.learning import NewExample
from podium.orchestrator import routing
from podium.router.types import ModelSpec

WEAK, STRONG = "weak", "strong"
KNOWN, ASKED = range(52), range(52, 76)
POLICY = {"kind": "learned", "quality": 0.75, "explore": 0}


def question(number: int) -> str:
    boxes, each, single = _figures(number)
    return f"A shop has {boxes} boxes with {each} pens in each one, and {single} pens more. How many pens?"


def is_wrong(number: int) -> bool:
    """Whether the cheap model's answer is wrong."""
    return number % 3 == 1


def said(model: str, number: int) -> str:
    boxes, each, single = _figures(number)
    slip = 7 if model == WEAK and is_wrong(number) else 0
    product = boxes * each + slip
    return f"{boxes} * {each} = {product}\n{product} + {single} = {product + single}\n#### {product + single}"


def _figures(number: int) -> tuple[int, int, int]:
    return 3 + number % 11, 12 + 5 * number % 37, 101 + number


def specs(folder: Path) -> list[ModelSpec]:
    """Both models; the strong one costs thirty times as much."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for model, usd in ((WEAK, "0.5"), (STRONG, "15")):
        rows = [{"prompt": question(number), "text": said(model, number)} for number in ASKED]
        spec = replay_spec(folder / f"{model}.jsonl", *rows, name=model)
        made.append(spec.model_copy(update={"price": Price(input=Decimal(usd), output=Decimal(usd))}))
    return made


def teach(podium: Podium) -> routing.Trained:
    """Grade both models' answers to the known questions, and learn from that."""
    rows = [
        NewExample(question(number), model, float(model == STRONG or not is_wrong(number)), "sum",
                   said(model, number), 0.001 if model == WEAK else 0.03, 20, 10)
        for number in KNOWN for model in (WEAK, STRONG)
    ]  # fmt: skip
    tenant = podium.settings.tenant
    podium.database.transact(lambda c: learning.put_examples(c, tenant, "sums", rows))
    return routing.train(podium.database, tenant, [WEAK, STRONG], "a test")


def sums() -> Workflow:
    workflow = Workflow("sums", inputs={"questions": "list[str]"})
    workflow.map("sum", over="questions", prompt="{item}")
    workflow.output("sums", "sum")
    return workflow


def questions(numbers: Sequence[int] = ASKED) -> list[str]:
    return [question(number) for number in numbers]
