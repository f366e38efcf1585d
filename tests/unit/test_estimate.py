"""The plan table: upper bounds that say so, for everything that is known before a run."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from podium.orchestrator.estimate import AGENT_CALLS, PlanRow, plan_table
from podium.orchestrator.workflow import Workflow
from podium.router.policy import make_policy
from podium.router.stats import Stats
from podium.router.types import ModelSpec, Price

SPEC = ModelSpec(
    name="m", engine="replay", source="x", price=Price(input=Decimal(1), output=Decimal(2)), context=32768
)
ASK = {"prompt": "Say something of {text}.", "max_tokens": 10}
ROUND = {
    "name": "round",
    "inputs": {"text": "str"},
    "tasks": {"say": ASK},
    "outputs": {"text": "say"},
}
UNTIL = {"field": "text", "op": "contains", "value": "done"}


def table(tasks: dict[str, Any], inputs: dict[str, Any] | None = None, **declared: Any) -> dict[str, PlanRow]:
    flow = Workflow.from_data({"name": "flow", "tasks": tasks, "inputs": declared})
    rows = plan_table(flow, inputs or {}, [SPEC], make_policy({}), Stats.of([]))
    return {row.task: row for row in rows}


def cost(text: str) -> int:
    """What one call of ASK costs."""
    return table({"say": ASK}, {"text": text}, text="str")["say"].est_cost_nano


def test_a_loop_is_reckoned_with_all_its_iterations() -> None:
    body = {"loop": {"workflow": ROUND, "until": UNTIL, "max": 7}, "with": {"text": "{text}"}}
    rows = table({"again": body}, {"text": "the sea"}, text="str")
    assert list(rows) == ["again", "again/say"]
    assert (rows["again"].kind, rows["again"].count, rows["again"].est_cost_nano) == ("loop", 1, 0)
    assert (
        rows["again"].reason
        == "until text contains done; its tasks are reckoned 7 times, the most it may take"
    )
    assert rows["again/say"].count == 7
    assert rows["again/say"].est_cost_nano == 7 * cost("the sea") > 0


def test_maps_and_loops_multiply() -> None:
    inner = {"loop": {"workflow": ROUND, "until": UNTIL, "max": 3}, "with": {"text": "{text}"}}
    each = {"name": "each", "inputs": {"text": "str"}, "tasks": {"again": inner}}
    mapped = {"map": "texts", "workflow": each, "with": {"text": "{item}"}}
    rows = table({"all": mapped}, {"texts": ["a", "b"]}, texts="list[str]")
    assert {name: row.count for name, row in rows.items()} == {
        "all": 2, "all/again": 2, "all/again/say": 6,
    }  # fmt: skip
    unknown = table({"first": {"python": "k:f", "output": "list[str]"}, "all": mapped | {"map": "first"}})
    assert {name: row.count for name, row in unknown.items()} == {
        "first": 1, "all": None, "all/again": None, "all/again/say": None,
    }  # fmt: skip


def test_an_embedded_workflow_knows_what_fills_it() -> None:
    body = {"workflow": ROUND, "with": {"text": "On {text}"}}
    rows = table({"sub": body}, {"text": "x" * 4000}, text="str")
    assert rows["sub/say"].est_cost_nano == cost("On " + "x" * 4000) > cost("x")
    after = table({"sub": body, "end": {"prompt": "{sub.text}"}}, {"text": "x"}, text="str")
    assert after["end"].est_cost_nano > 0
    default = {**ROUND, "inputs": {"text": {"type": "str", "default": "y" * 4000}}}
    assert table({"sub": {"workflow": default}})["sub/say"].est_cost_nano == cost("y" * 4000)


def test_a_plan_is_reckoned_alone_and_says_so() -> None:
    row = table({"more": {"plan": {"goal": "Find out", "max_tasks": 9, "replans": 2}}})["more"]
    assert (row.kind, row.model, row.count) == ("plan", "m", 1)
    assert row.est_cost_nano > cost("x")
    assert row.reason.startswith(
        "one planning, 2 more if a plan fails; it adds at most 9 tasks that are not known yet; "
    )
    only = table({"more": {"plan": {"goal": "Find out", "run": False}}})["more"]
    assert only.reason.startswith("one planning; ")


def test_a_value_without_the_field_is_unknown() -> None:
    rows = table({"sub": {"workflow": ROUND, "with": {"text": "{deep.x.y}"}}}, {"deep": {}}, deep="any")
    assert rows["sub/say"].est_cost_nano > 0


def test_elements_of_a_map_and_calls_of_an_agent_are_counted() -> None:
    body = {"max_tokens": 10, "map": "texts"}
    found = {
        (kind, count): table(
            {"a": body | {kind: "Say something of {item}."}}, {"texts": ["x"] * count}, texts="list[str]"
        )["a"]
        for kind in ("prompt", "agent")
        for count in (1, 3)
    }
    assert [row.count for row in found.values()] == [1, 3, 1, 3]
    assert found["prompt", 3].est_cost_nano > 2 * found["prompt", 1].est_cost_nano > 0
    for count in (1, 3):
        assert found["agent", count].est_cost_nano == AGENT_CALLS * found["prompt", count].est_cost_nano
