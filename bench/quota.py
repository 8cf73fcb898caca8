"""The quota, witnessed by the server's own log: use of the limit, windows over it, and 429s; then what a permit costs.

One command: python bench/quota.py [--quick]. Prints two tables and writes bench/results/quota.json. Most cases are counted
in every way at once: continuously (a bucket), in exact sliding minutes, in seconds (a tenth of tolerance), and in clock minutes.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvloop
from common import engine, save, scratch, table, write_rows

from engine.core.quota import Rates
from engine.limiter.client import LimiterClient
from engine.limiter.registry import Entry
from engine.limiter.server import LimiterSettings
from engine.mock.settings import MockSettings, QuotaSettings
from engine.mock.spawn import MockProcess
from engine.wire.link import Spoke
from engine.wire.messages import Attach

TPM = 1_500_000
TOKENS = 60  # charged for a row: the larger of --max-tokens and a quarter of the prompt's characters


@dataclass
class Case:
    """One server, what the engine is told, and what happens meanwhile."""

    rpm: int = 0
    tpm: int = 0
    procs: int = 8
    seconds: int = 92
    runs: int = 1
    latency: str = "200ms"
    flags: tuple[str, ...] = ()
    kills: tuple[int, ...] = ()  # when the limiter is killed, in seconds
    learns: bool = False
    kinds: tuple[str, ...] = ("sliding", "second", "minute", "bucket")

    @property
    def rows(self) -> int:
        """Rows of one run."""
        per_minute = self.rpm or self.tpm // TOKENS
        return per_minute * self.seconds // 60 // self.runs


CASES = {
    "600 RPM, 1 worker": Case(rpm=600, procs=1),
    "6,000 RPM, 2 workers": Case(rpm=6_000, procs=2),
    "6,000 RPM, two runs of 4 workers": Case(rpm=6_000, procs=4, runs=2),
    "6,000 RPM, 8 workers, limiter killed twice": Case(rpm=6_000, kills=(20, 50)),
    "6,000 RPM, 8 workers, learnt from replies": Case(rpm=6_000, learns=True),
    "60,000 RPM, 8 workers": Case(rpm=60_000),
    "60,000 RPM, 8 workers, 2.5 s replies": Case(rpm=60_000, latency="2500ms"),
    f"{TPM:,} TPM, 8 workers": Case(tpm=TPM, kinds=("sliding", "bucket")),
}


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """One case, as the server saw it."""
    quotas = tuple(
        QuotaSettings(kind=kind, rpm=case.rpm or None, tpm=case.tpm or None, tolerance=0.1)
        for kind in case.kinds
    )
    flags = ["--procs", str(case.procs), *case.flags]
    if case.rpm:
        flags += ["--rpm", "auto" if case.learns else str(case.rpm)]
    if case.tpm:
        flags += ["--tpm", str(case.tpm), "--max-tokens", str(TOKENS)]
    flags += ["--limiter-dir", str(folder / "l")]
    rows = write_rows(folder / "rows.jsonl", case.rows, chars=200)
    summaries: list[dict[str, Any]] = []

    def run(name: str, base_url: str) -> None:
        (folder / name).mkdir()
        summaries.append(engine(base_url, rows, folder / name, *flags).summary)

    with MockProcess(MockSettings(latency=case.latency, quota=quotas)) as mock:
        runs = [threading.Thread(target=run, args=(f"run{n}", mock.base_url)) for n in range(case.runs)]
        began = time.monotonic()
        for thread in runs:
            thread.start()
        for at in case.kills:
            time.sleep(max(0.0, at - (time.monotonic() - began)))
            (path,) = (folder / "l").glob("*/info.json")
            psutil.Process(json.loads(path.read_text())["pid"]).kill()
        for thread in runs:
            thread.join()
        stats = mock.stats()
    return {"summaries": summaries, "server": stats, "flags": flags[:-2], "rows": case.rows * case.runs}


def line_of(name: str, case: Case, found: dict[str, Any]) -> list[Any]:
    """A case's line in the table."""
    server, limit = found["server"], case.rpm or case.tpm
    peak = server["max_in_60s"] if case.rpm else server["max_tokens_in_60s"]
    first_s = max(summary["first_request_s"] for summary in found["summaries"])
    rows_per_s = server["requests"] / (server["last_s"] - server["first_s"])
    return [
        name, f"{rows_per_s:.0f}", f"{limit:,}", f"{peak:,}", f"{peak / limit:.1%}", max(0, peak - limit),
        server["throttled"], server["max_in_clock_second"], server["in_flight_max"], first_s,
    ]  # fmt: skip


# --- what a permit costs ------------------------------------------------------------------------------------


