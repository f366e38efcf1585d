"""Every error Podium raises on purpose.

    PodiumError                     exit code of the CLI
    ├── UsageError                  2   the command or the workflow is wrong
    │   ├── WorkflowError           2   a workflow that cannot run; holds every Problem found
    │   └── NotFound                2   no such run, task, model, item
    ├── ConfigError                 3   a setting, the pool file, the database or a missing package
    ├── BudgetStopped               4   no route fits the money that is left
    ├── ProviderError               5   a model did not answer, or not in the form asked for
    │   ├── ContextTooLong          5   the prompt does not fit the model's context
    │   └── StructuredOutputError   5   the answer is not of the type asked for, after the repairs
    ├── ClusterError                6   Ray or a worker is not reachable
    ├── WaitingForPerson            7   an approval is pending
    ├── StaleEpoch                  1   another engine owns the run now; this engine must stop
    └── TaskError                   1   a task's own code or answer failed

A message says what happened, why, and the one thing to do next (`mend`).
"""

from __future__ import annotations


class PodiumError(Exception):
    """Base of all errors. `run`, `task` and `attempt` say where it happened, as far as known."""

    exit_code = 1
    #: whether the same call may succeed when tried again
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        mend: str = "",
        run: str | None = None,
        task: str | None = None,
        attempt: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.run = run
        self.task = task
        self.attempt = attempt

    def __str__(self) -> str:
        place = " ".join(
            f"{name} {value}"
            for name, value in (("run", self.run), ("task", self.task), ("attempt", self.attempt))
            if value is not None
        )
        text = f"{place}: {self.message}" if place else self.message
        return f"{text}\n  → {self.mend}" if self.mend else text

    def data(self) -> dict[str, object]:
        """The error as it is recorded and printed as JSON."""
        found: dict[str, object] = {
            "kind": type(self).__name__,
            "message": self.message,
            "mend": self.mend,
            "exit_code": self.exit_code,
        }
        places = {"run": self.run, "task": self.task, "attempt": self.attempt}
        return found | {name: value for name, value in places.items() if value is not None}

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders (Ray, isolated workers) with their keyword fields."""
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(kind: type[PodiumError], state: dict[str, object]) -> PodiumError:
    error = kind.__new__(kind)
    Exception.__init__(error, state.get("message"))
    error.__dict__.update(state)
    return error


class UsageError(PodiumError):
    exit_code = 2


class NotFound(UsageError):
    """No such run, task, model or item."""


class ConfigError(PodiumError):
    exit_code = 3


class BudgetStopped(PodiumError):
    """The ledger refused every route: reserved + settled + worst case would pass the budget."""

    exit_code = 4


class ProviderError(PodiumError):
    """A model did not answer. `retryable` is per error: a timeout is, a wrong key is not."""

    exit_code = 5

    def __init__(self, message: str, *, retryable: bool = True, sent: bool = True, **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]
        self.retryable = retryable
        #: False when it is certain that the provider never received the request (then nothing is billed)
        self.sent = sent


class ContextTooLong(ProviderError):
    def __init__(self, message: str, **where: object) -> None:
        super().__init__(message, retryable=False, sent=False, **where)


class StructuredOutputError(ProviderError):
    """The answer does not parse as the type asked for, after at most two repairs."""


class ClusterError(PodiumError):
    exit_code = 6
    retryable = True


class WaitingForPerson(PodiumError):
    """A task needs an approval. `key` names what is to be approved, stable across attempts."""

    exit_code = 7

    def __init__(self, message: str, *, key: str, **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]
        self.key = key


class StaleEpoch(PodiumError):
    """This engine lost its lease on the run: its writes are refused and it must let go."""


class TaskError(PodiumError):
    """A task failed. `retryable` is per error: a crash of user code may pass, a wrong signature will not."""

    def __init__(self, message: str, *, retryable: bool = True, **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]
        self.retryable = retryable
