"""Errors cross process borders whole, and are told in one form."""

from __future__ import annotations

import pickle

import pytest
from podium.memory import errors
from podium.memory.errors import (
    BudgetStopped,
    ContextTooLong,
    PodiumError,
    ProviderError,
    StructuredOutputError,
    TaskError,
    WaitingForPerson,
)
from podium.orchestrator.problems import Problem, WorkflowError
from podium.router.policy import NoRoute

WHERE = {"mend": "do this", "run": "r1", "task": "t", "attempt": 2}
ALL: list[PodiumError] = [
    *(
        getattr(errors, name)("what", **WHERE)
        for name in ("PodiumError", "UsageError", "NotFound", "ConfigError", "BudgetStopped", "ClusterError",
                     "StaleEpoch", "ContextTooLong", "StructuredOutputError")
    ),
    ProviderError("what", retryable=False, sent=False, **WHERE),
    WaitingForPerson("what", key="k", **WHERE),
    TaskError("what", retryable=False, **WHERE),
    NoRoute("what", reasons={"m": "too small"}, exhausted=True, mend="do this"),
    WorkflowError([Problem("t", 3, "what", "do this")]),
]  # fmt: skip


@pytest.mark.parametrize("error", ALL, ids=lambda e: type(e).__name__)
def test_pickle_round_trip(error: PodiumError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error)
    assert again.args == error.args
    assert again.data() == error.data()
    assert (again.exit_code, again.retryable) == (error.exit_code, error.retryable)


def test_the_text_has_place_and_mend() -> None:
    error = TaskError("it broke", mend="mend it", run="r1", task="t", attempt=3)
    assert str(error) == "run r1 task t attempt 3: it broke\n  → mend it"
    assert error.data() == {
        "kind": "TaskError", "message": "it broke", "mend": "mend it", "exit_code": 1,
        "run": "r1", "task": "t", "attempt": 3,
    }  # fmt: skip
    assert str(PodiumError("plain")) == "plain"


def test_exit_codes() -> None:
    codes = {type(e).__name__: e.exit_code for e in ALL}
    assert codes["UsageError"] == codes["NotFound"] == codes["WorkflowError"] == 2
    assert codes["ConfigError"] == codes["NoRoute"] == 3
    assert BudgetStopped.exit_code == 4
    assert codes["ProviderError"] == codes["ContextTooLong"] == 5
    assert (codes["ClusterError"], codes["WaitingForPerson"], codes["TaskError"]) == (6, 7, 1)


def test_what_may_be_tried_again() -> None:
    assert ProviderError("x").retryable
    assert ProviderError("x").sent
    assert not ContextTooLong("x").retryable
    assert not ContextTooLong("x").sent
    assert StructuredOutputError("x").retryable
    assert TaskError("x").retryable
    assert not PodiumError("x").retryable
