"""Self-made dialogues of tasks, to fit the weights of context assembly on: no row of a public split is used.

Branches of one run speak in turn, each about services of its own; someone asks, is asked back, changes his
mind, confirms. `python -m benchmarks.dialogues FILE.jsonl.gz [WORKFLOWS] [BRANCHES] [SEED]` writes runs in
the referee's format (`context.py`). The same seed gives the same runs.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.dialogue_words import (
    ANSWERS,
    ASIDES,
    BYE,
    CHANGED,
    CLOSE,
    DONE,
    ENDINGS,
    FAILED,
    MONTHS,
    MORE,
    NUMBERS,
    OPENING,
    SERVICES,
    SOUNDS,
    SURE,
    THERE,
    WORDS,
)


@dataclass(slots=True)
class Argument:
    """An argument of a service's calls."""

    name: str
    kind: str
    phrases: Sequence[str]
    questions: Sequence[str]
    late: bool


@dataclass(slots=True)
class Service:
    """A search and a commitment with their arguments."""

    name: str
    search: str
    commit: str
    row: str
    noun: str
    arguments: list[Argument] = field(default_factory=list)


@dataclass(slots=True)
class Value:
    """A value: as calls write it, as people say it (several ways)."""

    canon: str
    said: Sequence[str]

    @property
    def forms(self) -> list[str]:
        return list(dict.fromkeys([self.canon, *self.said]))


def services() -> list[Service]:
    """`SERVICES`, parsed."""
    found: list[Service] = []
    for line in SERVICES.strip().split("\n"):
        parts = line.split("|")
        if len(parts) == 5:
            name, search, commit, row, noun = parts
            found.append(Service(name, search, commit, row, noun))
            continue
        name, kind = parts[0].lstrip("*").split(",")
        late = parts[0].startswith("*")
        found[-1].arguments.append(Argument(name, kind, parts[1].split(";"), parts[2].split(";"), late))
    return found


