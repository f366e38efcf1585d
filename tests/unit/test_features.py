"""What is seen of prompts: finite for any text, of the right shape, and of form only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from podium.router.features import (
    DIMENSIONS,
    NAMES,
    RELATIONS,
    Featurizer,
    counts,
    default_embedder,
    relations,
)

ODD = [
    "",
    " ",
    "\n\n\n",
    "\x00",
    "?",
    "A. \nB. ",
    "١٢٣ عربي",
    "日本語のテキスト",
    "🙂" * 50,
    "x" * 200_000,
    "\ud800 lone",
]


def column(name: str, prompt: str) -> float:
    return counts(prompt)[NAMES.index(name)]


@pytest.mark.parametrize("prompt", ODD)
def test_odd_prompts_give_finite_figures(prompt: str) -> None:
    found = counts(prompt)
    assert len(found) == len(NAMES)
    assert np.isfinite(found).all()


@given(st.text(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_finite_figures(prompt: str) -> None:
    assert np.isfinite(counts(prompt)).all()


@pytest.mark.parametrize(
    ("name", "with_it", "without"),
    [
        ("digits", "add 12 and 34", "add some and more"),
        ("code", "def f(x):\n    return x == 1;", "a function that tells"),
        ("signs", "a + b = c * d", "a and b are c and d"),
        ("negation", "which is not a fruit", "which is a fruit"),
        ("emphasis", "which is NOT a fruit", "which is not a fruit"),
        ("choices", "Which?\nA. one\nB. two\nC. three", "Which of one, two, three?"),
        ("choice numbers", "Which?\nA. 1\nB. 2", "Which?\nA. one\nB. two"),
        ("asks to write", "Write a poem", "A poem"),
        ("asks for an amount", "how many cows are left", "which cows are left"),
        ("not ASCII", "où est l'été", "where is summer"),
        ("ends in a question", "Is it so? ", "Is it so? Yes."),
        ("gap", "The ____ is blue", "The sky is blue"),
        ("length", "a longer prompt than that", "short"),
    ],
)
def test_a_count_rises_with_its_form(name: str, with_it: str, without: str) -> None:
    assert column(name, with_it) > column(name, without)


def test_the_static_embedder_serves_by_default() -> None:
    found = Featurizer()(["How many cows?", "", "How many cows?"])
    assert found.vectors.shape == (3, DIMENSIONS)
    assert found.counts.shape == (3, len(NAMES) + len(RELATIONS))
    assert np.linalg.norm(found.vectors[0]) == pytest.approx(1, abs=1e-5)
    assert not found.vectors[1].any()
    assert (found.vectors[0] == found.vectors[2]).all()


def test_odd_prompts_have_vectors_too() -> None:
    assert np.isfinite(Featurizer()(ODD).vectors).all()


def related(name: str, prompt: str) -> float:
    return float(relations([prompt], default_embedder())[0, RELATIONS.index(name)])


def test_choices_that_are_alike_are_told_from_those_that_are_not() -> None:
    alike = "Which animal?\nA. a small red cat\nB. a small brown cat\nC. a small black cat"
    apart = "Which animal?\nA. a small red cat\nB. the stock market\nC. seventeen"
    for name in ("likeness of choices", "most alike choices"):
        assert related(name, alike) > related(name, apart)
    assert related("lead of the nearest choice", apart) > related("lead of the nearest choice", alike)
    assert not relations(["No choices here."], default_embedder())[0, :5].any()


@pytest.mark.parametrize("prompt", ["A. one\nB. two", "A. \nB. ", *ODD[:5]])
def test_odd_choices_have_finite_relations(prompt: str) -> None:
    assert np.isfinite(relations([prompt], default_embedder())).all()


class Constant:
    dimensions = 3

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(np.array([1.0, np.nan, np.inf], np.float32), (len(texts), 1))


def test_another_embedder_takes_its_place_and_is_kept_finite() -> None:
    found = Featurizer(Constant())(["a", "b"])
    assert found.vectors.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert Featurizer(Constant())([]).vectors.shape == (0, 3)
