"""Context assembly: which of the earlier steps' words a step is shown, within a budget of tokens.

Deterministic, without a model. A `Workspace` holds the steps of one run in the order in which they ended.
`Workspace.context` picks for one coming step, in order of value: the ports that it needs, the newest values
among its ancestors (superseded ones out), notes linked to them, and at last what other threads offer, where
an edge seems not to have been declared. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..errors import ConfigError
from .calls import words
from .digests import digest_tokens
from .nodes import meaning, node
from .pack import pack
from .plan import Plan, plan
from .render import Part, render
from .slots import Known, last_part
from .sources import Embed, unit
from .threads import Threads

#: characters of what was left out that `Dropped` tells, and how many steps of other branches it names
HEAD, AWAY = 80, 32


@dataclass(frozen=True, slots=True)
class Step:
    """What is known of a step that has ended (or of a note, or of an instruction)."""

    #: unique in the workspace
    id: str
    #: what it said, called or wrote; several lines are allowed
    text: str = ""
    #: ids of the declared parents (an unknown id is ignored)
    parents: tuple[str, ...] = ()
    #: typed outputs, (key, value), e.g. `("hotel.city", "Oslo")`; None: only the text is known
    writes: tuple[tuple[str, Any], ...] | None = None
    #: the revision that lines made from this step cite; None: they cite the step only
    revision: int | None = None
    #: an instruction of the workflow's author; False: content (of a model, a tool, a file) to be judged
    trusted: bool = False
    #: a note is no ancestor of anything: it is shown when a step that it is linked to is in view
    note: bool = False
    #: ids of the steps that a note is linked to
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """An input port that the coming step must see: a step's whole output, or one key of it."""

    step: str
    #: key as in `Fact.key` ("": the whole text)
    key: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of a context: some lines that come from one step."""

    text: str
    #: id of the step that it comes from, and the revision that it cites
    step: str
    revision: int | None
    #: "raw" (as written), "fact" (`key=value`) or "digest" (shortened)
    form: str
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Citation:
    """What a mark such as `[12]` in a context's text stands for."""

    #: the revision's id; 0: it has no revision, its mark in the text is a name (`[inputs]`)
    mark: int
    step: str
    revision: int | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was left out of a context, and why: superseded, budget, other branch or duplicate."""

    step: str
    revision: int | None
    reason: str
    #: first characters of what was left out
    text: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """An assembled context: `count(text) <= budget`, whatever the counter."""

    text: str
    #: one entry a shown piece, in the order of the text
    citations: tuple[Citation, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    #: what the text was made of, in its order
    pieces: tuple[Piece, ...] = ()


class Workspace:
    """The steps of one run, ready to be asked for contexts.

    Args:
        marks: each line ends in a short citation mark, `[12]` (the mark of a `Citation`: the revision's id,
            or the step's own where it has none, `[inputs]`: never a number).
        fenced: instructions and untrusted content are put into two sections apart.
        embed: texts -> one vector each (numpy rows); static vectors help to find sources that were not
            declared. Without it words alone are compared.
    """

    def __init__(self, *, marks: bool = False, fenced: bool = False, embed: Embed | None = None) -> None:
        self.marks, self.fenced, self._embed = marks, fenced, embed
        self._steps: dict[str, Step] = {}
        self._notes: list[Step] = []
        self._threads, self._known = Threads(), Known()
        self._plan: tuple[tuple, Plan] | None = None

    def add(self, step: Step) -> None:
        """Add a step that ended, or a note. Parents come before their children; an id is added once.

        Raises:
            ConfigError: a step with this id is there already.
        """
        if step.id in self._steps:
            raise ConfigError(
                f"step {step.id!r} is in the workspace already", mend="give every step its own id"
            )
        self._steps[step.id] = step
        self._plan = None
        if step.note:
            self._notes.append(step)
            return
        made = node(len(self._threads.nodes), step.id, step.text, step.writes)
        if self._embed is not None:
            made.vector = unit(self._embed([meaning(made)])[0])
        self._threads.add(made, step.parents)
        self._known.add(made)

    def context(
        self,
        step_id: str,
        parents: Sequence[str],
        ask: str,
        budget: int,
        count: Callable[[str], int],
        *,
        needed: Sequence[Need] = (),
    ) -> Context:
        """The context of a coming step. No side effects: the same arguments give the same context.

        Args:
            step_id: the coming step (it may be in the workspace already: it is not shown to itself).
            parents: its declared parents.
            ask: what it is about to do, e.g. `"Call Hotels.Reserve with city, date"`, or its prompt.
            budget: most tokens of the text.
            count: the target model's counter of tokens.
            needed: ports that come first, whole if they fit.
        """
        made = self._planned(step_id, tuple(parents), ask)
        nodes, sizes = self._threads.nodes, _Sizes(count, self._mark if self.marks else None)
        empty = (
            count(render([Part("", "", 0, True), Part("", "", 0)], False, self.fenced)) if self.fenced else 0
        )
        left, first, dropped = budget - empty, [], []
        for piece, slot in self._first(made, parents, needed):
            kept = self._fitted(piece, slot, left, sizes)
            if kept is None:
                dropped.append(Dropped(piece.step, piece.revision, "budget", piece.text[:HEAD]))
            else:
                left -= sizes.of(slot, kept.text, kept.step, True)
                first.append((kept, slot))
        shown = {p.step for p, slot in first if p.form == "raw"}
        trusted = {at for at, n in enumerate(nodes) if self._steps[n.id].trusted or n.id == step_id}
        packed = pack(made, nodes, left, lambda e, new: sizes.of(e.slot, e.text, nodes[e.at].id, new))
        chosen = [
            (self._piece(nodes[e.at].id, e.text, e.form), e.slot)
            for e in packed.shown
            if e.at not in trusted and (e.slot or nodes[e.at].id not in shown)
        ]
        dropped += [
            self._dropped(nodes[e.at].id, why, e.text) for e, why in packed.left_out if e.at not in trusted
        ]
        dropped += self._other_branches(made, trusted)
        return self._composed(made, first + chosen, dropped, budget, count)

    def _first(
        self, made: Plan, parents: Sequence[str], needed: Sequence[Need]
    ) -> Iterator[tuple[Piece, str]]:
        """What comes before anything is weighed: instructions, needed ports, notes on the nearest steps."""
        nodes = self._threads.nodes
        for n in nodes:
            step = self._steps[n.id]
            if step.trusted and (not n.parents or made.chance.get(n.at, 0.0) > 0.5):
                yield self._piece(n.id, step.text, "raw"), ""
        for need in needed:
            step = self._steps.get(need.step)
            if step is None:
                continue
            if not need.key:
                yield self._piece(step.id, step.text, "raw"), ""
                continue
            place = self._threads.place.get(step.id)
            typed = nodes[place].typed if place is not None else ()
            values = [v for k, v in typed if need.key in (k, last_part(k))]
            if values:
                yield self._piece(step.id, values[-1], "fact"), need.key
        near = {nodes[at].id for at in made.certain if made.chance.get(at, 0.0) > 0.5} | set(parents)
        for note in reversed(self._notes):
            if near.intersection(note.links):
                yield self._piece(note.id, note.text, "raw"), ""

    def _fitted(self, piece: Piece, slot: str, left: int, sizes: _Sizes) -> Piece | None:
        """A piece whole if it fits, else shortened, None if not even that fits."""
        if sizes.of(slot, piece.text, piece.step, True) <= left:
            return piece
        if slot or self._steps[piece.step].trusted:
            return None
        short = digest_tokens(piece.text, left, lambda t: sizes.of("", t, piece.step, True))
        return Piece(short, piece.step, piece.revision, "digest", piece.trusted) if short else None

    def _composed(
        self,
        made: Plan,
        chosen: list[tuple[Piece, str]],
        dropped: list[Dropped],
        budget: int,
        count: Callable[[str], int],
    ) -> Context:
        """The text; while it is over the budget, what was chosen last goes (a counter need not add up)."""
        while True:
            parts = [self._part(made, piece, slot) for piece, slot in chosen]
            text = render(parts, self.marks, self.fenced) if chosen else ""
            if count(text) <= budget or not chosen:
                break
            piece, _ = chosen.pop()
            dropped.insert(0, Dropped(piece.step, piece.revision, "budget", piece.text[:HEAD]))
        if count(text) > budget:
            return Context("", (), tuple(dropped))
        cited = tuple(Citation(p.revision or 0, p.step, p.revision) for p, _ in chosen)
        return Context(text, cited, tuple(dropped), tuple(p for p, _ in chosen))

    def _part(self, made: Plan, piece: Piece, slot: str) -> Part:
        between = " " if made.many.get(slot, 1) > 1 else "|"
        return Part(slot, piece.text, self._mark(piece.step), piece.trusted, between)

    def _mark(self, step_id: str) -> int | str:
        step = self._steps[step_id]
        if step.revision is not None:
            return step.revision
        name = "".join(c if c.isalnum() or c in "._-:/" else "_" for c in step_id)
        return f"step_{name}" if not name or name.isdigit() else name

    def _piece(self, step_id: str, text: str, form: str) -> Piece:
        step = self._steps[step_id]
        return Piece(text, step_id, step.revision, form, step.trusted)

    def _dropped(self, step_id: str, why: str, text: str) -> Dropped:
        return Dropped(step_id, self._steps[step_id].revision, why, text[:HEAD])

    def _other_branches(self, made: Plan, trusted: set[int]) -> list[Dropped]:
        nodes = self._threads.nodes
        away = (n for n in reversed(nodes) if n.at not in made.chance and n.at not in trusted)
        return [self._dropped(n.id, "other branch", n.text) for n in islice(away, AWAY)]

    def _planned(self, step_id: str, parents: tuple[str, ...], ask: str) -> Plan:
        """The plan of an ask, kept for the next budget."""
        key = (step_id, parents, ask)
        if self._plan is None or self._plan[0] != key:
            vector = unit(self._embed([" ".join(words(ask))])[0]) if self._embed is not None else None
            self._plan = key, plan(self._threads, self._known, parents, ask, vector)
        return self._plan[1]


class _Sizes:
    """Tokens of pieces as they will be rendered; each text is counted once."""

    def __init__(self, count: Callable[[str], int], mark: Callable[[str], int | str] | None) -> None:
        self._count, self._mark, self._seen = count, mark, {}

    def of(self, slot: str, text: str, step: str, new: bool) -> int:
        """Tokens that a piece adds; `new`: it is the first value of its argument, which is then named."""
        shown = f"|{text}" if slot and not new else f"{slot}: {text}" if slot else f"{text}\n"
        if self._mark is not None:
            mark = f" [{self._mark(step)}]"
            shown = shown + mark if slot else "\n".join(line + mark for line in text.split("\n"))
        size = self._seen.get(shown)
        if size is None:
            size = self._seen[shown] = self._count(shown)
        return size
