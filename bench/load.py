"""``engine load`` against what it promises: cost, pace, honesty, memory; beside wrk and locust where they are installed.

One command: python bench/load.py [--quick]. Servers are on the same machine: the mock, or one written here where the answer
has to be known exactly. Prints tables and writes bench/results/load.json.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from common import ROOT, Ran, median, run, save, scratch, table
from memory import high_water_mb

sys.path.insert(0, str(ROOT / "tests" / "support"))
from rolechunks import role_server

from engine.loadtest.selftest import dispersion
from engine.mock.settings import FaultRule, MockSettings
from engine.mock.spawn import MockProcess

QUICK = "--quick" in sys.argv
LOCUST = Path(__file__).parent / "locust_plain.py"


def load(*flags: object, core: int | None = None) -> Ran:
    """One ``engine load``; ``core``: the whole of it on that processor."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    command = [*pinned, sys.executable, "-m", "engine", "load", *map(str, flags), "--json", "--quiet"]
    return run(command)


def slope_us(few: Ran, many: Ran, number: Callable[[Ran], float]) -> float:
    """CPU microseconds of one more of what ``number`` counts, in the whole process tree: start-up falls out."""
    return (many.cpu_s - few.cpu_s) / (number(many) - number(few)) * 1e6


def completed(ran: Ran) -> float:
    """How many requests went well."""
    assert not ran.summary["failed"], ran.summary["errors"]
    return float(ran.summary["completed"])


# --- what a request costs -----------------------------------------------------------------------------------


def plain_cost(rounds: int) -> dict[str, Any]:
    """CPU of a plain request in a closed loop of 64, on one processor, the server on the other; clients take turns."""
    few, many = (5_000, 30_000) if QUICK else (20_000, 220_000)
    found: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}

    def note(name: str, cost_us: float, per_s: float) -> None:
        found.setdefault(name, []).append(cost_us)
        rates.setdefault(name, []).append(per_s)

    with on_core(1), MockProcess(MockSettings()) as mock:
        for _ in range(rounds):
            for wire in ("lean", "aiohttp"):
                flags = (
                    f"{mock.origin}/plain",
                    "--concurrency",
                    64,
                    "--procs",
                    1,
                    "--wire",
                    wire,
                    "--requests",
                )
                rans = [load(*flags, count, core=0) for count in (few, many)]
                note(
                    f"engine load, {wire} wire", slope_us(*rans, completed), rans[1].summary["achieved_rate"]
                )
            if shutil.which("wrk"):
                note("wrk", *wrk(mock.origin))
            if importable("locust"):
                note("locust (FastHttpUser)", *locust(mock.origin))
    return {
        name: {
            "us_per_request": [round(one, 1) for one in costs],
            "median_us": round(median(costs), 1),
            "requests_per_s": round(median(rates[name])),
        }
        for name, costs in found.items()
    }


