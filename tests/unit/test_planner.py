"""Plans: by a model, repaired, judged, and from the library when the model is too weak."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema
import pytest
from podium.agents.plan_check import judge, uses
from podium.agents.planner import INSTRUCTIONS, make_plan
from podium.agents.template_library import load_templates
from podium.memory.chat import Completion, Message, Usage
from podium.memory.errors import BudgetStopped, ConfigError, ContextTooLong, PodiumError
from podium.orchestrator.graph import validate
from podium.orchestrator.schema import planning_schema, workflow_from_plan
from podium.orchestrator.workflow import Workflow, WorkflowError

GOAL = "Summarise the annual reports of our departments into one page"
GIVEN = {"reports": "list[str]"}
GOOD: dict[str, Any] = {
    "name": "annual",
    "inputs": {"reports": "list[str]"},
    "tasks": {
        "notes": {
            "map": "reports",
            "prompt": "Note the three main results of this department report:\n{item}",
        },
        "page": {"prompt": "Write a one-page summary of the year from these notes:\n{notes}"},
    },
    "outputs": {"page": "page"},
}


def build(data: Mapping[str, Any]) -> tuple[Workflow | None, list[str]]:
    try:
        workflow = Workflow.from_data(dict(data))
    except WorkflowError as error:
        return None, [str(problem) for problem in error.problems]
    return workflow, [str(problem) for problem in validate(workflow)]


class Scripted:
    """A model that answers its script, and keeps what it was asked."""

    def __init__(self, *answers: Mapping[str, Any] | str | PodiumError, finish: str = "stop") -> None:
        self.answers = list(answers)
        self.finish: Any = finish
        self.asked: list[list[Message]] = []
        self.schemas: list[Mapping[str, Any] | None] = []

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        problem: Callable[[str], str] | None = None,
    ) -> Completion:
        self.asked.append(list(messages))
        self.schemas.append(schema)
        answer = self.answers.pop(0)
        if isinstance(answer, PodiumError):
            raise answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Completion(text, "scripted", Usage(10, 20), finish_reason=self.finish)


def changed(**tasks: dict[str, Any]) -> dict[str, Any]:
    return GOOD | {"tasks": GOOD["tasks"] | tasks}


async def test_a_good_plan_is_taken_at_once() -> None:
    model = Scripted(GOOD)
    schema = {"type": "object"}
    plan = await make_plan(
        GOAL, model=model, schema=schema, build=build, inputs=GIVEN, tools=[("kit:fetch", "gets a page")]
    )
    assert (plan.source, plan.template, plan.tries, plan.notes) == ("model", None, 1, ())
    assert plan.workflow == Workflow.from_data(GOOD)
    assert model.schemas == [schema]
    request = model.asked[0][-1].content
    assert all(text in request for text in (GOAL, "reports: list[str]", "kit:fetch: gets a page"))


async def test_the_validators_own_words_are_quoted_back() -> None:
    dangling = changed(page={"prompt": "Write a one-page summary of the year from these notes:\n{nots}"})
    model = Scripted(dangling, GOOD)
    plan = await make_plan(GOAL, model=model, schema={}, build=build, inputs=GIVEN)
    assert (plan.source, plan.tries) == ("model", 2)
    assert plan.notes == ("the model scripted needed 2 tries",)
    _, problems = build(dangling)
    *_, answer, complaint = model.asked[1]
    assert answer.role == "assistant"
    assert json.loads(answer.content) == dangling
    assert problems[0] in complaint.content


async def test_only_the_last_answer_is_in_the_conversation() -> None:
    model = Scripted("{", "[]", GOOD)
    plan = await make_plan(GOAL, model=model, schema={}, build=build, inputs=GIVEN)
    assert plan.tries == 3
    assert [len(messages) for messages in model.asked] == [2, 4, 4]


async def test_after_the_repairs_a_template_is_taken_and_the_notes_say_so() -> None:
    model = Scripted("{", "{ ", "{")
    plan = await make_plan(GOAL, model=model, schema={}, build=build, inputs=GIVEN, repairs=2)
    assert (plan.source, plan.template, plan.tries) == ("template", "map-reduce", 3)
    (note,) = plan.notes
    assert note.startswith(
        "the model scripted could not plan this (after 3 tries: the plan is not complete JSON"
    )
    assert "using the template 'map-reduce' (similarity 0." in note
    assert validate(plan.workflow) == []
    assert set(plan.workflow.inputs) == {"goal", "reports"}


async def test_a_model_that_repeats_its_answer_is_not_asked_again() -> None:
    model = Scripted("{", "{", GOOD)
    plan = await make_plan(GOAL, model=model, schema={}, build=build, inputs=GIVEN, repairs=5)
    assert (plan.source, plan.tries) == ("template", 2)


async def test_a_cut_answer_is_named() -> None:
    plan = await make_plan(
        GOAL, model=Scripted('{"name"', finish="length"), schema={}, build=build, inputs=GIVEN, repairs=0
    )
    assert "after 1 try: the plan is not complete JSON: it was cut after 20 tokens" in plan.notes[0]


@pytest.mark.parametrize(
    "error", [ContextTooLong("the prompt has 3,000 tokens"), ConfigError("no model of the pool may answer")]
)
async def test_a_model_that_cannot_answer_leads_to_the_library(error: PodiumError) -> None:
    plan = await make_plan(GOAL, model=Scripted(error), schema={}, build=build, inputs=GIVEN)
    assert (plan.source, plan.tries) == ("template", 0)
    assert error.message in plan.notes[0]


async def test_no_money_is_no_reason_for_a_template() -> None:
    with pytest.raises(BudgetStopped):
        await make_plan(GOAL, model=Scripted(BudgetStopped("spent")), schema={}, build=build, inputs=GIVEN)


async def test_without_a_model_the_library_plans() -> None:
    plan = await make_plan("Translate these letters to Greek", model=None, schema={}, build=build)
    assert (plan.source, plan.template, plan.tries) == ("template", "translate-many", 0)
    assert plan.notes[0].startswith("no model was given; using the template")


async def test_templates_may_have_a_builder_of_their_own() -> None:
    def never(data: Mapping[str, Any]) -> tuple[Any, list[str]]:
        return None, ["this is not the plan's form"]

    plan = await make_plan(
        GOAL, model=Scripted(GOOD), schema={}, build=never, build_template=build, repairs=0
    )
    assert plan.source == "template"
    assert "this is not the plan's form" in plan.notes[0]


async def test_a_template_that_cannot_run_is_an_error_with_a_mend() -> None:
    with pytest.raises(ConfigError) as error:
        await make_plan(GOAL, model=None, schema={}, build=build, inputs={"two words": "str"})
    assert "name the inputs" in error.value.mend


async def test_a_valid_plan_that_is_no_good_counts_as_a_problem() -> None:
    lazy = changed(page={"prompt": "Go on.\n{notes}"})
    model = Scripted(lazy, GOOD)
    plan = await make_plan(GOAL, model=model, schema={}, build=build, inputs=GIVEN)
    assert (plan.source, plan.tries) == ("model", 2)
    assert "its prompt says too little" in model.asked[1][-1].content


def build_plan(data: Mapping[str, Any]) -> tuple[Workflow | None, list[str]]:
    """As the CLI does it: the plan's form, then the validator."""
    try:
        workflow = workflow_from_plan(data)
    except WorkflowError as error:
        return None, [str(problem) for problem in error.problems]
    return workflow, [str(problem) for problem in validate(workflow)]