class Draw:
    """Random values of each kind."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def name(self) -> str:
        return "".join(self.dice.choices(SOUNDS, k=self.dice.choice([2, 2, 3]))).capitalize()

    def value(self, kind: str) -> Value:
        """One value; dates and times are spoken in several forms."""
        dice = self.dice
        if kind == "date":
            month, day = dice.randint(1, 12), dice.randint(1, 28)
            end = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day not in (11, 12, 13) else 0, "th")
            said = [f"{MONTHS[month - 1]} {day}{end}", f"the {day}{end} of {MONTHS[month - 1]}"]
            return Value(f"2031-{month:02}-{day:02}", [dice.choice(said), said[0]])
        if kind == "time":
            hour, minute = dice.randint(1, 12), dice.choice([0, 15, 30, 45])
            late = hour % 12 + 12 * (dice.random() < 0.6)
            half = "pm" if late >= 12 else "am"
            said = [
                f"{hour}:{minute:02} {half}",
                f"{hour} {half}" if not minute else f"{hour}:{minute:02} {half}",
            ]
            return Value(f"{late:02}:{minute:02}", [dice.choice(said), said[0]])
        if kind == "number":
            number = dice.choice([dice.randint(2, 9), dice.randint(10, 40)])
            return Value(
                str(number), [NUMBERS[number] if number < 10 and dice.random() < 0.5 else str(number)]
            )
        if kind == "code":
            code = f"{dice.choice(SOUNDS)}-{dice.randint(10, 999)}"
            return Value(code, [code])
        if kind in WORDS:
            text = dice.choice(WORDS[kind].split(","))
            return Value(text.capitalize() if dice.random() < 0.5 else text, [text, text])
        name = self.name() if kind == "town" else f"{self.name()} {self.name()}"
        if kind == "town" and dice.random() < 0.3:
            name = f"{dice.choice(['Port', 'New', 'San', 'Upper'])} {name}"
        return Value(name, [name.lower() if dice.random() < 0.05 else name])


class Branch:
    """One dialogue, made step by step: `steps` are (text, ask, needs, stale)."""

    def __init__(self, draw: Draw, listed: list[Service]) -> None:
        self.draw, self.dice, self.listed = draw, draw.dice, listed
        self.steps: list[tuple[str, str, list[dict], list[dict]]] = []
        #: number of a call's step -> argument -> every form of every value that it had so far
        self.had: dict[int, dict[str, list[str]]] = {}
        #: "Service.argument" -> its values so far, the newest last
        self.told: dict[str, list[Value]] = {}
        self.kinds: dict[str, Value] = {}

    def say(self, role: str, text: str) -> None:
        text = text[:1].upper() + text[1:]
        if self.dice.random() < 0.3:
            aside = self.aside(role)
            text = f"{text} {aside}" if self.dice.random() < 0.7 or role == "SYSTEM" else f"{aside} {text}"
        self.steps.append((f"{role}: {text}", "", [], []))

    def aside(self, role: str) -> str:
        """Something that has nothing to do with any argument."""
        kinds = ("number", "person", "town", "goods", "time", "date")
        return self.dice.choice(ASIDES[role]).format(**{k: self.draw.value(k).said[0] for k in kinds})

    def chat(self) -> None:
        """A question about something else and its answer."""
        if self.dice.random() < 0.3:
            self.user(self.aside("USER"))
            self.system(self.aside("SYSTEM"))

    def user(self, text: str) -> None:
        self.say("USER", text)

    def system(self, text: str) -> None:
        self.say("SYSTEM", text)

    def phrase(self, service: Service, argument: Argument, *, again: bool = False) -> str:
        """The argument's value in words; a new one (`again`: even where it has one)."""
        key = f"{service.name}.{argument.name}"
        if again or key not in self.told:
            old = self.kinds.get(argument.kind)
            carried = old is not None and not again and self.dice.random() < 0.25
            value = old if carried and old is not None else self.draw.value(argument.kind)
            self.told.setdefault(key, []).append(value)
            self.kinds[argument.kind] = value
            if carried and argument.kind in THERE and self.dice.random() < 0.6:
                return self.dice.choice(THERE[argument.kind])
        return self.dice.choice(argument.phrases).format(self.dice.choice(self.told[key][-1].said))

    def known(self, service: Service, argument: Argument) -> bool:
        return f"{service.name}.{argument.name}" in self.told

    def call(
        self, service: Service, name: str, wanted: list[Argument], extra: dict[str, Value], result: Any
    ) -> None:
        """A call with what it needs and what was superseded before."""
        needs, stale, pairs = [], [], []
        for argument in wanted:
            listed = self.told[f"{service.name}.{argument.name}"]
            self._need(needs, stale, f"{service.name}.{argument.name}", listed)
            pairs.append((argument.name, listed[-1].canon))
        for key, value in extra.items():
            self._need(needs, stale, f"{service.name}.{key}", self.told[f"{service.name}.{key}"])
            pairs.append((key, value.canon))
        self.dice.shuffle(pairs)
        inside = ", ".join(f"{k}={v}" for k, v in pairs)
        ask = f"Call {service.name}.{name} with {', '.join(k for k, _ in pairs)}"
        self.had[len(self.steps)] = {
            k: [f for v in self.told[f"{service.name}.{k}"] for f in v.forms] for k, _ in pairs
        }
        text = f"CALL {service.name}.{name}({inside}) -> {json.dumps(result)}"
        self.steps.append((text, ask, needs, stale))

    @staticmethod
    def _need(needs: list[dict], stale: list[dict], key: str, listed: list[Value]) -> None:
        now = listed[-1].forms
        old = list(dict.fromkeys(f for v in listed[:-1] for f in v.forms))
        old = [f for f in old if not any(f.lower() in n.lower() or n.lower() in f.lower() for n in now)]
        if min(map(len, now)) > 2:
            needs.append({"key": key, "values": now, "source": ""})
            if old:
                stale.append({"key": key, "values": old, "source": ""})

    def rows(self, service: Service, count: int) -> list[dict[str, str]]:
        """Rows of a result: a name, the arguments asked for, a date and a price."""
        found = []
        for _ in range(count):
            row = {service.row: f"{self.draw.name()} {self.dice.choice(ENDINGS)}"}
            for argument in service.arguments:
                listed = self.told.get(f"{service.name}.{argument.name}")
                if listed and self.dice.random() < 0.7:
                    row[argument.name] = listed[-1].canon
                elif argument.late and self.dice.random() < 0.3:
                    row[argument.name] = self.draw.value(argument.kind).canon
            row["price"] = str(self.dice.randint(5, 400))
            row["address"] = f"{self.dice.randint(1, 99)} {self.draw.name()} Road"
            found.append(row)
        return found

    def ask_for(self, service: Service, missing: list[Argument]) -> None:
        """The system asks for what is missing, one or two at a time; answers are sometimes corrected."""
        while missing:
            some = missing[: self.dice.choice([1, 1, 1, 2])]
            missing = missing[len(some) :]
            self.system(" ".join(self.dice.choice(a.questions) for a in some))
            told = " and ".join(self.phrase(service, a) for a in some)
            if len(some) == 1 and self.dice.random() < 0.35:
                told = self.dice.choice(self.told[f"{service.name}.{some[0].name}"][-1].said)
            self.user(self.dice.choice(ANSWERS).format(told))
            if self.dice.random() < 0.08:
                self.system(self.dice.choice(["Okay, noted.", "Just a moment.", "Let me see."]))
                self.user(self.dice.choice(CHANGED).format(self.phrase(service, some[0], again=True)))

    def serve(self, service: Service) -> None:
        """One service from the wish to the commitment."""
        early = [a for a in service.arguments if not a.late]
        self.dice.shuffle(early)
        opened = early[: self.dice.randint(0, len(early))]
        words = " ".join([service.noun, *(self.phrase(service, a) for a in opened)])
        self.user(self.dice.choice(OPENING).format(words) + self.dice.choice([".", " please.", "."]))
        self.ask_for(service, [a for a in early if not self.known(service, a)])
        self.search(service, early)
        if self.dice.random() < 0.75:
            self.commit(service, early)

    def search(self, service: Service, early: list[Argument]) -> None:
        """Search, offer, and perhaps search again with something changed."""
        while True:
            rows = self.rows(service, self.dice.choice([0, 1, 2, 3, 3]))
            self.call(service, service.search, early, {}, rows)
            if rows:
                break
            self.system(
                self.dice.choice(["I found nothing like that. ", *[f + " " for f in FAILED]])
                + "Should I try something else?"
            )
            changed = self.dice.choice(early)
            self.user(self.dice.choice(CHANGED).format(self.phrase(service, changed, again=True)))
        for at, row in enumerate(rows):
            name = row[service.row]
            self.told.setdefault(f"{service.name}.{service.row}", []).append(Value(name, [name]))
            self.system(
                self.dice.choice(
                    [
                        "How about {}?",
                        "I found {}. Shall I take it?",
                        f"There is {{}} at ${row['price']}.",
                        "{} is free, would you like that?",
                    ]
                ).format(name)
            )
            if self.dice.random() < 0.25:
                self.user("What is the address?" if self.dice.random() < 0.5 else "How much does it cost?")
                self.system(f"It is at {row['address']} and costs ${row['price']}.")
            if at == len(rows) - 1 or self.dice.random() < 0.6:
                break
            self.user(
                self.dice.choice(
                    ["What else do you have?", "Is there another one?", "No, show me something else."]
                )
            )
        self.chat()
        self.user(self.dice.choice(SURE))

    def commit(self, service: Service, early: list[Argument]) -> None:
        """Ask for the rest, confirm (and be corrected), call, perhaps fail and try again."""
        late = [a for a in service.arguments if a.late]
        self.ask_for(service, [a for a in late if not self.known(service, a)])
        wanted = [a for a in early if self.dice.random() < 0.5] + late
        name = self.told[f"{service.name}.{service.row}"][-1]
        for attempt in range(3):
            said = ", ".join(self.phrase(service, a) for a in wanted)
            self.system(
                self.dice.choice(
                    ["Please confirm: {} {}.", "So that is {} {}, right?", "You want {} {}. Is this correct?"]
                ).format(name.canon, said)
            )
            if self.dice.random() < 0.25 and attempt < 2:
                self.user(
                    self.dice.choice(CHANGED).format(
                        self.phrase(service, self.dice.choice(wanted), again=True)
                    )
                )
                continue
            self.user(self.dice.choice(SURE))
            self.call(
                service,
                service.commit,
                wanted,
                {service.row: name},
                self.rows(service, 1)[0] | {service.row: name.canon},
            )
            if self.dice.random() < 0.8 or attempt == 2:
                self.system(
                    self.dice.choice(DONE)
                    + (" " + self.dice.choice(MORE) if self.dice.random() < 0.5 else "")
                )
                return
            other = self.phrase(service, self.dice.choice(late), again=True)
            self.system(f"{self.dice.choice(FAILED)} What about {other}?")
            self.user(self.dice.choice(SURE))
            self.call(
                service,
                service.commit,
                wanted,
                {service.row: name},
                self.rows(service, 1)[0] | {service.row: name.canon},
            )
            self.system(self.dice.choice(DONE))
            return

    def whole(self) -> Branch:
        """One to three services, and the end."""
        for at, service in enumerate(self.dice.sample(self.listed, self.dice.choice([1, 2, 2, 3]))):
            if at and self.steps[-1][0].startswith("USER"):
                self.system(self.dice.choice(MORE))
            self.serve(service)
            self.chat()
        self.user(self.dice.choice(BYE))
        self.system(self.dice.choice(CLOSE))
        return self


