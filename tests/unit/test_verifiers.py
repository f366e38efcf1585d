"""Free checks: each on answers that are right and on ones that are wrong, and none raises on any text."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from podium.router.verifiers import (
    FREE,
    Agreement,
    Arithmetic,
    Check,
    Citations,
    NumbersUsed,
    Reference,
    ResultFollows,
    SimilarAnswers,
    Verifier,
    Whole,
    check_all,
    majority,
)
from podium.router.verifiers.arithmetic import statements
from podium.router.verifiers.expressions import evaluate
from podium.router.verifiers.quantities import quantities, result_of
from podium.router.verifiers.trace import trace

QUESTION = "A baker sells 12 rolls at $3 each and then 5 cakes at $20 each. How much money does she take?"
RIGHT = "Rolls: 12 * 3 = 36. Cakes: 5 * 20 = 100.\nTogether 36 + 100 = 136.\nThe answer is 136."


@pytest.mark.parametrize(
    "text",
    [
        "2 boxes * 40 apples/box / 8 = 10 apples",
        "She pays $12 x 3 = $36.00.",
        "20% of 50 = 10",
        "80 - 25% = 60",
        "10 / 3 = 3.33",
        r"\frac{1}{2} \times 6 = 3",
        "So <<12*3=36>>36 rolls",
        "4 + 2 = 6 * 3 = 18",
        "(3 + 4) * 2 = 14",
        "2^10 = 1,024",
        "1.5 hours * 1 = 90 minutes",
        "3 times 4 = 12",
    ],
)
def test_a_step_that_holds_passes(text: str) -> None:
    check = Arithmetic().check("", text)
    assert check.verdict == "pass", check.evidence


@pytest.mark.parametrize(
    "text", ["12 * 3 = 38", "<<5*20=110>>110", "36 + 100 = 126 dollars", "30% of 50 = 20", "7 - 2 = 4"]
)
def test_a_step_that_does_not_hold_fails_and_is_quoted(text: str) -> None:
    check = Arithmetic().check("", f"First 1 + 1 = 2.\nThen {text}.")
    assert check.verdict == "fail"
    assert check.score == 0.5
    assert check.evidence.startswith("does not hold: ")


@pytest.mark.parametrize(
    "text", ["", "no numbers", "x = 4", "2x + 3 = 11", "1 pound = 16 ounces", "a = b = c", "5 / 0 = 1"]
)
def test_what_is_no_calculation_is_unknown(text: str) -> None:
    assert Arithmetic().check("", text).verdict == "unknown"


def test_a_marked_step_and_its_text_are_one_step() -> None:
    assert len(statements("2*3 = <<2*3=6>>6 and then 6 + 1 = 7")) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("(3 + 4) x 1/2", Fraction(7, 2)), ("-2 * 3", -6), ("2 ^ 3 ^", None), ("9" * 99, None), ("", None)],
)
def test_expressions_are_exact(text: str, value: Fraction | None) -> None:
    assert evaluate(text) == value


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from("+-*"), st.integers(2, 500))
def test_arithmetic_tells_a_right_result_from_a_wrong_one(a: int, b: int, sign: str, off: int) -> None:
    right = {"+": a + b, "-": a - b, "*": a * b}[sign]
    assert statements(f"({a}) {sign} ({b}) = {right}")[0].holds
    # farther than any two units are apart: that would be a conversion
    wrong = right * 1001 + (-off if right < 0 else off)
    assert not statements(f"({a}) {sign} ({b}) = {wrong}")[0].holds


def test_numbers_in_words_are_numbers() -> None:
    found = [q.value for q in quantities("twenty-five eggs, half a dozen, two-thirds, 1,200 and 15%")]
    assert found == [25, Fraction(1, 2), 12, Fraction(2, 3), 1200, 15]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ("so it is 5.\n#### 1,234", (1234, True)),
        (r"\boxed{3/4}", (Fraction(3, 4), True)),
        ("The final answer is: $-7.50", (Fraction(-15, 2), True)),
        ("There are 3 cats\nand 4 dogs.", (4, False)),
        ("none", (None, False)),
    ],
)
def test_the_result_of_an_answer(answer: str, result: tuple[Fraction | None, bool]) -> None:
    assert result_of(answer) == result


def test_a_calculation_with_all_numbers_passes() -> None:
    assert [check.verdict for check in check_all(FREE, QUESTION, RIGHT)] == ["pass"] * 4


def test_a_number_left_out_is_named() -> None:
    check = NumbersUsed().check(QUESTION, "5 * 20 = 100\nThe answer is 100.")
    assert check.verdict == "fail"
    assert check.evidence == "not used: 12, 3"


@pytest.mark.parametrize(
    ("answer", "evidence"),
    [
        ("12 * 3 = 36 and 5 * 20 = 100.\nThe answer is 140.", "the result 140 is of no step"),
        ("12 * 3 = 36 and 5 * 20 = 100.\nThe answer is 100.", "leads nowhere: 12 * 3 = 36"),
    ],
)
def test_a_result_that_does_not_follow_fails(answer: str, evidence: str) -> None:
    check = ResultFollows().check(QUESTION, answer)
    assert (check.verdict, check.evidence) == ("fail", evidence)


def test_where_operands_come_from() -> None:
    seen = trace("He has 4 bags of 3 and gives 3 away.", "4 * 3 = 12\n12 - 3 = 9\n9 + 7 = 16")
    origins = [use.origin for use in seen.uses()]
    assert origins == ["asked", "asked", "result", "asked", "result", "other"]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("It is 4.", "pass"),
        ("  ", "fail"),
        ("I'm sorry, I cannot help with that.", "fail"),
        ("First we add the two numbers and", "fail"),
        ("There is not enough information to say.", "fail"),
    ],
)
def test_an_answer_that_is_none_fails(answer: str, verdict: str) -> None:
    assert Whole().check("What is 2 + 2?", answer).verdict == verdict


def test_citations_must_exist() -> None:
    prompt = "[1] Rome fell in 476. [2] Byzantium did not."
    assert Citations().check(prompt, "Rome fell [1], Byzantium stood [1, 2].").verdict == "pass"
    check = Citations().check(prompt, "Rome fell [1] to the Goths [7].")
    assert (check.verdict, check.score, check.evidence) == ("fail", 0.5, "no such source: [7]")
    assert Citations().check(prompt, "Rome fell.").evidence == "it cites nothing"
    assert Citations().check("no marks", "Rome fell [1].").verdict == "unknown"
    assert Citations(known=[7]).check(prompt, "So [7].").verdict == "pass"


def test_agreement_compares_what_answers_come_to() -> None:
    others = ["The answer is 12.", "3 * 4 = 12\n#### 12", "The answer is 13"]
    check = Agreement(others).check("", "12")
    assert (check.verdict, check.evidence) == ("pass", "2 of 3 others agree")
    assert Agreement(others).check("", "13").verdict == "fail"
    assert Agreement([]).check("", "13").verdict == "unknown"
    assert majority(["Paris.", "12", "paris", "13"]) == "Paris."
    assert majority([]) is None


def test_graded_answers_to_similar_prompts_vote() -> None:
    references = [
        Reference("How tall is the tower of Pisa?", "56 metres", 1.0),
        Reference("How tall is the tower of London?", "no idea", 0.0),
        Reference("Name a colour", "red", 0.0),
    ]
    verifier = SimilarAnswers(references)
    good, bad = (verifier.check("How tall is the tower of Babel?", a) for a in ("91 metres", "no idea"))
    assert good.score > bad.score
    assert (good.verdict, bad.verdict) == ("pass", "fail")
    assert verifier.check("Solve this", "x").verdict == "unknown"


def all_free() -> list[Verifier]:
    return [*FREE, Citations(), Agreement(["12", "a b"]), SimilarAnswers([Reference("a b", "c", 0.5)])]


_SCRAPS = st.sampled_from(
    ["<<", ">>", "=", "1", "0", "/", "(", ")", "%", "####", "\\frac{", "}", "^", "half", "-", "[3]", "×", "٣"]
)
_TEXTS = st.text(max_size=60) | st.lists(_SCRAPS, max_size=25).map("".join)


@given(_TEXTS, _TEXTS)
def test_no_check_raises_on_any_text(prompt: str, answer: str) -> None:
    for check in check_all(all_free(), prompt, answer):
        assert isinstance(check, Check)
        assert 0 <= check.score <= 1
        assert check.evidence
        assert (check.verdict == "unknown") <= (check.score == 0.5)


@pytest.mark.parametrize(
    "piece", ["(", "1=", "9", "1+1=2 ", "7/", "<<1*1=1>>", "\\frac{", "and 5 ", "((1)) "]
)
def test_very_long_texts_are_read_in_time(piece: str) -> None:
    text = piece * (40_000 // len(piece))
    assert all(check.evidence for check in check_all(all_free(), text, text))
