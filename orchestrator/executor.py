"""What an attempt of each kind of task does. No writes of task state here: the engine commits the outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..agents.loop import Limits, Tools, run_agent
from ..agents.memory_tools import MemoryTools
from ..agents.outputs import OutputType
from ..agents.structured import complete_structured
from ..memory import cache
from ..memory.chat import Message
from ..memory.content import content_hash
from ..memory.errors import PodiumError, TaskError, WaitingForPerson
from ..memory.names import in_workflow
from ..router.verifiers.contract import Check
from .caller import DEFAULT_MAX_TOKENS, Needs, RunContext, Services, TaskModel
from .checks import own_check
from .graph import embedded
from .placeholders import Ref, fill, refs, render
from .planning import check_planned, plan_workflow, planned_inputs
from .problems import WorkflowError
from .processes import PythonWorkers
from .prompting import Shown, context_of, shown_before
from .recall import TaskRecall
from .state import Node, Values, new_task
from .tasks import AgentTask, ApprovalTask, LlmTask, PlanTask, PythonTask, TaskBase, ToolTask, WhenTask
from .toolbox import TaskTools
from .turns import ATTEMPT_TIMEOUT
from .workflow import Workflow


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a successful attempt came to."""

    output: Any
    #: shown in the event, e.g. the agent's stop reason
    event: dict[str, Any] = field(default_factory=dict)
    #: the failure that this output stands for
    error: dict[str, Any] | None = None
    #: open tasks below the task, which end with it
    closed: Sequence[str] = ()
    #: under which the output is kept for other runs
    cache_key: str | None = None
    #: {workflow, inputs}: what is to run below a `plan` task
    plan: dict[str, Any] | None = None
    #: revisions that its prompt cited
    cited: Sequence[int] = ()


#: deaths of its process after which a task is not run again
QUARANTINE = 2


