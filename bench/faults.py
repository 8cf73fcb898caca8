"""The scorecard: every promise, how often it was tried, how often it was broken, and what so many trials prove.

One command: ./scripts/faults [--quick]. Runs tests/faults, tests/sim and, but for --quick, the mutants, and then writes
bench/results/faults.json. The 95 % bound is Clopper and Pearson's: the largest probability of a failure that so few of so many
trials leave possible.
"""

import json
import math
import operator
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import ROOT, save, table


def upper_bound(failures: int, trials: int, confidence: float = 0.95) -> float:
    """The one-sided upper bound of a probability after ``failures`` in ``trials``.

    >>> round(upper_bound(0, 300), 4)
    0.0099
    """
    if failures >= trials:
        return 1.0
    low, high = failures / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        likely = sum(
            math.exp(
                math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
                + k * math.log(middle) + (trials - k) * math.log1p(-middle)
            )
            for k in range(failures + 1)
        )  # fmt: skip
        low, high = (middle, high) if likely > 1 - confidence else (low, middle)
    return high


def gathered(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The counts of all test processes, put together for each promise and test; and the tests that failed."""
    sums: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: {"trials": 0, "failures": 0})
    failed = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            count = json.loads(line)
            if "failed_test" in count:
                failed.append(count["failed_test"])
                continue
            total = sums[count.pop("promise"), count.pop("test")]
            for name, value in count.items():
                if isinstance(value, int | float):
                    put = max if name.endswith(("_max", "_peak")) else operator.add
                    total[name] = put(total.get(name, 0), value)
    return [
        {"promise": promise, "test": test, **total} for (promise, test), total in sorted(sums.items())
    ], failed


def main() -> int:
    """Run the campaign. Ends with 1, and keeps no result, where a test failed or did not run."""
    quick = "--quick" in sys.argv
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [
            sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/faults", "tests/sim", "--scorecard", str(folder),
            "--trials", "quick" if quick else "nightly",
        ]  # fmt: skip
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        counts, failed = gathered(folder)
        mutants: dict[str, Any] = {}
        if not quick:
            result = folder / "mutants.json"
            code |= subprocess.run(
                [sys.executable, "tests/mutants.py", "--json", str(result)], cwd=ROOT, check=False
            ).returncode
            mutants = json.loads(result.read_text()) if result.exists() else {}
    lines = [
        [
            one["promise"],
            one["test"],
            f"{one['trials']:,}",
            one["failures"],
            bound_of(one),
            other_figures(one),
        ]
        for one in counts
    ]
    if mutants:
        survived = mutants["total"] - mutants["killed"]
        lines.append(
            ["the tests would notice", "rules broken on purpose", mutants["total"], survived, "", ""]
        )
    header = ["promise", "test", "trials", "failures", "95 % bound", "other figures"]
    print(table(header, lines))
    if code or failed:
        print("\n".join(["NOT KEPT: the campaign did not pass.", *failed]))
        return 1
    if not quick:
        minutes = round((time.monotonic() - began) / 60)
        print(
            save(
                "faults",
                {"table": [header, *lines], "counts": counts, "mutants": mutants, "minutes": minutes},
            )
        )
    return 0


def bound_of(one: dict[str, Any]) -> str:
    """The 95 % bound in per cent, with as many digits as it has to say."""
    percent = 100 * upper_bound(one["failures"], one["trials"])
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"


def other_figures(one: dict[str, Any]) -> str:
    """What else was counted or measured, in the names' own words."""
    figures = {
        name: value for name, value in one.items() if name not in ("promise", "test", "trials", "failures")
    }
    return ", ".join(f"{name.replace('_', ' ')} {value:,.10g}" for name, value in figures.items())


if __name__ == "__main__":
    sys.exit(main())
