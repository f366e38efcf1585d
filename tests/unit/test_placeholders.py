"""Placeholders: pure text, never code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.orchestrator.placeholders import Ref, TemplateError, fill, read_path, refs, render, sole_ref

VALUES: dict[str, Any] = {
    "text": "plain {not_a_placeholder}",
    "parts": ["one", "two"],
    "numbers": [1, 2],
    "brief": {"title": "Ä", "sub": {"n": 3}},
    "nothing": None,
    "empty": [],
}


def look(ref: Ref) -> Any:
    return read_path(VALUES[ref.name], ref)


def test_refs_in_order_each_once() -> None:
    tree = {"a": "{x} and {y.title}", "b": ["{x}", {"c": "{z}"}], "n": 3}
    assert refs(tree) == [Ref("x"), Ref("y", ("title",)), Ref("z")]
    assert [str(ref) for ref in refs(tree)] == ["x", "y.title", "z"]


def test_doubled_braces_are_braces() -> None:
    assert refs('{{"a": 1}}') == []
    assert render('{{"a": "{brief.title}"}}', look) == '{"a": "Ä"}'
    assert render("{{{text}}}", look) == "{plain {not_a_placeholder}}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("<{text}>", "<plain {not_a_placeholder}>"),
        ("{parts}", "one\n\ntwo"),
        ("{numbers}", "[1,2]"),
        ("{brief}", '{"title":"Ä","sub":{"n":3}}'),
        ("{brief.sub.n}", "3"),
        ("{nothing}", "null"),
        ("{nothing.title}", "null"),
        ("{empty}", "[]"),
        ("no placeholder", "no placeholder"),
        ("", ""),
    ],
)
def test_render(template: str, text: str) -> None:
    assert render(template, look) == text


def test_fill_keeps_the_type_of_a_sole_placeholder() -> None:
    tree = {
        "all": "{numbers}",
        "text": "n={brief.sub.n}",
        "list": ["{brief.sub}", 7],
        "braces": "{{}}",
        "flag": True,
    }
    filled = fill(tree, look)
    assert filled == {"all": [1, 2], "text": "n=3", "list": [{"n": 3}, 7], "braces": "{}", "flag": True}
    assert sole_ref("{brief.sub}") == Ref("brief", ("sub",))
    assert sole_ref(" {brief}") is None


@pytest.mark.parametrize(
    ("template", "mend"),
    [
        ('{"a": 1}', "double the braces"),
        ("{", "double the braces"),
        ("a } b", "double the braces"),
        ("{}", "double the braces"),
        ("{1}", "double the braces"),
        ("{a.}", "double the braces"),
        ("{a!r}", "double the braces"),
        ("{a:>10}", "double the braces"),
        ("{a[0]}", "double the braces"),
        ("{ name }", "write {name} without blanks"),
    ],
)
def test_a_stray_brace_is_an_error_with_the_mend(template: str, mend: str) -> None:
    with pytest.raises(TemplateError) as caught:
        refs(template)
    assert mend in caught.value.mend


def test_a_missing_field_names_those_there_are() -> None:
    with pytest.raises(TemplateError, match="no field 'titel'") as caught:
        render("{brief.titel}", look)
    assert "title, sub" in caught.value.mend


@pytest.mark.parametrize(
    ("text", "mend"), [("{brief}", "write brief"), ("a b", "write a name"), ("", "write a name")]
)
def test_names_of_refs(text: str, mend: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Ref.parse(text)
    assert mend in caught.value.mend


@given(st.text())
def test_any_text_survives_when_its_braces_are_doubled(text: str) -> None:
    assert render(text.replace("{", "{{").replace("}", "}}"), look) == text


@given(st.text(alphabet="{}ab. "))
def test_any_template_renders_or_is_a_template_error(template: str) -> None:
    try:
        found = refs(template)
    except TemplateError:
        with pytest.raises(TemplateError):
            render(template, lambda ref: "")
        return
    assert "{a" not in render(template, lambda ref: "") or "{{" in template
    assert all(part.isidentifier() for ref in found for part in (ref.name, *ref.path))
