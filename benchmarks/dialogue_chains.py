"""Self-made tool chains: a request, then calls that take fields of earlier results (see `dialogues.py`)."""

from __future__ import annotations

import json
import random
from typing import Any

from benchmarks.dialogue_words import FIELDS, THINGS
from benchmarks.dialogues import Draw


def chains(seed: int, branches: int) -> dict[str, Any]:
    """A run of tool chains: a request, then calls that take values of it and fields of earlier results."""
    dice, draw = random.Random(seed), Draw(seed)
    steps: list[dict[str, Any]] = []
    state: dict[int, tuple[list[str], dict[str, dict[str, str]], list[str]]] = {}
    for turn in range(branches * 5):
        at = dice.randrange(branches)
        if at not in state:
            things, told = dice.sample(THINGS, 4), draw.value(dice.choice(["town", "code", "person"])).canon
            wish = f"USER: Look up the {things[0]} of {told}, and then get its {things[1]} and {things[2]}."
            steps.append({"id": f"s{turn:04}", "branch": f"b{at}", "parents": [], "text": wish, "ask": ""})
            state[at] = (things, {}, [f"s{turn:04}", told])
            continue
        things, results, names = state[at]
        if len(results) == len(things):
            continue
        thing = things[len(results)]
        taken = {"query": names[1]} if not results else _taken(dice, results)
        call = dice.choice(
            [f"{thing}s.find_{thing}", f"Get_{thing.capitalize()}", f"{thing}API_{thing}_details"]
        )
        result = {"id": f"x{dice.getrandbits(28):07x}"}
        result |= {f: f"x{dice.getrandbits(28):07x}" for f in dice.sample(FIELDS, dice.randint(3, 8))}
        result |= {f"{thing}.{f}": f"x{dice.getrandbits(28):07x}" for f in dice.sample(FIELDS, 2)}
        inside = ", ".join(f"{k}={v}" for k, v in [*taken.items(), ("page", "1")])
        text = f"CALL {call}({inside}) -> {json.dumps(result)}"
        ask = f"Call {call} with {', '.join([*taken, 'page'])}"
        made = {"id": f"s{turn:04}", "branch": f"b{at}", "parents": [names[0]], "text": text, "ask": ask}
        steps.append(made | {"had": {"page": ["1"]} | {k: [v] for k, v in taken.items()}})
        names[0] = made["id"]
        results[thing] = result
    return {"id": f"chains-{seed}", "source": f"chains/{branches}", "steps": steps}


def _taken(dice: random.Random, results: dict[str, dict[str, str]]) -> dict[str, str]:
    """Arguments that are fields of earlier results, under a name of one of the usual forms."""
    found = {}
    for _ in range(dice.choice([1, 1, 2])):
        thing = dice.choice([*results, list(results)[-1]])
        field_name, value = dice.choice(list(results[thing].items()))
        short = field_name.rsplit(".", 1)[-1]
        name = dice.choice([short, f"{thing}_{short}", f"{thing}{short.capitalize()}", thing])
        found[name] = results[thing]["id"] if name == thing else value
    return found
