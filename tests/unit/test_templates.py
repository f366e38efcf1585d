"""The template library: every template is a real workflow, and goals find the right one."""

from __future__ import annotations

from pathlib import Path

import pytest
from podium.agents.template_library import Template, choose, load_templates
from podium.memory.errors import ConfigError
from podium.orchestrator.graph import validate
from podium.orchestrator.workflow import Workflow

LIBRARY = {template.name: template for template in load_templates()}

#: goals that are in no template file, with the template that a person would take
HELD_OUT = [
    ("Write a limerick about a cat", "single-prompt"),
    ("How many legs does a spider have?", "single-prompt"),
    ("Come up with a slogan for a bakery", "single-prompt"),
    ("Write a one-page brief from these essays", "map-reduce"),
    ("Summarize the quarterly reports of all departments", "map-reduce"),
    ("What are the main points across these transcripts?", "map-reduce"),
    ("Where in these contracts is the termination period stated?", "answer-over-documents"),
    ("According to the attached policies, may I work from abroad?", "answer-over-documents"),
    ("Use the documentation to answer how backups are configured", "answer-over-documents"),
    ("Categorise the incoming ticket and forward it if it is critical", "classify-and-route"),
    ("Is this message angry? If so, notify the manager", "classify-and-route"),
    ("Triage this GitHub issue", "classify-and-route"),
    ("Extract the order number, date and total from each receipt", "extract-structured"),
    ("Pull names and email addresses from these letters into a table", "extract-structured"),
    ("Compare the four insurance offers and tell me which to take", "compare-options"),
    ("Pick the best of these holiday destinations", "compare-options"),
    ("Draft a letter of resignation, critique it and make it better", "draft-critique-revise"),
    ("Write a wedding speech and polish it over a few rounds", "draft-critique-revise"),
    ("Research the effects of microplastics and write a report for my approval", "research-report"),
    ("Investigate how other cities handle traffic and report the findings", "research-report"),
    ("Translate the comments into Dutch", "translate-many"),
    ("Put all of these messages into French", "translate-many"),
]


@pytest.mark.parametrize("template", LIBRARY.values(), ids=lambda t: t.name)
def test_a_template_is_a_workflow_that_validates(template: Template) -> None:
    workflow = Workflow.from_data(dict(template.workflow))
    assert validate(workflow) == []
    assert "goal" in workflow.inputs
    assert workflow.outputs
    assert len(template.examples) >= 5


def test_held_out_goals_find_their_template() -> None:
    wrong = [(goal, found) for goal, right in HELD_OUT if (found := choose(goal)[0].name) != right]
    assert len(wrong) <= 0.15 * len(HELD_OUT), wrong
    assert not {goal for goal, _ in HELD_OUT} & {e for t in LIBRARY.values() for e in t.examples}


def test_similarity_is_high_for_an_example_and_low_for_noise() -> None:
    template, score = choose("Translate these reviews into English")
    assert template.name == "translate-many"
    assert score > 0.5
    plain, low = choose("zxqv")
    assert (plain.name, low < 0.15) == ("single-prompt", True)


def test_inputs_rule_out_templates_that_need_others() -> None:
    assert choose("Summarise these documents", {"papers": "list[str]"})[0].name == "map-reduce"
    assert choose("Summarise these documents", {})[0].inputs == {}
    assert not any("list" in kind for kind in choose("Translate this", {"letter": "str"})[0].inputs.values())


GIVEN = [
    {"docs": "list[str]"},
    {"papers": "list[str]"},
    {"letter": "str"},
    {"summaries": "list[str]", "brief": "str", "label": "str"},
    {"amount": "int", "item_list": "list[{name: str, price: float}]", "who": "str"},
    {},
]


@pytest.mark.parametrize("given", GIVEN, ids=lambda g: "+".join(g) or "none")
@pytest.mark.parametrize("template", LIBRARY.values(), ids=lambda t: t.name)
def test_a_bound_template_takes_exactly_the_given_inputs_and_uses_them(
    template: Template, given: dict[str, str]
) -> None:
    data = template.bind(given)
    assert (data is None) == (template.penalty(given) is None)
    if data is None:
        assert template.inputs
        return
    workflow = Workflow.from_data(data)
    assert validate(workflow) == []
    assert set(workflow.inputs) == {"goal", *given}
    body = str(data["tasks"])
    assert all(f"{{{name}}}" in body or f"'map': '{name}'" in body for name in given)
    assert template.workflow == LIBRARY[template.name].workflow


def test_an_empty_library_says_what_to_do() -> None:
    with pytest.raises(ConfigError) as error:
        choose("anything", None, [])
    assert "larger model" in error.value.mend


def test_every_file_of_the_folder_is_loaded() -> None:
    import podium.agents.templates as folder

    files = list(Path(next(iter(folder.__path__))).glob("*.yaml"))
    assert len(files) == len(LIBRARY) >= 6
