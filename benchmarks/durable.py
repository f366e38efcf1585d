"""The durable engine's figures against their limits, peers beside it in the same run: `make bench`.

    python -m benchmarks.durable [--quick] [--only SECTION …]

Prints one table and writes it to `benchmarks/results/durable.json`. Sections: speed, kills, history,
schedule, budget, scale. What is missing on this machine (a referee, a peer, PostgreSQL) is said in its row.
`--quick` takes fewer rounds, kills and graphs. Timings mean something on a quiet machine only, and beside
each other: in each round every command runs once, in reversed order in every second one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, measure, table
from benchmarks.peers import NotThere, python_of, referee

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "durable.json"
PYTHON = sys.executable
#: set → (reach, beat) of the mean makespan gap in percent, with durations off by 30 %
GAPS = {"traces w16": (5.0, 4.0), "traces w64": (6.0, 4.5), "j30": (4.0, 2.0), "j60": (4.5, 2.5)}
RULES = ("critical_path", "fifo", "superstep")
#: seconds that one command may take
LIMIT = 7200.0


class Bench:
    """Runs the measurements of one table."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.versions: dict[str, str] = {}
        #: measurements that could not be made, said below the table
        self.missing: list[str] = []

    def run(self, command: list[str], *, exits: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """The last line of JSON that a command prints.

        Raises:
            NotThere: it failed or printed none.
        """
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PODIUM_") or k == "PODIUM_REFEREE"}
        begin = time.monotonic()
        try:
            done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise NotThere(f"{_short(command)}: not done after {LIMIT:g} s") from None
        print(f"  {time.monotonic() - begin:6.1f} s  {_short(command)}", file=sys.stderr)
        for line in reversed(done.stdout.splitlines()):
            if line.startswith("{") and done.returncode in exits:
                found = json.loads(line)
                self.versions |= found.get("versions", {})
                return found
        last = (done.stderr.strip().splitlines() or ["it printed no JSON"])[-1]
        raise NotThere(f"{_short(command)}: exit {done.returncode}: {last[:160]}")

    def peer(self, name: str, *arguments: str) -> list[str] | None:
        """A peer's command, None where it is not installed."""
        try:
            return [str(python_of(name)), *arguments]
        except NotThere as missing:
            self._miss(missing)
            return None

    def _miss(self, missing: NotThere) -> None:
        if str(missing) not in self.missing:
            self.missing.append(str(missing))

    # -- sections

    def speed(self) -> Iterator[Figure]:
        """No-op tasks: a chain of 200 and a fan-out of 1,000, all commands in turn."""
        ours = {mode: [PYTHON, "-m", "benchmarks.engine", "--runs", "1", "--mode", mode] for mode in MODES}
        scripts = {name: str(referee("peers", f"{name}_bench.py")) for name in ("langgraph", "dbos", "ray")}
        theirs = {
            "langgraph": self.peer("langgraph", scripts["langgraph"], "--runs", "1"),
            "dbos": self.peer("dbos", scripts["dbos"], "--runs", "1"),
            "ray, not durable": [PYTHON, scripts["ray"], "--runs", "1"],
        }
        commands = ours | {name: command for name, command in theirs.items() if command is not None}
        rounds = self.rounds(commands, 2 if self.quick else 5)
        for metric, value, mode, name, reach, beat in SPEED:
            peers = {other: _median(rounds[other], metric, value) for other in rounds if other not in MODES}
            samples = tuple(report[metric][value] for report in rounds[mode])
            yield Figure(name, "ms", samples, reach, beat, peers)

    def rounds(self, commands: dict[str, list[str]], count: int) -> dict[str, list[dict[str, Any]]]:
        """The reports of each command, one a round."""
        names, reports = list(commands), {name: [] for name in commands}
        for number in range(count):
            for name in names if number % 2 == 0 else reversed(names):
                reports[name].append(self.run(commands[name]))
        return reports

    def kills(self) -> Iterator[Figure]:
        """SIGKILL at random moments, by the crash referee."""
        peer = self._langgraph_kills()
        for place, full in (("sqlite", 1000), ("ray", 200), ("postgres", 200)):
            kills = full // 20 if self.quick else full
            command = [PYTHON, "-m", "benchmarks.crash", "--on", place, "--kills", str(kills)]
            try:
                report = self.run(command, exits=(0, 1))
            except NotThere as missing:
                yield Figure(f"kill -9 on {place}", "", reach=0, note=str(missing))
                continue
            yield from self._kill_figures(f"{report['kills']} kills on {place}", report, peer)

    def _kill_figures(
        self, name: str, report: dict[str, Any], peer: dict[str, Any] | None
    ) -> Iterator[Figure]:
        def beside(value: Callable[[dict[str, Any]], float]) -> dict[str, float]:
            return {"langgraph, by hand": value(peer)} if peer is not None else {}

        broken = sum(report["violations"].values())
        yield Figure(
            f"{name}: lost, doubled, wrong",
            "",
            (broken,),
            0,
            0,
            beside(_broken),
            ", ".join(report["violations"]),
        )
        extra = report["extra_attempts_per_kill"]
        yield Figure(
            f"{name}: extra attempts a kill",
            "",
            (extra,),
            0.5,
            None,
            beside(lambda r: r["extra_attempts_per_kill"]),
        )
        waits = report["resume_to_effect_s"]
        yield Figure(
            f"{name}: start to next effect, p95",
            "s",
            (waits["p95"],),
            2.0,
            0.5,
            beside(lambda r: r["resume_to_effect_s"]["p95"]),
            f"p50 {waits['p50']:.2f}",
        )

    def _langgraph_kills(self) -> dict[str, Any] | None:
        script = str(referee("peers", "langgraph_kill9.py"))
        command = self.peer("langgraph", script)
        if command is None:
            return None
        line = " ".join(command) + " {what} {{dir}} {{effects}}"
        kills = ["--kills", "10" if self.quick else "100", "--json"]
        actions = [
            word for what in ("start", "resume", "state") for word in (f"--{what}", line.format(what=what))
        ]
        return self.run([PYTHON, str(referee("kill9.py")), *kills, *actions], exits=(0, 1))

    def history(self) -> Iterator[Figure]:
        """What 400 appends of 1 KB leave in the database."""
        found = self.run([PYTHON, "-m", "benchmarks.history"])
        command = self.peer("langgraph", "-m", "benchmarks.langgraph_history")
        peers = {} if command is None else {"langgraph": self.run(command)["history_bytes"] / 1e6}
        note = f"{found['total_bytes'] / 1e6:.2f} MB with the empty database"
        megabytes = found["history_bytes"] / 1e6
        yield Figure("history of 400 appends of 1 KB", "MB", (megabytes,), 1.5, 0.8, peers, note)

    def schedule(self) -> Iterator[Figure]:
        """Makespan gaps with predicted durations off by 30 %."""
        script = referee("schedule.py")
        data = sorted(referee("..", "data", "dags").glob("*.jsonl.gz"))
        adapter = "benchmarks.adapters:scheduler"
        command = [PYTHON, str(script), "--data", *map(str, data), "--adapter", adapter, "--json"]
        command += ["--refs", ",".join(RULES), "--workers", "16", "64", "--noise", "0.3"]
        report = self.run([*command, "--every", "10" if self.quick else "1"], exits=(0, 1))
        found = {(row["set"], row["scheduler"]): row for row in report["summary"]}
        if report["invalid"]:
            yield Figure("invalid schedules", "", (len(report["invalid"]),), 0, 0)
        for name, (reach, beat) in GAPS.items():
            ours = found[name, adapter]
            peers = {rule: 100 * found[name, rule]["gap_mean"] for rule in RULES}
            yield Figure(
                f"makespan gap, {name}, mean of {ours['dags']}",
                "%",
                (100 * ours["gap_mean"],),
                reach,
                beat,
                peers,
                f"slowest decision {ours['worst_pick_ms']:.1f} ms",
            )

    def budget(self) -> Iterator[Figure]:
        """Money: what is spent above the budget, and how much of it can be used."""
        report = self.run([PYTHON, "-m", "benchmarks.budget"])
        note = f"{report['tasks']} tasks race, {report['states_seen']} states were looked at"
        yield Figure("budget overshoot", "nUSD", (report["overshoot_nano"],), 0, 0, note=note)
        yield Figure("budget left unused", "%", (100 - report["usable_percent"],), 5, 5)

    def scale(self) -> Iterator[Figure]:
        """A run of 10,000 tasks."""
        report = self.run([PYTHON, "-m", "benchmarks.scale", "--repeats", "1" if self.quick else "3"])
        yield Figure("10,000 tasks: engine RSS, peak", "MB", tuple(report["rss_mb"]), 400, 250)
        yield Figure("10,000 tasks: podium show", "s", tuple(report["show_s"]), 1.0, 0.3)
        resumes = tuple(report["resume_s"])
        yield Figure("10,000 tasks: kill -9 to the next finished task", "s", resumes, 2.0, 0.5)


MODES = ("inline", "isolated", "ray")
#: (metric, wall or CPU, mode, name, reach, beat)
SPEED = (
    ("fan_ms", "median", "inline", "fan-out of 1,000, in-process, a task", 0.33, 0.125),
    ("fan_ms", "median", "isolated", "fan-out of 1,000, in worker processes, a task", None, None),
    ("fan_ms", "median", "ray", "fan-out of 1,000, through Ray, a task", 0.6, 0.25),
    ("chain_ms", "median", "inline", "chain of 200, in-process, a task", 1.5, 1.0),
    ("chain_ms", "median", "isolated", "chain of 200, in worker processes, a task", None, None),
    ("chain_ms", "median", "ray", "chain of 200, through Ray, a task", None, None),
    ("fan_ms", "cpu_median", "inline", "engine CPU in the fan-out, a task", 0.3, 0.12),
    ("fan_run_ms", "median", "inline", "fan-out without submission, in-process, a task", None, None),
    ("chain_run_ms", "median", "inline", "chain without submission, in-process, a task", None, None),
)


def _median(reports: list[dict[str, Any]], metric: str, value: str) -> float:
    """Peers know one clock: theirs starts after their graph is compiled."""
    return statistics.median(report[metric.replace("_run_", "_")][value] for report in reports)


def _broken(report: dict[str, Any]) -> float:
    return float(sum(report["violations"].values()))


def _short(command: list[str]) -> str:
    words = [Path(word).name if os.sep in word else word for word in command]
    return " ".join(words)[:90]


SECTIONS = ("speed", "kills", "history", "schedule", "budget", "scale")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, kills and graphs")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    asked = parser.parse_args()
    bench, load = Bench(quick=asked.quick), [os.getloadavg()]
    figures = measure(bench, asked.only)
    load.append(os.getloadavg())
    ours = {name: importlib.metadata.version(name) for name in ("podium", "ray", "sqlalchemy")}
    versions = {**ours, **bench.versions, "python": platform.python_version()}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}"
    print(table(figures))
    for line in bench.missing:
        print(f"not beside it: {line}")
    print(f"{machine}; load average before {load[0][0]:.1f}, after {load[1][0]:.1f}")
    print(", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "load": load, "versions": versions, "quick": asked.quick}
    entries = [figure.as_data() for figure in figures]
    RESULTS.write_text(json.dumps(found | {"figures": entries}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
