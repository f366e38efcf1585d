"""References and types of a workflow: does everything that is named exist, and does it fit where it is used?

Pure and total: whatever the workflow, the answer is Problems. The graph's own questions are in `graph`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..agents.outputs import ANY, BOOL, STR, OutputType, list_of, nearest, record
from ..memory.errors import UsageError
from .parts import GOAL, Compensation, When
from .placeholders import ITEM, Ref, TemplateError, refs, sole_ref
from .problems import Lines, Path, Problem, did_you_mean, problem_at
from .signatures import Signature
from .structure import name_problem
from .tasks import CACHEABLE, MAPPABLE, UNDOABLE, PlanTask, PythonTask, TaskBase, ToolTask, callable_name
from .when_check import when_problem
from .workflow import LoopTask, Workflow, task_sources, workflow_path, workflow_task

_TEMPLATE_KEYS = ("prompt", "system", "agent", "profile", "approval", "with_")
_NO_CACHE = {
    "tool": "remove cache: a call that was made is recorded anyway",
    "approval": "remove cache: a person is asked each time",
    "when": "remove cache: a condition costs nothing",
}


@dataclass(slots=True)
class Checker:
    """One workflow, at its place in the data that holds it."""

    workflow: Workflow
    at: Path = ()
    lines: Lines | None = None
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    _types: dict[str, OutputType] = field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        """Every reference that dangles and every type that does not fit, embedded workflows included."""
        flow = self.workflow
        for name in flow.inputs:
            yield from self._input(name)
        for name, task in flow.tasks.items():
            yield from self._task(name, task)
        for name, text in flow.outputs.items():
            yield from self._ref(("outputs", name), text, None, written=text)

    def type_of(self, name: str) -> OutputType | None:
        """The type of an input's or a task's value; None: there is neither."""
        if name in self.workflow.inputs:
            return self.workflow.inputs[name].type
        if name not in self.workflow.tasks:
            return None
        if name not in self._types:
            self._types[name] = ANY  # for as long as it is being found out: an embedded type may ask again
            task = self.workflow.tasks[name]
            one = self._one_type(name, task)
            if task.on_failure == "collect":
                one = ANY  # {"error": …} may stand in its place
            self._types[name] = list_of(one) if task.map is not None else one
        return self._types[name]

    def outputs_type(self) -> OutputType:
        """The object of the workflow's outputs."""
        try:
            found = self.workflow.output_refs()
        except TemplateError:
            return ANY
        types = [
            (name, (self.type_of(ref.name) or ANY).field(ref.path) or ANY) for name, ref in found.items()
        ]
        return record(types) if types else ANY

    def _one_type(self, name: str, task: TaskBase) -> OutputType:
        if task.output_type is not None:
            return task.output_type
        inner = self._inner(name, task)
        if inner is not None:
            return inner.outputs_type()
        if isinstance(task, PythonTask | ToolTask):
            signature = self.signatures.get(callable_name(task))
            return signature.returns if signature and signature.returns else ANY
        return {"llm": STR, "agent": STR, "when": BOOL}.get(task.body_kind, ANY)

    def _inner(self, name: str, task: TaskBase) -> Checker | None:
        flow = workflow_task(task)
        at = (*self.at, "tasks", name, *workflow_path(task))
        return None if flow is None else Checker(flow, at, self.lines, self.signatures)

    def _say(self, path: Path, message: str, mend: str) -> Problem:
        return problem_at((*self.at, *path), self.lines, message, mend)

    def _input(self, name: str) -> Iterator[Problem]:
        declared = self.workflow.inputs[name]
        if name in self.workflow.tasks:
            message = f"{name} is both an input and a task"
            yield self._say(("tasks", name), message, "rename one of them")
        if declared.required:
            return
        try:
            declared.type.validate(declared.default)
        except ValueError as error:
            yield self._say(
                ("inputs", name), f"the default of {name}: {error}", f"give a value of type {declared.type}"
            )
        for task_name, task in self.workflow.tasks.items():
            if task.map == name and declared.default == []:
                message = f"the default of {name} is a map over an empty list"
                yield self._say(("tasks", task_name, "map"), message, f"leave the default of {name} out")

    def _task(self, name: str, task: TaskBase) -> Iterator[Problem]:
        at: Path = ("tasks", name)
        if task.map is not None:
            yield from self._map(name, task)
        if task.when is not None:
            yield from self._when(name, task, task.when)
        for src in task.needs:
            if src not in self.workflow.tasks:
                yield self._say((*at, "needs"), *self._dangling_need(src))
        for key in _TEMPLATE_KEYS:
            tree = getattr(task, key, None)
            if tree:
                yield from self._template((*at, key.rstrip("_")), tree, task)
        if task.cache is not None and task.body_kind not in CACHEABLE:
            mend = _NO_CACHE.get(task.body_kind, "put cache: on the tasks inside it")
            yield self._say((*at, "cache"), f"a task of kind {task.body_kind} cannot be cached", mend)
        if task.compensate is not None:
            yield from self._compensate(name, task, task.compensate)
        inner = self._inner(name, task)
        if inner is not None:
            yield from self._workflow(name, task, inner)
        if isinstance(task, LoopTask) and inner is not None:
            yield from self._loop(name, task, inner)
        elif isinstance(task, PlanTask):
            yield from self._plan(at, task)
        elif isinstance(task, PythonTask | ToolTask):
            yield from self._call(at, callable_name(task), task.with_, task)
            yield from self._returns(at, task)

    def _dangling_need(self, src: str) -> tuple[str, str]:
        if src in self.workflow.inputs:
            return f"needs names the input {src}", "remove it: inputs are always there"
        return f"needs {src!r}, and there is no such task", did_you_mean(src, self.workflow.tasks)

    def _map(self, name: str, task: TaskBase) -> Iterator[Problem]:
        at: Path = ("tasks", name, "map")
        if task.body_kind not in MAPPABLE:
            holds = task.body_kind in ("loop", "plan")
            mend = "put it into a workflow, and map that workflow" if holds else "remove map"
            yield self._say(at, f"a task of kind {task.body_kind} cannot be mapped", mend)
        wrong = list(self._ref(at, str(task.map), None, written=str(task.map)))
        yield from wrong
        found = self._found(Ref.parse(str(task.map)), None)
        if not wrong and found is not None and found.item() is None:
            source = Ref.parse(str(task.map)).name
            where = f"declare output: list[{found}] for {source}" if source in self.workflow.tasks else ""
            where = where or f"declare the input {source} as list[{found}]"
            yield self._say(at, f"maps {task.map}, which is {found} and no list", where)

    def _found(self, ref: Ref, task: TaskBase | None) -> OutputType | None:
        """The type that `ref` reads, as seen from inside `task`; None: it dangles."""
        if ref.name == ITEM and task is not None and task.map is not None:
            source = self._found(Ref.parse(task.map), None)
            kind = (source.item() if source else None) or ANY
        else:
            kind = self.type_of(ref.name)
        return None if kind is None else kind.field(ref.path)

    def _ref(self, path: Path, text: str, task: TaskBase | None, *, written: str) -> Iterator[Problem]:
        """What is wrong with reading `text`, which stands at `path` and looks like `written`."""
        ref = Ref.parse(text)
        if self._found(ref, task) is not None:
            return
        mapped = task is not None and task.map is not None
        whole = self._found(Ref(ref.name), task)
        if whole is None and ref.name == ITEM:
            message = f"nothing fills {written}: the task maps nothing"
            yield self._say(path, message, "add map: with the list, or double the braces")
        elif whole is None:
            names = [*self.workflow.inputs, *self.workflow.tasks, *([ITEM] if mapped else [])]
            near = nearest(ref.name, names)
            better = written.replace(ref.name, near, 1) if near else ""
            mend = f"did you mean {better}?" if near else "declare it under inputs:, or name a task"
            yield self._say(path, f"nothing fills {written}: no input or task has this name", mend)
        else:
            yield self._say(path, *self._no_field(ref, whole, written))

    def _no_field(self, ref: Ref, whole: OutputType, written: str) -> tuple[str, str]:
        kind, depth = whole, 0
        while depth < len(ref.path) and (inner := kind.field(ref.path[depth : depth + 1])) is not None:
            kind, depth = inner, depth + 1
        owner, wanted = ".".join((ref.name, *ref.path[:depth])), ref.path[depth]
        if kind.field_names():
            near = nearest(wanted, kind.field_names())
            fixed = written.replace(f"{owner}.{wanted}", f"{owner}.{near}") if near else ""
            mend = f"did you mean {fixed}?" if near else f"its fields are: {', '.join(kind.field_names())}"
            return f"{written}: {owner} has no field {wanted!r}", mend
        message = f"{written}: {owner} is {kind} and has no fields"
        if kind.item() is not None:
            return message, f"map over {owner} and read {{item.{wanted}}}"
        what = f"declare it as {{{wanted}: str}}" if depth == 0 else "read it whole"
        return message, f"{what}, or write {written.replace(f'{owner}.{wanted}', owner)}"

    def _template(self, path: Path, tree: Any, task: TaskBase) -> Iterator[Problem]:
        if isinstance(tree, Mapping):
            for key, value in tree.items():
                if isinstance(value, Mapping) and len(value) == 1 and list(value.values()) == [None]:
                    message = f"{key} is a mapping: YAML reads a bare {{name}} as one"
                    yield self._say(
                        (*path, key), message, f'put it in quotes: {key}: "{{{next(iter(value))}}}"'
                    )
                else:
                    yield from self._template((*path, key), value, task)
            return
        try:
            found = refs(tree)
        except TemplateError as error:
            yield self._say(path, error.message, error.mend)
            return
        for ref in found:
            yield from self._ref(path, str(ref), task, written=f"{{{ref}}}")

    def _when(self, name: str, task: TaskBase, when: When) -> Iterator[Problem]:
        at: Path = ("tasks", name, "when")
        wrong = list(self._ref((*at, "field"), when.field, task, written=when.field))
        yield from wrong
        kind = self._found(Ref.parse(when.field), task)
        if wrong or kind is None:
            return
        found = when_problem(when, kind)
        if found:
            yield self._say(at, *found)

    def _workflow(self, name: str, task: TaskBase, inner: Checker) -> Iterator[Problem]:
        """The workflow in a task, and whether `with` fills its inputs."""
        flow, given = inner.workflow, getattr(task, "with_", {})
        yield from inner.problems()
        for key in given:
            if key not in flow.inputs:
                message = f"the workflow {flow.name} has no input {key!r}"
                yield self._say(("tasks", name, "with", key), message, did_you_mean(key, flow.inputs))
        for key, declared in flow.inputs.items():
            if key in given:
                yield from self._fits(("tasks", name, "with", key), key, declared.type, given[key], task)
            elif declared.required:
                message = f"the input {key} of the workflow {flow.name} is not filled"
                yield self._say(("tasks", name), message, f'add it under with: {key}: "{{…}}"')

    def _loop(self, name: str, task: LoopTask, inner: Checker) -> Iterator[Problem]:
        """What an iteration hands to the next, and the question that ends the loop."""
        at: Path = ("tasks", name, "loop")
        flow, until = task.loop.workflow, task.loop.until
        try:
            outputs = flow.output_refs()
        except TemplateError:
            return  # reported where it stands
        for key in outputs:
            declared = flow.inputs.get(key)
            found = inner._found(outputs[key], None)
            if declared is not None and found is not None and not declared.type.accepts(found):
                message = (
                    f"the output {key} is {found}, and the next iteration's input {key} is {declared.type}"
                )
                mend = f"make the output {key} {declared.type}, or rename it"
                yield self._say((*at, "workflow", "outputs", key), message, mend)
        asked = Ref.parse(until.field)
        if asked.name not in outputs:
            message = f"until asks for {asked.name!r}, which is no output of the workflow {flow.name}"
            yield self._say((*at, "until", "field"), message, did_you_mean(asked.name, outputs))
            return
        whole = inner._found(outputs[asked.name], None)
        kind = whole.field(asked.path) if whole is not None else None
        if whole is not None and kind is None:
            yield self._say((*at, "until", "field"), *self._no_field(asked, whole, until.field))
        wrong = when_problem(until, kind) if kind is not None else None
        if wrong:
            yield self._say((*at, "until"), *wrong)

    def _plan(self, at: Path, task: PlanTask) -> Iterator[Problem]:
        yield from self._template((*at, "plan", "goal"), task.plan.goal, task)
        for key in task.with_:
            wrong = name_problem(key)
            if key == GOAL:
                wrong = "a planned workflow has its goal as the input goal", "give this value another name"
            if wrong:
                yield self._say((*at, "with", key), *wrong)

    def _compensate(self, name: str, task: TaskBase, undo: Compensation) -> Iterator[Problem]:
        at: Path = ("tasks", name, "compensate")
        if task.map is not None or task.body_kind not in UNDOABLE:
            what = "map" if task.map is not None else f"task of kind {task.body_kind}"
            mend = (
                "remove compensate: a condition changes nothing"
                if task.body_kind == "when"
                else "put compensate: on the tasks of a workflow in it"
            )
            yield self._say(at, f"a {what} cannot be compensated", mend)
            return
        yield from self._template((*at, "with"), undo.with_, task)
        yield from self._call(at, undo.python, undo.with_, task)
        try:
            read = refs(undo.with_)
        except TemplateError:
            return
        for ref in read:
            if ref.name != name and ref.name in self.workflow.tasks and not self._is_before(ref.name, task):
                message = f"{{{ref}}} may not be there yet: {ref.name} does not come before {name}"
                after = self._is_before(name, self.workflow.tasks[ref.name])
                mend = f"read {{{name}}} or an input" if after else f"add needs: {ref.name}"
                yield self._say((*at, "with"), message, mend)

    def _is_before(self, name: str, task: TaskBase) -> bool:
        """Whether the task `name` is done, or skipped, whenever `task` starts."""
        seen, todo = set[str](), [task]
        while todo:
            found = task_sources(todo.pop())
            if name in found:
                return True
            todo += [self.workflow.tasks[n] for n in found - seen if n in self.workflow.tasks]
            seen |= found
        return False

    def _call(self, at: Path, called: str, given: Mapping[str, Any], task: TaskBase) -> Iterator[Problem]:
        """Whether `given`, the `with` at `at`, fills the parameters of the function `called`."""
        signature = self.signatures.get(called)
        if signature is None or signature.error:
            return  # a reference that cannot be imported is reported by `graph`, once
        known = {parameter.name: parameter for parameter in signature.parameters}
        for key, value in given.items():
            if key in known:
                yield from self._fits((*at, "with", key), key, known[key].type or ANY, value, task)
            elif not signature.takes_any:
                message = f"{called} has no parameter {key!r}"
                yield self._say((*at, "with", key), message, did_you_mean(key, known))
        for parameter in signature.parameters:
            if parameter.required and parameter.name not in given:
                message = f"the parameter {parameter.name} of {called} is not filled"
                yield self._say(at, message, f'add it under with: {parameter.name}: "{{…}}"')

    def _returns(self, at: Path, task: PythonTask | ToolTask) -> Iterator[Problem]:
        signature = self.signatures.get(callable_name(task))
        if signature is None or task.output is None or not signature.returns:
            return
        if not task.output.accepts(signature.returns):
            message = f"declares output {task.output}, and {callable_name(task)} returns {signature.returns}"
            yield self._say((*at, "output"), message, f"write output: {signature.returns}")

    def _fits(self, path: Path, key: str, wanted: OutputType, tree: Any, task: TaskBase) -> Iterator[Problem]:
        """Problems of filling something of type `wanted` with a tree of literals and placeholders."""
        try:
            named = refs(tree)
            only = sole_ref(tree) if isinstance(tree, str) else None
        except TemplateError:
            return
        if only is not None:
            found = self._found(only, task)
            if found is not None and not wanted.accepts(found):
                message = f"{key} takes {wanted}, and {{{only}}} is {found}"
                yield self._say(path, message, f"make the output of {only.name} {wanted}, or change {key}")
        elif not named:
            try:
                wanted.validate(_unescaped(tree))
            except ValueError as error:
                yield self._say(path, f"{key} takes {wanted}: {error}", f"give a value of type {wanted}")
        elif isinstance(tree, str) and not wanted.accepts(STR):
            message = f"{key} takes {wanted}, and a text around placeholders is a str"
            yield self._say(path, message, f'give the placeholder alone: "{{{named[0]}}}"')
        elif isinstance(tree, list | Mapping):
            yield from self._parts_fit(path, key, wanted, tree, task)

    def _parts_fit(
        self, path: Path, key: str, wanted: OutputType, tree: Any, task: TaskBase
    ) -> Iterator[Problem]:
        wanted = wanted.inner if wanted.kind == "optional" and wanted.inner else wanted
        parts = list(tree.items()) if isinstance(tree, Mapping) else list(enumerate(tree))
        for name, value in parts:
            kind = wanted.field([str(name)]) if isinstance(tree, Mapping) else wanted.item()
            if kind is None:
                yield self._say(
                    path, f"{key} takes {wanted}, this is {tree!r:.60}", f"give a value of type {wanted}"
                )
                return
            yield from self._fits((*path, name), f"{key}.{name}", kind, value, task)


def _unescaped(tree: Any) -> Any:
    """A tree without placeholders as it will be filled: doubled braces single."""
    from .placeholders import fill

    try:
        return fill(tree, lambda ref: None)
    except UsageError:
        return tree
