"""The README's tables, made from bench/results, so that no figure in it was typed by hand.

One command: python bench/readme.py rewrites the tables in place. A test fails where README and results differ.
"""

import json
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


PARTS = {
    "ceiling": ceiling,
    "quota": quota,
    "permits": permits,
    "wall": wall,
    "endpoints": endpoints,
    "outage": outage,
    "memory": memory,
    "mock": mock,
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