class Callers:
    """Eight workers' ends of one limiter, in this process."""

    def __init__(self, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.waits: list[float] = []
        self.again_after_s: float | None = None
        self._asked: list[deque[float]] = [deque() for _ in range(8)]
        self.clients = [
            LimiterClient(entry.socket, entry.token, slot, self._granted(slot), run=os.getpid())
            for slot in range(8)
        ]
        for client in self.clients:
            client.start(loop)

    def ask(self, slot: int) -> None:
        """One call of a hundred tokens."""
        self._asked[slot].append(self.loop.time())
        self.clients[slot].need(100, 80, 20)

    def _granted(self, slot: int) -> Any:
        def granted(count: int, generation: int) -> None:
            now = self.loop.time()
            for _ in range(count):
                self.waits.append(now - self._asked[slot].popleft())
                if self.again_after_s is not None:
                    self.loop.call_later(self.again_after_s, self.ask, slot)

        return granted

    @property
    def frames(self) -> int:
        """Messages of all of them, both ways."""
        return sum(client._link.frames_sent + client._link.frames_received for client in self.clients)


def start_limiter(settings: LimiterSettings) -> "subprocess.Popen[bytes]":
    """A limiter process."""
    limiter = subprocess.Popen([sys.executable, "-m", "engine.limiter"], stdin=subprocess.PIPE)
    assert limiter.stdin is not None
    limiter.stdin.write(msgspec.json.encode(settings) + b"\n")
    limiter.stdin.close()
    return limiter


async def permits(rpm: int, per_s: float, seconds: float) -> dict[str, Any]:
    """CPU of the limiter for each grant, and how long permits took; ``per_s`` 0: as many as the limit allows."""
    entry = Entry(Path(tempfile.mkdtemp(prefix="el-")))
    entry.make()
    entry.register(os.getpid())
    settings = LimiterSettings(folder=str(entry.path), limits=Rates(rpm), limits_now=Rates(rpm))
    limiter = start_limiter(settings)
    link = Spoke(entry.socket, message_bytes_max=1_000_000)
    link.listen(asyncio.get_running_loop(), lambda message: None)
    link.send(Attach(entry.token, os.getpid(), "bench", Rates(rpm), 1.0))
    callers = Callers(entry)
    await asyncio.sleep(1.0)
    if not per_s:
        callers.again_after_s = 0.2
        for number in range(512):
            callers.ask(number % 8)
        await asyncio.sleep(2.0)
    process = psutil.Process(limiter.pid)
    cpu, frames, began = sum(process.cpu_times()[:2]), callers.frames, callers.loop.time()
    callers.waits.clear()
    if per_s:
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_s - callers.loop.time()))
            callers.ask(number * 5 % 8)
        await asyncio.sleep(0.2)
    else:
        await asyncio.sleep(seconds)
    elapsed = callers.loop.time() - began
    waits = sorted(callers.waits)
    found = {
        "grants_per_s": len(waits) / elapsed,
        "limiter_us_per_grant": (sum(process.cpu_times()[:2]) - cpu) / len(waits) * 1e6,
        "messages_per_s": (callers.frames - frames) / elapsed,
        "wait_ms_p50": waits[len(waits) // 2] * 1e3,
        "wait_ms_p99": waits[len(waits) * 99 // 100] * 1e3,
    }
    for client in callers.clients:
        client.close()
    link.close()
    limiter.kill()
    limiter.wait()
    return found


PERMITS = {
    "60,000 RPM, 8 workers want more": (60_000, 0.0),
    "900 calls/s, permits free": (600_000, 900.0),
    "100 calls/s, permits free": (600_000, 100.0),
}


def main() -> None:
    """Measure all cases."""
    quick = "--quick" in sys.argv
    results: dict[str, Any] = {}
    lines = []
    for name, case in CASES.items():
        if quick:
            case.seconds, case.kills = 15, case.kills[:1] and (5,)
        with scratch() as folder:
            results[name] = measure(case, Path(folder))
        lines.append(line_of(name, case, results[name]))
        print(lines[-1], flush=True)
    header = ["case", "rows/s", "limit", "worst minute", "of limit", "over it", "429s"]
    header += ["worst second", "in flight", "first s"]
    print(table(header, lines))
    costs = {name: uvloop.run(permits(rpm, per_s, 10.0)) for name, (rpm, per_s) in PERMITS.items()}
    cost_header = ["permits", "grants/s", "limiter CPU µs/grant", "messages/s", "wait p50 ms", "wait p99 ms"]
    cost_lines = [
        [name, f"{one['grants_per_s']:.0f}", f"{one['limiter_us_per_grant']:.1f}", f"{one['messages_per_s']:.0f}",
         f"{one['wait_ms_p50']:.2f}", f"{one['wait_ms_p99']:.2f}"]
        for name, one in costs.items()
    ]  # fmt: skip
    print(table(cost_header, cost_lines))
    print(
        save(
            "quota",
            {
                "quick": quick,
                "cases": results,
                "table": [header, *lines],
                "permits": costs,
                "permit_table": [cost_header, *cost_lines],
            },
        )
    )


if __name__ == "__main__":
    main()
