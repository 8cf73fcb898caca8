"""What the benchmarks share: rows, process-tree CPU, engine runs, results with commit and machine.

CPU is the user and system time of the whole process tree as the kernel accounts it (RUSAGE_CHILDREN of ended
children), never the client's own idea of it.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
PROMPT = "Classify: {{ text }}"


@dataclass
class Ran:
    """One finished command: wall and CPU seconds of its whole tree, its summary, and its exit code."""

    wall_s: float
    cpu_s: float
    code: int
    summary: dict[str, Any]


def write_rows(path: Path, rows: int, chars: int = 400) -> Path:
    """A JSONL file of ``rows`` rows of about ``chars`` characters."""
    filler = "the quick brown fox jumps over the lazy dog "
    text = (filler * (chars // len(filler) + 1))[: chars - 12]
    with path.open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"id": number, "text": f"{number:010d} {text}"}) + "\n")
    return path


def run(arguments: Sequence[str], timeout_s: float = 600.0) -> Ran:
    """Run a command that prints one JSON object last; its tree's CPU includes all children it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
        check=False,
    )
    wall_s = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{' '.join(arguments)} said nothing:\n{done.stdout}\n{done.stderr}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(wall_s, cpu_s, done.returncode, json.loads(lines[-1]))


def engine(base_url: str, rows: Path, folder: Path, *flags: str) -> Ran:
    """One fresh ``engine run`` over ``rows``."""
    output = folder / "out.jsonl"
    return run(
        [
            sys.executable, "-m", "engine", "run", str(rows), "-o", str(output), "--fresh", "--provider", "openai",
            "--base-url", base_url, "--model", "mock", "--prompt", PROMPT, "--max-tokens", "20", "--json",
            "--no-progress", *flags,
        ]
    )  # fmt: skip


def save(name: str, results: dict[str, Any]) -> Path:
    """Write ``bench/results/NAME.json`` with commit, machine and versions."""
    from importlib.metadata import version

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()
    packages = ("aiohttp", "httptools", "uvloop", "pyzmq", "msgpack", "msgspec")
    machine = {
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {package: version(package) for package in packages},
    }
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path = RESULTS / f"{name}.json"
    path.write_text(
        json.dumps({"commit": commit, "when": when, "machine": machine, **results}, indent=1) + "\n"
    )
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain table for the terminal."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    )


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return float(statistics.median(values))


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder that goes away."""
    return tempfile.TemporaryDirectory(prefix="engine-bench-")
