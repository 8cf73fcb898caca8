"""The README's tables, made from bench/results, so that no figure in it was typed by hand.

One command: python bench/readme.py rewrites the tables in place. A test fails where README and results differ.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- bench: {} -->", "<!-- end -->"


def results(name: str) -> dict[str, Any]:
    """One results file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def ceiling() -> str:
    """CPU per row of every client."""
    header = ["client", "CPU µs per row", "times the bare loop", "official SDK / this", "rows/s"]
    clients = results("ceiling")["clients"].items()
    return markdown(
        header,
        [
            [
                name,
                f"{c['median']:.0f}",
                f"{c['times_bare']:.2f}",
                c["sdk_times_this"],
                f"{c['rows_per_s']:,.0f}",
            ]
            for name, c in clients
        ],
    )


def endpoints() -> str:
    """Each endpoint's own count."""
    header, *rows = results("endpoints")["tables"]["quota"]
    return markdown(header, rows)


def outage() -> str:
    """What an endpoint that is ill costs."""
    header, *rows = results("endpoints")["tables"]["outage"]
    return markdown(header, rows)


def quota() -> str:
    """What the server counted."""
    header = [
        "case",
        "rows/s",
        "limit",
        "worst sliding minute",
        "of the limit",
        "over it",
        "429s",
        "worst second",
    ]
    return markdown(header, [row[:8] for row in results("quota")["table"][1:]])


def permits() -> str:
    """What a permit costs."""
    header, *rows = results("quota")["permit_table"]
    return markdown(header, rows)


def wall() -> str:
    """The adaptive in-flight limit against capacities that move."""
    header, *rows = results("wall")["table"]
    return markdown(header, rows)


def memory() -> str:
    """Peaks of memory."""
    peaks = results("memory")["peaks_mb"].values()
    return markdown(
        ["rows", "coordinator MB", "largest worker MB"],
        [[f"{p['rows']:,}", f"{p['coordinator']:.0f}", f"{p['worker']:.0f}"] for p in peaks],
    )


def mock() -> str:
    """What the mock provider carries."""
    rates = results("mock")["requests_per_s"]
    return (
        f"The mock provider carries {rates['chat']:,} chat requests and {rates['plain']:,} plain ones a second on one "
        "core (`mock.json`)."
    )


def load() -> str:
    """What a load test's request costs, beside other tools."""
    found = results("load")
    costs = markdown(
        ["plain requests, 64 under way", "CPU µs each", "requests/s on one core"],
        [
            [name, f"{one['median_us']:.0f}", f"{one['requests_per_s']:,}"]
            for name, one in found["plain"].items()
        ],
    )
    pace = markdown(
        ["1,000 requests/s asked", "achieved", "99% sent within", "dispersion of arrivals"],
        [
            [name, f"{one['achieved']:.1%}", f"{one['send_lag_p99_ms']:.2f} ms", f"{one['dispersion']:.2f}"]
            for name, one in found["pace"].items()
        ],
    )
    freeze, role = found["freeze"], found["role_chunk"]
    peaks = "; ".join(
        f"{count} requests: coordinator {one['coordinator']:.0f} MB, worker {one['worker']:.0f} MB"
        for count, one in found["memory_mb"].items()
    )
    said = (
        f"A piece of a streamed answer costs {found['stream']['median_us']:.0f} µs. A server that stands still for 2 s of 30 "
        f"at 100 requests/s: p99 of the response time {freeze['response_time_p99_ms']:,.0f} ms, where arithmetic says "
        f"{freeze['expected_ms']:,.0f}. A role after 1 ms and content after 200 ms: TTFT {role['ttft_p50_ms']:.1f} ms. Peaks of "
        f"memory: {peaks} (`load.json`)."
    )
    return f"{costs}\n\n{pace}\n\n{said}"


def faults() -> str:
    """The scorecard, a line for each promise: its tests' trials together, and the largest of their other figures."""
    sys.path.insert(0, str(ROOT / "bench"))
    from faults import bound_of

    found = results("faults")
    promises: dict[str, list[dict[str, Any]]] = {}
    for one in found["counts"]:
        promises.setdefault(one["promise"], []).append(one)
    rows = []
    for promise, tests in sorted(promises.items(), key=lambda item: int(re.findall(r"\d+", item[0])[0])):
        trials, failures = (sum(test[name] for test in tests) for name in ("trials", "failures"))
        names = {name for test in tests for name in test} - {"promise", "test", "trials", "failures"}
        sums = {
            name.replace("_", " "): sum(test.get(name, 0) for test in tests)
            for name in names
            if not name.endswith(("_max", "_peak"))
        }
        largest = sorted(((total, name) for name, total in sums.items() if total), reverse=True)[:3]
        bound = bound_of({"trials": trials, "failures": failures})
        other = ", ".join(f"{total:,.0f} {name}" for total, name in largest)
        rows.append([promise, len(tests), f"{trials:,}", failures, bound, other])
    mutants = found["mutants"]
    survived = mutants["total"] - mutants["killed"]
    rows.append(["the tests would notice", 1, mutants["total"], survived, "", "rules broken on purpose"])
    header = ["promise", "tests", "trials", "broken", "95 % bound", "among them"]
    said = f"Each test by itself is in `faults.json`; all of it took {found['minutes']} minutes on two cores."
    return f"{markdown(header, rows)}\n\n{said}"


def api() -> str:
    """What a program pays."""
    found = results("api")
    middle = {name: sorted(values)[len(values) // 2] for name, values in found["cpu_us_per_row"].items()}
    speeds = sorted(found["map_rows_per_s"])
    rows: list[list[object]] = [
        ["`engine run`, two workers", f"{middle['command line']:.0f} µs of CPU per row", ""],
        [
            "`Pool` of one `ask`",
            f"{middle['pool']:.0f} µs",
            f"{found['pool_over_command_line']:.2f} times the command",
        ],
        [
            "`Chain` of three",
            f"{middle['chain of three']:.0f} µs",
            f"{found['chain_over_three_pools']:.2f} times three pools",
        ],
        ["`engine.map`, a sleep of 100 ms, 4,000 flows", f"{speeds[len(speeds) // 2]:,.0f} rows/s", ""],
    ]
    return markdown(["on two cores", "measured", "beside"], rows)


PARTS = {
    "ceiling": ceiling,
    "quota": quota,
    "permits": permits,
    "wall": wall,
    "endpoints": endpoints,
    "outage": outage,
    "memory": memory,
    "mock": mock,
    "load": load,
    "api": api,
    "faults": faults,
}


def written(readme: str) -> str:
    """The README with its tables as the results have them. Raises ValueError where a mark is missing."""
    for name, part in PARTS.items():
        begin = BEGIN.format(name)
        head, mark, rest = readme.partition(begin)
        _, end, tail = rest.partition(END)
        if not mark or not end:
            raise ValueError(f"README.md has no {begin} ... {END}")
        readme = f"{head}{begin}\n\n{part()}\n\n{END}{tail}"
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(written(path.read_text()))
