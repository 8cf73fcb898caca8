"""A whole run in one thread on a virtual clock: the engine's own coordinator, workers and limiters, between scripted edges.

Real here: Session, Leasing, Commits, Stops, Supervisor, Limiting, LimiterServer, Worker, Lane, Router, LimiterClient, and every
message in its bytes. Scripted: sockets (``network``), processes and time (``virtual``), the commit thread (``disk``), the
endpoints (``provider``), the reading thread and the starting of processes (``edges``).

Rules of this file:
1. One seed and its kind decide everything: delays, losses, deaths, and what the endpoints answer. Nothing waits for real time.
2. A run that stops in order is started again, as its user would; so is one whose coordinator was killed.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from check import Checks
from disk import Disk, HastyWriter, Writer
from edges import Feed
from jobs import job
from network import Hub, Network, Spoke
from provider import Server
from shape import EVERY_WORKER, Freeze, Place, Shape
from virtual import PROCESS, START_S, Gone, Loop, Process, Stuck

from engine.config import Endpoint, Job
from engine.coordinator.ended import Ended
from engine.coordinator.limiting import Declared, Limiting
from engine.coordinator.session import Session
from engine.coordinator.supervise import Supervisor, backoff_s
from engine.core.ledger import Ledger
from engine.core.model import Target
from engine.core.quota import Rates
from engine.credentials import Auth
from engine.handover import WorkerSettings
from engine.limiter.registry import Registry
from engine.observe.metrics import Metrics
from engine.wire.messages import Control
from engine.worker.loop import Worker

ZOMBIE_S = (
    0.3  # so long a worker that was taken for dead lives on before the end of its standard input ends it
)
AGAIN_S = 1.0  # after so long the user gives the command again


class World:
    """One job, from its first start to its end, however often it is started."""

    def __init__(self, seed: int, folder: Path, shape: Shape) -> None:
        self.shape = shape
        self.random = Random(seed)
        self.folder = folder
        self.checks = self.make_checks()
        self.loop = Loop(self.checks.trouble.append)
        self.network = Network(self)
        self.disk = Disk()
        self.servers = {place.url: Server(place.illness) for place in shape.places}
        self.outside = contextvars.copy_context()
        self.processes: list[Process] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.notes: list[str] = []
        self.is_stormy = True
        self.ended: Ended | None = None
        self.starts = self.kills = self.stops = self.freezes = self.stale = 0
        self.session: Session | None = None
        self.job = self.make_job()

    # --- what another kind of job has otherwise -------------------------------------------------------------

    def make_job(self) -> Job:
        """What is run."""
        return _job_of(self.shape)

    def make_checks(self) -> Checks:
        """What must be true."""
        return Checks(self)

    def make_worker(self, settings: WorkerSettings, auth: tuple[Auth, ...]) -> Worker:
        """As ``python -m engine.worker`` does."""
        return Worker(settings, auth)

    def edges(self) -> Iterator[tuple[str, Any]]:
        """What else of the engine is replaced."""
        yield from ()

    def places(self) -> list[Place]:
        """Where the job asks: of each endpoint, or each step, its name, address and limit."""
        return list(self.shape.places)

    def session_extras(self) -> dict[str, Any]:
        """What the session is told of the job's results."""
        return {"answers": ("response",)}

    def is_asked(self, process: Process, text: str) -> None:
        """A worker is about to send this prompt."""
        self.sending(process, int(text.removeprefix("row ")))

    @property
    def lived_s(self) -> float:
        """How long this world has lived."""
        return self.loop.time() - START_S

    @property
    def arrivals(self) -> list[tuple[float, str]]:
        """What arrived, at all endpoints."""
        return [arrival for server in self.servers.values() for arrival in server.arrivals]

    # --- processes ------------------------------------------------------------------------------------------

    def begin(self, role: str, make: Callable[[], Any], after_s: float) -> Process:
        """A new process."""
        process = Process(100 + len(self.processes), role)
        self.processes.append(process)
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)

        async def live() -> None:
            try:
                await make()
            except Gone:
                return
            if process.code is None:
                process.code = 0

        def start() -> None:
            task = self.loop.create_task(live())
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self._tasks.append(task)

        self.loop.call_later(after_s, start, context=context)
        return process

    def alive(self, role: str) -> list[Process]:
        """Those of a kind that live."""
        return [process for process in self.processes if process.role == role and not process.is_dead]

    def kill(self, role: str) -> None:
        """SIGKILL one of a kind; workers die with their coordinator, as the kernel has it."""
        found = self.alive(role)
        if not found:
            return
        self.kills += 1
        killed = self.random.choice(found)
        killed.outlives_kill = False
        killed.kill()
        if role == "coordinator":
            for worker in self.alive("worker"):
                worker.outlives_kill = False
                worker.kill()

    def freeze(self, freeze: Freeze) -> None:
        """Stop one of a kind, or every worker, and let it go on later."""
        is_every = freeze.role == EVERY_WORKER
        found = [one for one in self.alive("worker" if is_every else freeze.role) if not one.is_stopped]
        for process in found if is_every else [self.random.choice(found)] if found else []:
            self.freezes += 1
            process.outlives_kill = freeze.is_believed_dead
            process.stop()
            self.loop.call_later(freeze.for_s, self._thaw, process)

    def _thaw(self, process: Process) -> None:
        if process.believed is not None:
            self.loop.call_later(ZOMBIE_S, setattr, process, "code", process.believed)
        process.go_on(self.loop)

    # --- the job --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the command, or start it again."""
        rooms = self.shape.disk_rooms
        self.disk.room = rooms[self.starts] if self.starts < len(rooms) else None
        self.starts += 1
        self.disk.recover()
        self.network.leases.clear()
        for place in self.shape.places:
            self.servers[place.url].limits.append((self.loop.time(), place.rpm))
        self.begin("coordinator", self._coordinate, 0.05)

    async def _coordinate(self) -> None:
        me = PROCESS.get()
        sockets = self.folder / f"r{me.pid}"
        hub = Hub(sockets / "c", message_bytes_max=10**8)
        registry = Registry(str(self.folder / "l"))
        places = self.places()
        rates = [Rates(rpm=place.rpm) for place in places]
        ledger = Ledger()
        made: list[Session] = []

        def limiting(origin: str, its: Rates, session: Session) -> Limiting:
            return Limiting(
                registry.entry(origin, "m", ()), Declared(its, 1.0),
                pid=me.pid, label="sim", origin=origin, model="m", hide=[], backoff_s=backoff_s,
                note=self.notes.append, on_change=session.tune,
            )  # fmt: skip

        def supervisor(session: Session) -> Supervisor:
            made.append(session)
            # Steps that ask at one place share its quota.
            of_place = {
                place.url: limiting(place.url, its, session) for place, its in zip(places, rates, strict=True)
            }
            return Supervisor(
                self.job, ((),) * len(rates), "run", sockets, pid=me.pid,
                limitings=[of_place[place.url] for place in places],
                on_death=session.worker_died, note=self.notes.append,
            )  # fmt: skip

        writing = HastyWriter if self.shape.is_first_kind else Writer
        writer = writing(self, lambda error: made[0].cut_short(error))
        self.session = session = Session(
            self.job, hub=hub, ledger=ledger, writer=writer, supervisor=supervisor,  # type: ignore[arg-type]
            feed=lambda owner: Feed(self, owner),  # type: ignore[arg-type, return-value]
            metrics=Metrics(0.0, rates, [place.name for place in places if place.name]),
            note=self.notes.append, on_tick=lambda session, now: self.checks.now_and_then(ledger),
            **self.session_extras(),
        )  # fmt: skip
        ended = await session.run()
        writer.close()
        self.session, self.ended = None, ended
        self.stale += ended.stale_refused
        self.checks.stopped(ended)

    def say(self, words: str) -> None:
        """As ``engine ctl`` does; "interrupt" is a signal."""
        session = self.session
        if session is None or not self.alive("coordinator"):
            return
        coordinator = self.alive("coordinator")[0]
        if words == "interrupt":
            context = contextvars.copy_context()
            context.run(PROCESS.set, coordinator)
            self.loop.call_soon(session.interrupt, context=context)
            return
        spoke = Spoke(self.folder / f"r{coordinator.pid}" / "c", message_bytes_max=10**8)
        spoke.send(Control(token=session.control.token, words=words.split()))
        what, _, value = words.removeprefix("set ").rpartition("=")
        name, _, limit = what.rpartition(".")
        if limit == "rpm":
            url = next(place.url for place in self.places() if place.name == name)
            self.servers[url].limits.append((self.loop.time(), int(value)))

    def sending(self, process: Process, row: int) -> None:
        """A worker is about to send this row's call."""
        if process.believed is None and not self.disk.is_leased(row):
            self.checks.trouble.append(f"row {row} is sent under no lease that is kept")

    def live(self) -> None:
        """Faults for so long, then none; returns when the job is done, or will never be."""
        shape, random, loop = self.shape, self.random, self.loop
        for _ in range(shape.deaths):
            loop.call_later(random.uniform(0.2, shape.storm_s), self.kill, random.choice(shape.roles))
        loop.call_later(shape.storm_s, setattr, self, "is_stormy", False)
        for freeze in shape.freezes:
            loop.call_later(freeze.at, self.freeze, freeze)
        for at, words in shape.words:
            loop.call_later(at, self.say, words)
        loop.ends_at = START_S + shape.calm_s + shape.ends_in_s
        try:
            loop.run_until_complete(self._until_done())
        except Stuck as stuck:
            self.checks.trouble.append(str(stuck))

    async def _until_done(self) -> None:
        self.start()
        while self.ended is None or not self.ended.whole:
            await asyncio.sleep(0.25)
            if self.ended is not None and not self.ended.whole:
                if not self.shape.may_stop:
                    return
                self.stops += 1
                self.ended = None
                await asyncio.sleep(AGAIN_S)
                self.start()
            elif self.ended is None and not self.alive("coordinator"):
                self.start()

    def wrong(self) -> dict[str, Any]:
        """Everything that should not be; {} is a pass."""
        return self.checks.wrong()


def _job_of(shape: Shape) -> Job:
    settings: dict[str, Any] = {
        "procs": shape.procs, "in_flight": shape.procs * 6, "in_flight_auto": False, "retries": 50,
    }  # fmt: skip
    targets = [Target(provider="openai", base_url=f"{place.url}/v1", model="m") for place in shape.places]
    if len(targets) == 1:
        return job(target=targets[0], rpm=shape.places[0].rpm or None, **settings)
    endpoints = tuple(
        Endpoint(place.name, target, place.weight, rpm=place.rpm or None)
        for place, target in zip(shape.places, targets, strict=True)
    )
    return job(target=targets[0], endpoints=endpoints, **settings)