def wrk(origin: str) -> tuple[float, float]:
    """CPU and rate of wrk on the same terms."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        ["taskset", "-c", "0", "wrk", "-t1", "-c64", "-d5s", f"{origin}/plain"], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = said.split()
    count = int(words[words.index("requests") - 1])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s / count * 1e6, count / 5.0


def locust(origin: str) -> tuple[float, float]:
    """CPU and rate of locust on the same terms, its start taken out."""
    few, many = 5, 15
    rans = [
        run(["taskset", "-c", "0", sys.executable, str(LOCUST), origin, str(seconds)])
        for seconds in (few, many)
    ]
    counts = [float(ran.summary["requests"]) for ran in rans]
    return (rans[1].cpu_s - rans[0].cpu_s) / (counts[1] - counts[0]) * 1e6, (counts[1] - counts[0]) / (
        many - few
    )


def stream_cost(rounds: int) -> dict[str, Any]:
    """CPU of one SSE chunk: answers of many words against answers of few, one chunk a read."""
    short, long = 20, 220
    requests = 400 if QUICK else 1_500
    costs, reads = [], []
    with (
        on_core(1),
        MockProcess(MockSettings(tokens_per_s=50.0, answer_words=short)) as few,
        MockProcess(MockSettings(tokens_per_s=50.0, answer_words=long)) as many,
    ):
        for _ in range(rounds):
            rans = [
                load(
                    "--provider", "mock", "--base-url", mock.base_url, "--prompt", "hi", "--stream", "--procs", 1,
                    "--concurrency", 400, "--requests", requests, core=0,
                )
                for mock in (few, many)
            ]  # fmt: skip
            chunks = [ran.summary["chunk_gap_ms"]["count"] for ran in rans]
            costs.append((rans[1].cpu_s - rans[0].cpu_s) / (chunks[1] - chunks[0]) * 1e6)
            reads.append(chunks[1])
    return {
        "us_per_chunk": [round(one, 1) for one in costs],
        "median_us": round(median(costs), 1),
        "chunks": reads[0],
    }


# --- pace ---------------------------------------------------------------------------------------------------


def pace() -> dict[str, Any]:
    """1,000 requests a second with two workers: what was sent when, and what arrived."""
    seconds = 10 if QUICK else 30
    found: dict[str, Any] = {}
    with MockProcess(MockSettings(latency="50ms", log=True)) as mock:
        for arrival, procs in (("constant", 2), ("poisson", 1), ("poisson", 2), ("poisson", 8)):
            mock.reset()
            ran = load(
                f"{mock.origin}/plain", "--rate", 1000, "--arrival", arrival, "--procs", procs, "--duration", f"{seconds}s",
            ).summary  # fmt: skip
            arrivals = [one["at_s"] for one in mock.log() if one["path"] == "/plain"]
            found[f"{arrival}, {procs} worker{'s' if procs > 1 else ''}"] = {
                "achieved": ran["achieved"],
                "sent": ran["sent"],
                "arrived": len(arrivals),
                "send_lag_p99_ms": ran["send_lag_ms"]["p99"],
                "dispersion": round(dispersion(arrivals, 0.02), 3),
                "verdict": ran["verdict"],
            }
    return found


# --- honesty ------------------------------------------------------------------------------------------------


def freeze() -> dict[str, Any]:
    """A server that stands still for 2 s of 30, at 100 requests a second."""
    rule = FaultRule("freeze", start_s=10.0, end_s=12.0)
    with MockProcess(MockSettings(faults=(rule,))) as mock:
        ran = load(f"{mock.origin}/plain", "--rate", 100, "--duration", "30s", "--procs", 1).summary
    # 200 of 3,000 wait, evenly from 2 s down to 0: a hundredth of all, 30, waits for 1.7 s and more.
    expected_ms = 1_700.0
    return {
        "response_time_p99_ms": ran["response_time_ms"]["p99"],
        "expected_ms": expected_ms,
        "off_by": round(ran["response_time_ms"]["p99"] / expected_ms - 1, 4),
    }


def role_chunk() -> dict[str, Any]:
    """A role chunk after 1 ms and the first content after 200 ms: which of them is the first token."""
    with role_server() as origin:
        ran = load(
            "--base-url", f"{origin}/v1", "--model", "m", "--prompt", "hi", "--stream", "--rate", 50, "--duration", "5s",
            "--procs", 1,
        ).summary  # fmt: skip
    return {"ttft_p50_ms": ran["ttft_ms"]["p50"], "ttft_p99_ms": ran["ttft_ms"]["p99"], "expected_ms": 200.0}


# --- memory -------------------------------------------------------------------------------------------------


def memory() -> dict[str, Any]:
    """Peaks of coordinator and worker at 10^4 and 10^6 requests."""
    found = {}
    with MockProcess(MockSettings()) as mock:
        for count in (10_000, 100_000) if QUICK else (10_000, 1_000_000):
            command = [
                sys.executable, "-m", "engine", "load", f"{mock.origin}/plain", "--concurrency", "64", "--procs", "1",
                "--requests", str(count), "--quiet",
            ]  # fmt: skip
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
            peaks: dict[str, float] = {}
            while process.poll() is None:
                try:
                    for one in psutil.Process(process.pid).children():
                        peaks["worker"] = max(peaks.get("worker", 0.0), high_water_mb(one.pid))
                    peaks["coordinator"] = max(peaks.get("coordinator", 0.0), high_water_mb(process.pid))
                except (psutil.Error, OSError):
                    pass
                time.sleep(0.05)
            found[f"{count:,}"] = {name: round(peak, 1) for name, peak in peaks.items()}
    return found


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile stays on that processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} if core in before else before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def importable(name: str) -> bool:
    """Whether a package is installed."""
    from importlib.util import find_spec

    return find_spec(name) is not None


def bounds(results: dict[str, Any]) -> list[list[Any]]:
    """What is promised, what was found, and whether it holds."""
    lean = results["plain"]["engine load, lean wire"]
    paced = results["pace"]["constant, 2 workers"]
    few, many = results["memory_mb"].values()
    grown_mb = max(many[name] - few[name] for name in few)
    random = [one["dispersion"] for name, one in results["pace"].items() if name.startswith("poisson")]
    ttft_ms = results["role_chunk"]["ttft_p50_ms"]
    found = [
        ("CPU of a plain request, us", lean["median_us"], "at most 45", lean["median_us"] <= 45),
        ("requests/s on one core", lean["requests_per_s"], "at least 15,000", lean["requests_per_s"] >= 15_000),
        ("CPU of a chunk, us", results["stream"]["median_us"], "at most 15", results["stream"]["median_us"] <= 15),
        ("99% sent within, ms", paced["send_lag_p99_ms"], "below 2", paced["send_lag_p99_ms"] < 2),
        ("achieved of 1,000/s", paced["achieved"], "at least 99.5 %", paced["achieved"] >= 0.995),
        ("dispersion, even", paced["dispersion"], "below 0.1", paced["dispersion"] < 0.1),
        ("dispersion, Poisson", random, "from 0.9 to 1.1", all(0.9 <= one <= 1.1 for one in random)),
        ("p99 of a freeze, off by", results["freeze"]["off_by"], "within 3 %", abs(results["freeze"]["off_by"]) <= 0.03),
        ("TTFT past a role chunk, ms", ttft_ms, "200 within 5", abs(ttft_ms - 200) <= 5),
        ("memory grown, MB", grown_mb, "below 8", grown_mb < 8),
    ]  # fmt: skip
    return [list(one) for one in found]


def main() -> int:
    """Measure. Ends with 1 where a bound does not hold; the results are kept all the same."""
    rounds = 1 if QUICK else 3
    with scratch():
        results = {
            "plain": plain_cost(rounds),
            "stream": stream_cost(rounds),
            "pace": pace(),
            "freeze": freeze(),
            "role_chunk": role_chunk(),
            "memory_mb": memory(),
        }
    rows = [[name, one["median_us"], f"{one['requests_per_s']:,}"] for name, one in results["plain"].items()]
    print(table(["plain requests, 64 at once", "CPU us each", "per s"], rows))
    print(json.dumps({name: one for name, one in results.items() if name != "plain"}, indent=1))
    results["bounds"] = bounds(results)
    print(table(["promised", "found", "bound", "holds"], results["bounds"]))
    print(save("load", results))
    return 0 if all(one[-1] for one in results["bounds"]) else 1


if __name__ == "__main__":
    sys.exit(main())
