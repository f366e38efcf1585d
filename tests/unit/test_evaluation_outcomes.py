"""Reading a CSV of outcomes, its matrix, and what cells without an outcome come to."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from podium.memory.errors import UsageError
from podium.router.evaluation.outcomes import Outcomes, read_csv
from podium.router.evaluation.truth import truth_of

GOOD = """\
prompt,task,model,score,cost_usd,in_tok,out_tok,action
"Add 2, 3",sums,small,0,0.001,10,5,
"Add 2, 3",sums,large,1,0.02,10,7,direct
"Two
lines",,small,0.5,0.001,4,,
"Two
lines",,large,,,,,
"Add 2, 3",sums,small,1,0.003,25,9,refine
"""


@pytest.fixture
def write(tmp_path: Path):
    def to(text: str, name: str = "rows.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return to


def test_rows_are_read_with_all_that_they_say(write) -> None:
    found = read_csv(write(GOOD))
    assert [(r.prompt, r.task, r.model, r.score) for r in found.rows] == [
        ("Add 2, 3", "sums", "small", 0.0),
        ("Add 2, 3", "sums", "large", 1.0),
        ("Two\nlines", None, "small", 0.5),
    ]
    assert (found.rows[1].cost_usd, found.rows[1].in_tok, found.rows[2].out_tok) == (0.02, 10, None)
    assert [r.score for r in found.refined] == [1.0]
    assert found.unscored == 1
    assert found.models == ("large", "small")


def test_a_packed_file_and_one_from_a_spreadsheet_are_read(write, tmp_path: Path) -> None:
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(GOOD.encode()))
    assert read_csv(packed) == read_csv(write(GOOD))
    assert read_csv(write("\ufeff" + GOOD, "excel.csv")) == read_csv(write(GOOD))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prompt,model,score\na,m,1.5\n", "line 2, column score: 1.5 is not in 0…1"),
        ("prompt,model,score\na,m,1\nb,m,good\n", "line 3, column score: 'good' is no number"),
        ("prompt,model,score\na,m,nan\n", "column score: 'nan' is no number"),
        ("prompt,model,score\n,m,1\n", "line 2, column prompt: empty"),
        ("prompt,model,score,cost_usd\na,m,1,-1\n", "line 2, column cost_usd: '-1' is no amount"),
        ("prompt,model,score,in_tok\na,m,1,many\n", "column in_tok: 'many' is no amount"),
        ("prompt,model,score,action\na,m,1,retry\n", "column action: 'retry' is not one of direct, refine"),
        ("prompt,model,score\na, b,m,1\n", "line 2, more fields than the header"),
        ("prompt,model,score\na,m\n", "line 2, fewer fields than the header"),
        ("prompt,llm,score\na,m,1\n", "no column model; it has prompt, llm, score"),
        ("prompts,model,score\na,m,1\n", "rename 'prompts' → 'prompt'"),
        ("prompt;model;score\na;m;1\n", "not separated by commas"),
        ("", "no column prompt, model, score; it has none"),
        ("prompt,model,score\na,m,\n", "no row with a score"),
        ('prompt,model,score\n"a,m,1\n', "cannot be read"),
    ],
)
def test_a_wrong_file_is_told_by_line_and_column(write, text: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        read_csv(write(text))
    assert told in str(error.value)
    assert error.value.mend


def test_five_problems_are_told_at_once_and_the_rest_counted(write) -> None:
    with pytest.raises(UsageError) as error:
        read_csv(write("prompt,model,score\n" + "a,m,2\n" * 7))
    assert str(error.value).count("line ") == 5
    assert "and 2 more" in str(error.value)


def test_a_file_that_is_none_is_told(write, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(UsageError):
            read_csv(path)
    latin = tmp_path / "latin.csv"
    latin.write_bytes("prompt,model,score\nGrün,m,1\n".encode("latin-1"))
    with pytest.raises(UsageError, match="UTF-8"):
        read_csv(latin)


def test_the_matrix_has_gaps_and_says_so(write) -> None:
    matrix = read_csv(write(GOOD)).matrix()
    assert matrix.models == ("large", "small")
    np.testing.assert_array_equal(matrix.score, [[1.0, 0.0], [np.nan, 0.5]])
    np.testing.assert_array_equal(matrix.tokens, [[17.0, 15.0], [np.nan, np.nan]])
    assert matrix.tasks == ("sums", "")
    assert matrix.notes == (
        "1 of 4 cells (prompts × models) have no outcome",
        "1 rows had no score and were left out",
    )


def test_samples_of_one_cell_count_as_their_mean() -> None:
    rows = [{"prompt": "a", "model": "m", "score": s, "cost_usd": c} for s, c in ((0, 1), (1, 3), (1, None))]
    matrix = Outcomes.of(rows).matrix()
    assert matrix.score[0, 0] == pytest.approx(2 / 3)
    assert matrix.cost[0, 0] == 2
    assert "2 rows repeat" in matrix.notes[0]


def test_a_model_without_rows_is_refused() -> None:
    outcomes = Outcomes.of([{"prompt": "a", "model": "m", "score": 1}])
    with pytest.raises(UsageError, match="no outcome of n"):
        outcomes.matrix(["m", "n"])
    with pytest.raises(UsageError, match="any model"):
        Outcomes(()).matrix()


def test_prompts_that_lack_a_model_are_dropped_and_counted(write) -> None:
    truth = truth_of(read_csv(write(GOOD)).matrix())
    assert (len(truth), truth.estimated) == (1, False)
    assert "1 of 2 prompts lack an outcome of some model and are not judged" in truth.notes
    assert truth.tokens is not None
    one_each = Outcomes.of(
        [{"prompt": "a", "model": "m", "score": 1}, {"prompt": "b", "model": "n", "score": 1}]
    )
    with pytest.raises(UsageError, match="every model"):
        truth_of(one_each.matrix(), "drop")


def test_gaps_are_estimated_without_the_bias_of_who_was_asked() -> None:
    """The strong model was mostly asked hard tasks, so that its plain mean looks bad."""
    rng = np.random.default_rng(5)
    skill = {"easy": (0.8, 0.95), "hard": (0.2, 0.6)}
    rows = []
    for i in range(4000):
        task = "easy" if i % 2 else "hard"
        model = int(rng.random() < (0.15 if task == "easy" else 0.85))
        score = float(rng.random() < skill[task][model])
        rows.append({"prompt": f"p{i}", "task": task, "model": ("weak", "strong")[model], "score": score})
    matrix = Outcomes.of(rows).matrix(["weak", "strong"])
    truth = truth_of(matrix)
    assert truth.estimated
    plain = np.nanmean(matrix.score, 0)
    assert plain[1] < plain[0]
    np.testing.assert_allclose(truth.score.mean(0), [0.5, 0.775], atol=0.03)
    assert any("estimated" in note for note in truth.notes)


def test_a_matrix_without_gaps_is_estimated_as_it_is() -> None:
    rng = np.random.default_rng(1)
    rows = [
        {"prompt": f"p{i}", "task": "t" * (i % 3), "model": m, "score": float(rng.random())}
        for i in range(30)
        for m in ("a", "b")
    ]
    matrix = Outcomes.of(rows).matrix()
    np.testing.assert_allclose(truth_of(matrix, "estimate").score, matrix.score, atol=1e-12)
