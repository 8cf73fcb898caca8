"""The adaptive in-flight limit against a server whose capacity moves, witnessed by the server's own log.

One command: python bench/wall.py [--quick]. Prints a table and writes bench/results/wall.json. No limit is declared:
the server takes 50 calls at once, then 200, then 20, and refuses what is beyond, with 429 or with 503.
"""

import sys
from pathlib import Path
from typing import Any

from common import engine, save, scratch, table, write_rows

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

LATENCY_S = 0.2
WALLS = (50, 200, 20)
SETTLE_S = 15.0
SPAN_S = 3  # of a look at whether it has settled


def measure(status: int, procs: int, stage_s: float, folder: Path) -> list[dict[str, Any]]:
    """One run through all walls; how each was used once the limit had settled."""
    steps = tuple((stage_s * number, wall) for number, wall in enumerate(WALLS))
    settings = MockSettings(
        latency=f"{LATENCY_S * 1000:.0f}ms", capacity_steps=steps, capacity_status=status, log=True
    )
    count = int(sum(WALLS) / LATENCY_S * stage_s)
    rows = write_rows(folder / "rows.jsonl", count, chars=100)
    with MockProcess(settings) as mock:
        ran = engine(mock.base_url, rows, folder, "--procs", str(procs))
        log = mock.log()
    first = log[0]["at_s"]
    replies = [(record["at_s"] - first, record["status"] == 200) for record in log]
    found = []
    for number, wall in enumerate(WALLS):
        start, end = number * stage_s + SETTLE_S, (number + 1) * stage_s
        seen = [taken for at, taken in replies if start <= at < end]
        can_give = wall / LATENCY_S * (end - start)
        found.append(
            {
                "status": status,
                "procs": procs,
                "wall": wall,
                "used": sum(seen) / can_give,
                "refused": seen.count(False) / len(seen),
                "settled_s": settled_s(replies, number * stage_s, end, wall),
                "rows": count,
                "failed": ran.summary["failed"],
            }
        )
    return found


def settled_s(replies: list[tuple[float, bool]], start: float, end: float, wall: int) -> float:
    """From when on the wall was used to 90 % at least and less than 5 % were refused, in every three seconds."""
    settled = 0.0
    for second in range(int(end - start) - SPAN_S + 1):
        seen = [taken for at, taken in replies if start + second <= at < start + second + SPAN_S]
        good = sum(seen)
        if good < 0.9 * wall / LATENCY_S * SPAN_S or len(seen) - good > 0.05 * len(seen):
            settled = second + 1.0
    return settled


def main() -> None:
    """Measure all cases."""
    quick = "--quick" in sys.argv
    cases = [(429, 2), (503, 8)] if quick else [(429, 1), (429, 2), (429, 8), (503, 2), (503, 8)]
    results: list[dict[str, Any]] = []
    for status, procs in cases:
        with scratch() as folder:
            results += measure(status, procs, 20.0 if quick else 25.0, Path(folder))
    header = ["refuses with", "workers", "takes at once", "settled after s", "used", "refused", "rows failed"]
    lines = [
        [one["status"], one["procs"], one["wall"], f"{one['settled_s']:.0f}", f"{one['used']:.1%}",
         f"{one['refused']:.2%}", one["failed"]]
        for one in results
    ]  # fmt: skip
    print(table(header, lines))
    print(save("wall", {"quick": quick, "cases": results, "table": [header, *lines]}))


if __name__ == "__main__":
    main()
