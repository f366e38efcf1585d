"""What a pool says of its models, what a call asks for, and what the router decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..memory.money import token_cost

if TYPE_CHECKING:
    from .decision.pacing import Entry
    from .verifiers.contract import Check

Mode = Literal["direct", "cascade", "samples", "refine", "template"]
EngineName = Literal["llamacpp", "torch", "openai", "replay"]
Capability = Literal["json", "stream"]


class Price(BaseModel):
    """USD per million tokens. Local models have one too: their machine's time is not free."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars, each part rounded up."""
        return token_cost(input_tokens, self.input) + token_cost(output_tokens, self.output)


class Resources(BaseModel):
    """What one replica takes from the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Ray CPUs; fractions allowed
    cpus: float = Field(default=1.0, ge=0)
    #: GPUs; fractions allowed
    gpus: float = Field(default=0.0, ge=0)


class ModelSpec(BaseModel):
    """One model of the pool, as `pool.yaml` gives it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field(min_length=1, max_length=80)
    engine: EngineName
    #: llamacpp: a pulled model's name or a .gguf path; torch: a .gguf path, a pulled model's name, a local
    #: transformers folder, or `tiny-random` (a small model with random weights, for tests);
    #: openai: the model's name at the endpoint; replay: a JSONL file
    source: str
    price: Price
    #: tokens of prompt and answer together
    context: int = Field(default=2048, ge=64)
    #: tokens one answer may have at most
    max_output: int = Field(default=512, ge=1)
    capabilities: frozenset[Capability] = frozenset({"json", "stream"})
    replicas: int = Field(default=1, ge=1, le=64)
    #: requests a replica works on at the same time
    concurrency: int = Field(default=1, ge=1, le=1024)
    #: calls at the same time at most, of all engines of a database together; for endpoints that say so
    max_concurrent: int | None = Field(default=None, ge=1)
    #: calls that begin in any minute at most, likewise; a tenth of them may begin at once
    calls_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    resources: Resources = Resources()
    #: openai only: address of the endpoint, e.g. http://localhost:11434/v1
    base_url: str | None = None
    #: openai only: name of the environment variable that holds the key (never the key itself)
    api_key_env: str | None = None
    #: what is sent to it stays on this machine or in its cluster; None: told by the engine and the address
    local: bool | None = None
    #: seconds one call may take
    timeout: float = Field(default=300.0, gt=0)
    #: for engines: threads, dtype, device …
    options: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not all(c.isalnum() or c in "-_.:/" for c in value):
            raise ValueError("a model's name has letters, digits and -_.:/ only")
        return value

    @property
    def is_local(self) -> bool:
        """Whether no prompt leaves the machines that the pool runs on."""
        if self.local is not None:
            return self.local
        host = urlsplit(self.base_url or "").hostname or ""
        return self.engine != "openai" or host == "localhost" or host.startswith("127.") or host == "::1"


@dataclass(frozen=True, slots=True)
class Query:
    """What the router may know of a call before it is made."""

    #: upper bound of the prompt's tokens (its UTF-8 bytes plus the template's overhead); used for money
    input_tokens_max: int
    #: estimate of the prompt's tokens; used for context fit and estimates
    input_tokens: int
    #: tokens wanted for the answer at most; None: as the model allows
    max_tokens: int | None
    #: the answer must be JSON of a schema
    needs_json: bool = False
    #: the task's kind and name, for history
    task: str = ""
    kind: str = "llm"
    #: model the workflow or the user fixed
    pinned: str | None = None
    #: models that already failed this call, or whose price the ledger refused
    exclude: frozenset[str] = frozenset()
    #: what the user's side says (`memory.chat.asked_text`): what a learned policy looks at
    prompt: str = ""
    #: nothing of it may leave the pool's machines
    private: bool = False
    #: the answer is checked by the task's own check
    checked: bool = False
    #: how much this answer matters beside the others of its run; 1: as usual
    weight: float = 1.0
    #: until the task's or the run's time is up
    seconds_left: float | None = None
    #: the only models that may be asked, where an answer before this one was in doubt; and why
    only: frozenset[str] = frozenset()
    why: str = ""
    #: what a choice by chance is drawn from: the same seed gives the same choice
    seed: int = 0
    #: whether the task's template may be put into the prompt
    may_guide: bool = True


@dataclass(frozen=True, slots=True)
class Alternative:
    """A model that was looked at, and why it was not taken."""

    model: str
    fits: bool
    est_cost_nano: int
    reason: str
    #: expected score 0…1 and its standard deviation; None: the policy does not judge quality
    est_quality: float | None = None
    quality_sd: float | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A router's decision for one call."""

    model: str
    max_tokens: int
    mode: Mode
    #: expected and worst-case cost in nano-dollars
    est_cost_nano: int
    worst_cost_nano: int
    #: expected seconds, None while there is no history
    est_seconds: float | None
    reason: str
    policy: str
    alternatives: tuple[Alternative, ...] = ()
    #: probability with which the policy took this model (1: deterministic)
    propensity: float = 1.0
    #: of this model's own answer
    est_quality: float | None = None
    quality_sd: float | None = None
    #: with `cascade`: the model that is asked when the answer is in doubt, and what both together are
    #: expected to score and to cost (nano-dollars)
    then: str | None = None
    way_quality: float | None = None
    way_nano: int | None = None
    #: with `samples`: how often the model is asked
    samples: int = 1
    #: nano-dollars that one point of score (from all wrong to all right) was worth; None: not weighed
    point_nano: int | None = None
    #: it did not look best: it was tried to learn, which is expected to cost so much more (nano-dollars)
    explored: bool = False
    extra_nano: int = 0
    #: version of what was learned
    state: int | None = None
    #: tokens that are enough for nearly every answer of the model to such a prompt; None: not known
    enough_tokens: int | None = None
    #: with `template`: what is put into the prompt, and its tokens at most
    template: str = ""
    template_tokens: int = 0
    #: the decision as the pacer keeps it; not recorded
    entry: Entry | None = field(default=None, compare=False, repr=False)

    @property
    def expected_nano(self) -> int:
        """What the whole way is expected to cost."""
        return self.est_cost_nano if self.way_nano is None else self.way_nano


@dataclass(frozen=True, slots=True)
class Review:
    """What was found of an answer, and whether another model is to be asked."""

    checks: tuple[Check, ...] = ()
    #: probability that it is wrong, and what `then`'s answer is expected to bring (−1 … 1); None: not known
    wrong: float | None = None
    gain: float | None = None
    #: the model to ask; None: the answer is accepted
    then: str | None = None
    reason: str = ""
    #: a score that rules without doubt give, which is learned from; None: they give none
    score: float | None = None
