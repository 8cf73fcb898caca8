"""CPU of the wires alone: per plain request and per SSE chunk, on one core, against the mock in another process.

One command: python bench/wire.py [--quick]. Clients take turns, and the least of all rounds counts: other work on the
machine only adds. ``floor`` is a uvloop protocol with httptools and nothing else; ``start`` takes results by callback,
``send`` awaits them in a task for each of the requests at once. Writes bench/results/wire.json.
"""

import asyncio
import gc
import json
import sys
from collections.abc import Callable, Mapping
from time import monotonic, process_time
from typing import Any

import httptools
import uvloop
from common import run, save, table

from engine.config import Limits, Timeouts
from engine.core.model import Call, Failure, Reply
from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess
from engine.worker.fetch import Fetcher, Flight

HEADERS = (("Content-Type", "application/json"),)
BODY = json.dumps(
    {"model": "mock", "messages": [{"role": "user", "content": "lorem " * 60}], "max_tokens": 20}
).encode()
STREAM_BODY = json.dumps(
    {
        "model": "mock",
        "messages": [{"role": "user", "content": "lorem " * 60}],
        "max_tokens": 200,
        "stream": True,
    }
).encode()


class Load:
    """A closed loop: as many requests as asked for, so many at once, and the CPU of all but the first tenth."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.begun = self.ended = self.chunks = self.reads = self.first_chunks = self.first_reads = 0
        self.first_cpu = self.first_at = 0.0
        self.is_over = asyncio.get_running_loop().create_future()

    def may_begin(self) -> bool:
        """Whether one more is to be sent."""
        self.begun += 1
        return self.begun <= self.count

    def end(self) -> None:
        """One has ended."""
        self.ended += 1
        if self.ended == self.count // 10:
            self.first_cpu, self.first_at = process_time(), monotonic()
            self.first_chunks, self.first_reads = self.chunks, self.reads
        if self.ended == self.count:
            self.is_over.set_result(None)

    def figures(self) -> dict[str, float]:
        """What one request, and one chunk, cost."""
        cpu_us, wall_s = (process_time() - self.first_cpu) * 1e6, monotonic() - self.first_at
        measured, chunks = self.ended - self.count // 10, self.chunks - self.first_chunks
        return {
            "us_per_request": cpu_us / measured,
            "per_s": measured / wall_s,
            "us_per_chunk": cpu_us / chunks if chunks else 0.0,
            "chunks_per_read": chunks / max(1, self.reads - self.first_reads),
        }


class Floor(asyncio.Protocol):
    """The least that sends a request and sees its reply's end."""

    def __init__(self, load: Load, request: bytes) -> None:
        self.load, self.request = load, request
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        if self.load.may_begin():
            self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body = body

    def on_message_complete(self) -> None:
        self.load.end()
        self.send()


class Sse:
    """Counts events as they come: the least that a reader of SSE has to do, and no more."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.rest = b""

    def on_headers(self, status: int, headers: Mapping[str, str], at: float) -> bool:
        return status == 200

    def on_data(self, data: bytes, at: float) -> None:
        self.load.reads += 1
        *events, self.rest = (self.rest + data).split(b"\n\n")
        self.load.chunks += len(events)


def judged(result: Reply | Failure) -> None:
    if isinstance(result, Failure) or result.status != 200:
        raise SystemExit(f"the load got {result}")


async def drive(kind: str, base_url: str, count: int, at_once: int) -> dict[str, float]:
    """One client."""
    load = Load(count)
    wire, form, what = [*kind.split(), "", ""][:3]
    url = f"{base_url}/chat/completions"
    origin = base_url.removesuffix("/v1")
    host, _, port = origin.removeprefix("http://").partition(":")
    if wire == "floor":
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(BODY)}\r\n\r\n"
        loop = asyncio.get_running_loop()
        for _ in range(at_once):
            await loop.create_connection(lambda: Floor(load, head.encode() + BODY), host, int(port))
        await load.is_over
        return load.figures()
    timeouts = Timeouts()
    fetcher = Fetcher(origin=origin, auth=(), timeouts=timeouts, limits=Limits(), wire=wire)
    call = Call("POST", url, HEADERS, STREAM_BODY if what else BODY)

    def sink() -> Sse | None:
        return Sse(load) if what else None

    async def ask_on(flight: Flight) -> None:
        flight.task = asyncio.current_task()  # type: ignore[assignment]
        while load.may_begin():
            judged(await fetcher.send(call, f"key-{load.begun}", flight, sink()))
            load.end()

    def start_on(flight: Flight) -> Callable[[], None]:
        def begin() -> None:
            if load.may_begin():
                fetcher.start(call, f"key-{load.begun}", flight, done, sink())

        def done(result: Reply | Failure) -> None:
            judged(result)
            load.end()
            begin()

        return begin

    async def sweeps() -> None:
        while True:
            await asyncio.sleep(0.25)
            fetcher.sweep(asyncio.get_running_loop().time())

    sweeper = asyncio.create_task(sweeps())
    tasks = []
    for _ in range(at_once):
        flight = Flight()
        fetcher.register(flight)
        if form == "start":
            start_on(flight)()
        else:
            tasks.append(asyncio.create_task(ask_on(flight)))
    await load.is_over
    figures = load.figures()
    sweeper.cancel()
    await fetcher.close()
    return figures


CLIENTS = {
    "floor": 64,
    "lean start": 64,
    "lean send": 64,
    "aiohttp start": 64,
    "lean start stream": 160,
    "aiohttp start stream": 160,
}


def main() -> None:
    """Measure."""
    if len(sys.argv) > 3:
        kind, base_url, count, at_once = sys.argv[1:]
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        print(json.dumps(uvloop.run(drive(kind, base_url, int(count), int(at_once)))))
        return
    rounds, requests, streams = (2, 8_000, 400) if "--quick" in sys.argv else (5, 20_000, 800)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    with (
        MockProcess(MockSettings()) as mock,
        MockProcess(MockSettings(tokens_per_s=100.0, answer_words=60)) as streaming,
    ):
        for _ in range(rounds):
            for name, at_once in CLIENTS.items():
                is_stream = name.endswith("stream")
                where, count = (streaming, streams) if is_stream else (mock, requests)
                ran = run([sys.executable, __file__, name, where.base_url, str(count), str(at_once)])
                found[name].append(ran.summary)
    lines, results = [], {}
    for name, rans in found.items():
        unit = "us_per_chunk" if name.endswith("stream") else "us_per_request"
        costs = sorted(ran[unit] for ran in rans)
        results[name] = {
            unit: [round(cost, 1) for cost in costs],
            "least": round(costs[0], 1),
            "per_s": round(max(ran["per_s"] for ran in rans)),
            "chunks_per_read": round(rans[0]["chunks_per_read"], 2),
        }
        lines.append([name, unit, f"{costs[0]:.1f}", f"{costs[len(costs) // 2]:.1f}", results[name]["per_s"]])
    print(table(["client", "unit", "least", "median", "requests/s"], lines))
    print(save("wire", {"rounds": rounds, "requests": requests, "streams": streams, "clients": results}))


if __name__ == "__main__":
    main()
