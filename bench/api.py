"""What a program pays for using the engine from Python: CPU per row beside the command line's, chains, and functions.

One command: python bench/api.py [--quick]. Prints a table and writes bench/results/api.json. Whatever is compared takes turns,
several times, and the middle of each is what counts: CPU of the whole process tree, starts and imports included.
"""

import sys
from pathlib import Path
from typing import Any

from common import PROMPT, Ran, engine, median, run, save, scratch, table, write_rows

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

LIKE = ("--procs", "2", "--in-flight", "256")

POOL = """
import json, sys
from pathlib import Path
from engine import Chain, Pool, ask

base_url, source, state, steps = sys.argv[1:]
rows = map(json.loads, Path(source).open())
one = ask({prompt!r}, max_tokens=20)
chain = one if steps == "1" else Chain([ask({prompt!r}, max_tokens=20, name=f"s{{n}}") for n in range(int(steps))])
with Pool(chain, rows, model="mock", base_url=base_url, state=state, procs=2, max_flows=256) as pool:
    print(json.dumps({{"ok": sum(result.ok for result in pool.stream())}}))
"""

MAP = """
import asyncio, json, sys, time
from engine import Pool, call

async def nap(row):
    await asyncio.sleep(0.1)
    return row["n"]

first = 0.0
done = 0
with Pool(call(nap), ({"n": n} for n in range(int(sys.argv[1]))), procs=2, max_flows=4000) as pool:
    for result in pool.stream():
        first = first or time.monotonic()
        done += result.ok
print(json.dumps({"ok": done, "rows_per_s": done / (time.monotonic() - first)}))
"""


def pool(mock: MockProcess, source: Path, folder: Path, rows: int, steps: int = 1) -> Ran:
    """The same rows through a Pool of so many equal questions, in a program of its own."""
    state = folder / f"state-{len(list(folder.iterdir()))}"
    done = run(
        [sys.executable, "-c", POOL.format(prompt=PROMPT), mock.base_url, str(source), str(state), str(steps)]
    )
    assert done.summary["ok"] == rows, done.summary
    return done


def main(quick: bool) -> None:
    """Measure, print, save."""
    rows, turns, mapped = (3_000, 1, 10_000) if quick else (10_000, 3, 100_000)
    cpu: dict[str, list[float]] = {"command line": [], "pool": [], "chain of three": []}
    speeds: list[float] = []
    with scratch() as name, MockProcess(MockSettings(latency="20ms")) as mock:
        folder = Path(name)
        source = write_rows(folder / "in.jsonl", rows)
        for _ in range(turns):
            found = {
                "command line": engine(mock.base_url, source, folder, *LIKE),
                "pool": pool(mock, source, folder, rows),
                "chain of three": pool(mock, source, folder, rows, steps=3),
            }
            for kind, ran in found.items():
                cpu[kind].append(ran.cpu_s / rows * 1e6)
            speeds.append(run([sys.executable, "-c", MAP, str(mapped)]).summary["rows_per_s"])
    middle = {kind: median(values) for kind, values in cpu.items()}
    results: dict[str, Any] = {
        "rows": rows,
        "cpu_us_per_row": cpu,
        "pool_over_command_line": middle["pool"] / middle["command line"],
        "chain_over_three_pools": middle["chain of three"] / (3 * middle["pool"]),
        "map_rows_per_s": speeds,
    }
    lines = [(kind, f"{value:.0f} us of CPU per row") for kind, value in middle.items()]
    lines += [
        ("pool / command line", f"{results['pool_over_command_line']:.2f}"),
        ("chain / three pools", f"{results['chain_over_three_pools']:.2f}"),
        ("map of a sleep of 100 ms", f"{median(speeds):,.0f} rows/s"),
    ]
    print(table(("", "middle of " + str(turns)), lines))
    if not quick:
        print(save("api", results))


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