class Executor:
    """Runs attempts of leaf tasks: llm, agent, python, tool, approval, when."""

    def __init__(self, services: Services, workers: PythonWorkers) -> None:
        self._services, self._workers = services, workers
        self._kinds: dict[type, Callable[[RunContext, Values, Node, int], Awaitable[Outcome]]] = {
            LlmTask: self._llm,
            AgentTask: self._agent,
            PythonTask: self._python,
            ToolTask: self._tool,
            ApprovalTask: self._approval,
            WhenTask: self._when,
            PlanTask: self._plan,
        }

    async def run(self, run: RunContext, values: Values, node: Node, attempt: int) -> Outcome:
        """Run one attempt.

        Raises:
            TaskError: user code or a typed output failed.
            WaitingForPerson: an approval is needed.
            ProviderError, BudgetStopped, NoRoute: from the model calls.
        """
        outcome = await self._kinds[type(node.spec)](run, values, node, attempt)
        if node.spec.cache is not None:
            outcome = replace(outcome, cache_key=cache_key(run, node, values))
        return outcome

    def warm(self, run: RunContext, workflow: Workflow) -> None:
        """Start a process for the run's functions, if it has any, while other things are looked up."""
        tasks = [task for _, inner in embedded(workflow) for task in inner.tasks.values()]
        if any(_has_function(task) for task in tasks):
            self._workers.warm(run.project_root)

    async def cached(self, run: RunContext, values: Values, node: Node) -> Outcome | None:
        """The output that an earlier task of the same kind left for the same inputs."""
        key = cache_key(run, node, values)
        found = await self._services.read(partial(cache.find, tenant=run.tenant, key=key))
        if found is None:
            return None
        return Outcome(found.output, {"cached": {"run": found.run_id, "task": found.task}})

    async def _llm(self, run: RunContext, values: Values, node: Node, attempt: int) -> Outcome:
        spec = node.spec
        assert isinstance(spec, LlmTask)
        look = _lookup(values, node)
        prompt = render(spec.prompt, look)
        shown = await self._shown(run, node, attempt, prompt, look)
        messages = [Message("user", shown.before(prompt))]
        if spec.system:
            messages.insert(0, Message("system", render(spec.system, look)))
        needs = self._needs(run, node, "llm", spec.model, spec.check)
        model = TaskModel(self._services, run, node.name, attempt, needs, context=shown.record)
        options: dict[str, Any] = {"max_tokens": spec.max_tokens, "temperature": spec.temperature}
        if spec.output is None:
            answer = await model.complete(messages, **options)
            model.must_pass()
            event = {"model": answer.model, "finish": answer.finish_reason}
            return Outcome(answer.text.strip(), event, cited=shown.cited)
        value, answer = await complete_structured(model, messages, spec.output, **options)
        model.must_pass()
        return Outcome(value, {"model": answer.model}, cited=shown.cited)

    def _needs(
        self, run: RunContext, node: Node, kind: str, pinned: str | None, check: str | None = None
    ) -> Needs:
        """What a task asks of the router."""
        limit = ATTEMPT_TIMEOUT.get()

        async def ask(prompt: str, answer: str) -> Check:
            given = {"prompt": prompt, "answer": answer}
            assert check is not None
            label, seconds = f"run/{run.run_id}", node.spec.timeout
            said = await self._workers.call(run.project_root, check, given, seconds=seconds, label=label)
            return own_check(check, said)

        return Needs(
            kind,
            pinned,
            private=any(getattr(a.spec, "private", False) or a.scope.workflow.private for a in node.above()),
            weight=run.pacing.weight(node) if run.pacing is not None else 1.0,
            until=None if limit is None else limit.when(),
            check=None if check is None else ask,
        )

    async def _shown(
        self, run: RunContext, node: Node, attempt: int, prompt: str, look: Callable[[Ref], Any]
    ) -> Shown:
        """What of the task memory comes before the prompt."""
        wanted = context_of(node)
        if wanted is None:
            return Shown()
        ask = prompt if wanted.ask is None else render(wanted.ask, look)
        assert isinstance(node.spec, LlmTask | AgentTask)
        return await shown_before(self._services, run, node, attempt, ask, node.spec.model)

    async def _agent(self, run: RunContext, values: Values, node: Node, attempt: int) -> Outcome:
        spec = node.spec
        assert isinstance(spec, AgentTask)
        look = _lookup(values, node)
        goal = render(spec.agent, look)
        shown = await self._shown(run, node, attempt, goal, look)
        needs = self._needs(run, node, "agent", spec.model)
        model = TaskModel(self._services, run, node.name, attempt, needs, context=shown.record)
        specs = await self._workers.describe(run.project_root, spec.tools) if spec.tools else []
        tools: Tools = TaskTools(
            self._services, self._workers, run, node.name, attempt, specs, seconds=spec.timeout
        )
        recall = TaskRecall(self._services, run, node.name, attempt)
        if spec.memory:
            tools = MemoryTools(tools, recall)
        pool = self._services.pool.specs
        pinned = pool.get(spec.model or "")
        usable = [pinned] if pinned is not None else list(pool.values())
        limits = new_task(node.name, spec, "agent")
        result = await run_agent(
            shown.before(goal),
            profile=render(spec.profile, look),
            model=model,
            tools=tools,
            output=spec.output,
            limits=Limits(
                steps=spec.max_steps,
                tokens=spec.max_total_tokens,
                cost_nano=limits.limit_nano,
                # an answer is asked for while there is time to give it
                seconds=spec.timeout * 0.8,
            ),
            spent=lambda: model.spent_nano,
            max_tokens=spec.max_tokens,
            require_tool=spec.require_tool,
            # what is left of the context beside the answer
            context_tokens=max(256, min(m.context for m in usable) - (spec.max_tokens or DEFAULT_MAX_TOKENS)),
        )
        event = {"stop": result.stop_reason, "steps": len(result.steps)}
        return Outcome(result.output, event, cited=(*shown.cited, *sorted(recall.read)))

    async def _python(self, run: RunContext, values: Values, node: Node, attempt: int) -> Outcome:
        spec = node.spec
        assert isinstance(spec, PythonTask)
        arguments = fill(spec.with_, _lookup(values, node))
        # what was running in two engines that died may have killed them: the next time it has its own process
        if spec.inline and node.deaths < QUARANTINE:
            from ..agents.tools import call_tool, load_function

            function = load_function(spec.python)
            try:
                value = await call_tool(function, arguments)
            except PodiumError:
                raise
            except Exception as error:
                raise TaskError(
                    f"{spec.python} raised {type(error).__name__}: {error}", mend="mend the function"
                ) from error
        else:
            label = f"run/{run.run_id}"
            value = await self._workers.call(
                run.project_root, spec.python, arguments, seconds=spec.timeout, label=label
            )
        return Outcome(_typed(value, spec.output, spec.python))

    async def _tool(self, run: RunContext, values: Values, node: Node, attempt: int) -> Outcome:
        spec = node.spec
        assert isinstance(spec, ToolTask)
        (tool,) = await self._workers.describe(run.project_root, [spec.tool])
        tools = TaskTools(
            self._services, self._workers, run, node.name, attempt, [tool], seconds=spec.timeout
        )
        result = await tools.call(0, tool, fill(spec.with_, _lookup(values, node)))
        if result.error is not None:
            raise TaskError(result.error, retryable=False, mend="mend the tool, then `podium retry` the run")
        return Outcome(_typed(result.value, spec.output, spec.tool))

    async def _approval(self, run: RunContext, values: Values, node: Node, attempt: int) -> Outcome:
        spec = node.spec
        assert isinstance(spec, ApprovalTask)
        if node.approval == "rejected":
            comment = f": {node.approval_comment}" if node.approval_comment else ""
            raise TaskError(
                f"a person rejected it{comment}", retryable=False, mend="`podium retry` asks again"
            )
        if node.approval == "approved" or in_workflow(node.name) in run.preapproved:
            return Outcome({"approved": True, "comment": node.approval_comment or ""})
        question = render(spec.approval, _lookup(values, node))
        raise WaitingForPerson(question, key=node.name, run=run.run_id, task=node.name)

    async def _when(self, run: RunContext, values: Values, node: Node, attempt: int) -> Outcome:
        return Outcome(True)  # the engine has checked the condition before the attempt

    async def _plan(self, run: RunContext, values: Values, node: Node, attempt: int) -> Outcome:
        """Plan a workflow; it runs below the task, or is the output as data."""
        spec = node.spec
        assert isinstance(spec, PlanTask)
        look = _lookup(values, node)
        needs = self._needs(run, node, "plan", spec.plan.model)
        model = TaskModel(self._services, run, node.name, attempt, needs)
        goal, given = render(spec.plan.goal, look), fill(spec.with_, look)
        unknown = [tool.ref for tool in spec.plan.tools if not tool.description]
        tools = await self._workers.describe(run.project_root, unknown) if unknown else []
        found = await plan_workflow(spec.plan, goal, model, given, tools, failed=node.lessons)
        event = {"source": found["source"]}
        if not spec.plan.run:
            return Outcome(found, event)
        around = sum(isinstance(above.spec, PlanTask) for above in node.above())
        try:
            flow = check_planned(found["workflow"], spec.plan, given, depth=around)
        except WorkflowError as error:
            node.lessons.append(error.message)
            raise TaskError(error.message, mend="it is planned anew") from error
        inputs = planned_inputs(flow, goal, given)
        return Outcome(None, event, plan={"workflow": found["workflow"], "inputs": inputs})