PLAN: dict[str, Any] = {
    "name": "annual",
    "inputs": [{"name": "reports", "type": "list[str]"}],
    "tasks": [{"name": name, **task} for name, task in GOOD["tasks"].items()],
    "outputs": ["page"],
}


async def test_a_plan_in_the_planning_form_becomes_a_workflow() -> None:
    schema = planning_schema()
    jsonschema.validate(PLAN, schema)
    for given in (GIVEN, None):
        plan = await make_plan(GOAL, model=Scripted(PLAN), schema=schema, build=build_plan, inputs=given)
        assert (plan.source, plan.workflow) == ("model", Workflow.from_data(GOOD))
    template = await make_plan(GOAL, model=None, schema=schema, build=build_plan, inputs=GIVEN)
    assert template.template == "map-reduce"


async def test_the_given_inputs_stand_whatever_the_model_declared() -> None:
    invented = PLAN | {"inputs": [{"name": "files", "type": "str"}]}
    plan = await make_plan(GOAL, model=Scripted(invented), schema={}, build=build_plan, inputs=GIVEN)
    assert plan.source == "model"
    assert list(plan.workflow.inputs) == ["reports"]


@pytest.mark.parametrize("given", [GIVEN, None])
async def test_the_goal_is_an_input_when_a_prompt_uses_it(given: Mapping[str, str] | None) -> None:
    tasks = [*PLAN["tasks"][:1], {"name": "page", "prompt": "Do this: {goal}\nfrom these notes: {notes}"}]
    plan = await make_plan(
        GOAL, model=Scripted(PLAN | {"tasks": tasks}), schema={}, build=build_plan, inputs=given
    )
    assert plan.source == "model"
    assert list(plan.workflow.inputs) == ["goal", "reports"]


