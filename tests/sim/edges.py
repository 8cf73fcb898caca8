"""How processes begin and rows are read: the scripted launcher and feed, and what else of the engine is replaced.

Rules of this file:
1. Only edges are replaced: clocks, processes, sockets, threads, and the sending of requests. No decision of the engine's is.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock as patches

import here
import msgspec
from network import Hub, Spoke
from provider import Fetcher, NearFetcher
from virtual import OUTSIDE, PROCESS, Gone, Process

from engine.coordinator.feed import Chunk
from engine.coordinator.session import Session
from engine.core.ledger import LedgerRow
from engine.handover import WorkerSettings, decode_handover
from engine.limiter.server import LimiterServer, LimiterSettings
from engine.steps.template import Template
from engine.worker.fault import EXIT_FAULT

if TYPE_CHECKING:
    from world import World

CHUNK_ROWS = 16


class Feed:
    """As coordinator.feed.Feed: chunks for credit, finished rows left out."""

    def __init__(self, world: "World", session: Session) -> None:
        self.world, self.session = world, session
        done = set(world.disk.outcomes)
        rows = [LedgerRow(row, row + 1, b'{"text":"row %d"}' % row, row) for row in range(world.shape.rows)]
        self.left = [row for row in rows if row.row not in done]
        self.resumed = len(done)
        self.rows_read = 0

    def start(self) -> None:
        self.more()

    def more(self) -> None:
        self.world.loop.call_later(self.world.random.choice((0.0, 0.03)), self.read)

    def read(self) -> None:
        chunk, self.left = self.left[:CHUNK_ROWS], self.left[CHUNK_ROWS:]
        resumed, self.resumed = self.resumed, 0
        self.session.chunk_read(Chunk(chunk, [], resumed))
        if not self.left and not self.rows_read:
            self.rows_read = self.world.shape.rows
            self.session.all_read(self.rows_read)

    def stop(self) -> None:
        pass


class Launcher:
    """As launchers.local.LocalLauncher."""

    def __init__(self, folder: Path, hide: object = ()) -> None:
        self.world = here.world()

    def start(self, module: str, line: bytes, *, capture: bool = False, detached: bool = False) -> Process:
        world = self.world
        if module == "engine.worker":
            settings, auth = decode_handover(line, WorkerSettings)
            return world.begin(
                "worker", lambda: world.make_worker(settings, auth).run(), world.random.uniform(0.05, 0.3)
            )
        limiter = replace(msgspec.json.decode(line, type=LimiterSettings), period_s=world.shape.period_s)
        return world.begin("limiter", lambda: LimiterServer(limiter).run(), world.random.uniform(0.02, 0.1))


@cache
def _template(text: str, **settings: Any) -> Template:
    """One for all processes of all worlds: a template never changes, and to compile it takes milliseconds."""
    return Template(text, **settings)


@contextmanager
def scripted(world: "World") -> Iterator[None]:
    """The engine between this world's edges."""
    here.enter(world)
    with ExitStack() as stack:
        for place, value in (*_edges(world), *world.edges()):
            stack.enter_context(patches.patch(place, value))
        yield


def _edges(world: "World") -> Iterator[tuple[str, Any]]:
    now: Callable[[], float] = world.loop.time

    def born(pid: int) -> float:
        process = world.processes[pid - 100] if 100 <= pid < 100 + len(world.processes) else None
        return 0.0 if process is None or process.is_dead else float(pid)

    def leave(code: int) -> None:
        PROCESS.get(OUTSIDE).code = code
        if code == EXIT_FAULT:
            world.checks.trouble.append(f"a worker died of a fault of its own: {sys.exception()!r}")
        raise Gone

    yield "engine.coordinator.supervise.LocalLauncher", Launcher
    yield "engine.coordinator.limiting.LocalLauncher", Launcher
    yield "engine.coordinator.limiting.Spoke", Spoke
    yield "engine.limiter.client.Spoke", Spoke
    yield "engine.limiter.server.Hub", Hub
    yield "engine.worker.loop.Spoke", Spoke
    yield "engine.worker.roaming.Fetcher", NearFetcher if world.shape.is_first_kind else Fetcher
    yield "engine.worker.lane.monotonic", now
    yield "engine.worker.slots.monotonic", now
    yield "engine.limiter.registry.born", born
    yield "engine.limiter.standing.born", born
    yield "engine.coordinator.limiting.born", born
    yield "engine.limiter.server.LimiterServer._mind", lambda self, run: None
    for place in ("limiter.registry", "limiter.standing", "coordinator.limiting"):
        yield f"engine.{place}.PERIOD_S", world.shape.period_s + 2.0
    seeded = SimpleNamespace(Random=lambda: Random(world.random.random()))
    yield "engine.worker.loop.random", seeded
    yield "engine.limiter.server.random", seeded
    yield "engine.steps.ask.Template", _template
    yield "time.monotonic", now
    yield "os.getpid", lambda: PROCESS.get(OUTSIDE).pid
    yield "os._exit", leave