def _has_function(task: TaskBase) -> bool:
    """Whether it runs a function of the project in a process of its own."""
    if isinstance(task, LlmTask):
        return task.check is not None
    return isinstance(task, ToolTask) or (isinstance(task, PythonTask) and not task.inline)


def cache_key(run: RunContext, node: Node, values: Values) -> str:
    """What the task is and what it got, as a hash. How often and how long it is tried does not count.

    A function or a tool is one of its project's: another folder may have another of that name.
    """
    spec = node.spec
    body = spec.model_dump(mode="json", exclude=set(TaskBase.model_fields))
    given = {str(ref): values.lookup(node, ref) for ref in refs(spec.templates())}
    code = isinstance(spec, PythonTask) or (isinstance(spec, AgentTask) and spec.tools)
    return content_hash([spec.body_kind, body, given, run.project_root if code else ""])


def _lookup(values: Values, node: Node) -> Callable[[Ref], Any]:
    return partial(values.lookup, node)


def _typed(value: Any, output: OutputType | None, what: str) -> Any:
    if output is None:
        return value
    try:
        return output.validate(value)
    except ValueError as error:
        raise TaskError(
            f"{what} returned something else than {output}: {error}",
            retryable=False,
            mend="mend the function's result or the task's `output`",
        ) from error