def run(seed: int, branches: int) -> dict[str, Any]:
    """One run of interleaved branches in the referee's format."""
    draw = Draw(seed)
    listed = services()
    made = [Branch(draw, listed).whole() for _ in range(branches)]
    steps: list[dict[str, Any]] = []
    last: dict[int, str] = {}
    left = {n: [(*step, b.had.get(at)) for at, step in enumerate(b.steps)] for n, b in enumerate(made)}
    while left:
        at = draw.dice.choice(list(left))
        text, ask, needs, stale, had = left[at].pop(0)
        if not left[at]:
            del left[at]
        name, shown = f"s{len(steps):04}", [s for s in steps if s["branch"] == f"b{at}"]
        parents = [last[at]] if at in last else []
        heard = " ".join(s["text"].lower() for s in shown)
        stale = [f | {"values": [v for v in f["values"] if v.lower() in heard]} for f in stale]
        steps.append(
            {
                "id": name,
                "branch": f"b{at}",
                "parents": parents,
                "kind": "turn",
                "text": text,
                "writes": [],
                "ask": ask,
                "needs": needs,
                "stale": [f for f in stale if f["values"]],
                "had": had,
            }
        )
        last[at] = name
    return {"id": f"made-{seed}", "source": f"made/{branches}", "steps": steps}


def main() -> None:
    """See the module."""
    name, *numbers = sys.argv[1:]
    workflows, branches, seed = [*map(int, numbers), *(10, 8, 1)[len(numbers) :]]
    with gzip.open(name, "wt", encoding="utf-8") as out:
        for n in range(workflows):
            out.write(json.dumps(run(seed * 1000 + n, branches)) + "\n")


if __name__ == "__main__":
    main()