def problems(plan: Mapping[str, Any]) -> list[str]:
    _, found = build(plan)
    assert found == [], "the judge is for valid plans"
    return judge(plan, GOAL, given=GIVEN, instructions=INSTRUCTIONS)


NOTES, PAGE = GOOD["tasks"]["notes"], GOOD["tasks"]["page"]


EXTRA = GOOD | {"inputs": {"reports": "list[str]", "extra": "str"}}
IGNORES = GOOD | {"inputs": {}, "tasks": {"page": {"prompt": "Write the annual summary of departments."}}}
EMPTY = changed(page={"prompt": "{notes}"})
COPY = changed(page={"prompt": NOTES["prompt"].replace("item", "notes")})
PARROT = changed(page={"prompt": INSTRUCTIONS.splitlines()[2].replace("{name}", "") + " {notes}"})
CIRCLES = changed(page={"prompt": "the report and " * 9 + "{notes}"})
DEAD = changed(spare={"prompt": "List the departments in {reports}."})
ASKS = GOOD | {"outputs": {}, "tasks": {"ask": {"approval": "Publish the annual summary {reports}?"}}}
OFF_GOAL = GOOD | {"outputs": {}, "tasks": {"poem": {"prompt": "Compose merry verses on {reports}"}}}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (
            EXTRA,
            ["the input extra is used by no task", "nobody gives the input extra: use only goal, reports"],
        ),
        (IGNORES, ["the input reports is given but"]),
        (EMPTY, ["task page: its prompt says too little"]),
        (COPY, ["task page: its prompt is a copy of task notes"]),
        (PARROT, ["task page: its prompt is a copy of the instructions"]),
        (CIRCLES, ["task page: its prompt says the same again"]),
        (DEAD, ["task spare: nobody uses its answer"]),
        (ASKS, ["the plan gives no result"]),
        (OFF_GOAL, ["the plan does not speak of the goal (missing: annual, departments"]),
    ],
    ids=["extra", "ignores", "empty", "copy", "parrot", "circles", "dead", "asks", "off-goal"],
)
def test_the_judge_says_what_is_wrong(plan: dict[str, Any], words: list[str]) -> None:
    found = problems(plan)
    assert len(found) == len(words), found
    assert all(problem.startswith(word) for word, problem in zip(words, found, strict=True)), found


def test_the_judge_has_nothing_against_good_plans() -> None:
    assert problems(GOOD) == []
    for template in load_templates():
        assert judge(template.workflow, "anything at all", instructions=INSTRUCTIONS) == []


def test_what_a_task_reads() -> None:
    task = {
        "map": "a.b",
        "when": {"field": "c.d", "op": "==", "value": "{z}"},
        "prompt": "{item} {e.f} {{no}} {{{g}}}",
        "with": {"x": ["{h}"]},
        "needs": ["i"],
    }
    assert uses(task) - {"no"} == {"a", "c", "item", "e", "g", "h"}
