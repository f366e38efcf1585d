"""The router on published outcomes, by the neutral referee, its baselines beside it: part of `make bench`.

    python -m benchmarks.routing [--quick] [--only CASE …] [--referee FOLDER]

Cases: mmlu_pair, gsm8k_cascade, pool, online, latency. `--quick` takes one seed. Prints the referee's own
tables. The referee and its data are looked for in `../shared`; what is missing is said.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import NotThere, referee

ROOT = Path(__file__).resolve().parent.parent
CASES = ("mmlu_pair", "gsm8k_cascade", "pool", "online", "latency")
#: seconds that one case may take
LIMIT = 1800.0


def case(name: str, quick: bool) -> None:
    """Print the referee's table of one case.

    Raises:
        NotThere: the referee or its data is missing, or it failed.
    """
    command = [sys.executable, str(referee("routing.py")), "--adapter", "benchmarks.adapters:routing"]
    command += ["--data", str(referee("..", "data", "routing")), "--case", name]
    command += ["--seed", "0"] if quick else []
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PODIUM_")}
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=clean | one, stderr=subprocess.PIPE, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        raise NotThere(f"routing.py, {name}: not done after {LIMIT:g} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotThere(f"routing.py, {name}: exit {done.returncode}: {last[:160]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed instead of the usual ones")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--referee", metavar="FOLDER", help="where the referees are; else PODIUM_REFEREE")
    asked = parser.parse_args()
    if asked.referee:
        os.environ["PODIUM_REFEREE"] = asked.referee
    load = os.getloadavg()[0]
    for name in asked.only:
        try:
            case(name, asked.quick)
        except NotThere as missing:
            print(f"not measured: {missing}")
    now = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, {platform.machine()}; load average before {load:.1f}, after {now:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
