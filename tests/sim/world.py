"""A whole run in one thread on a virtual clock: the engine's own coordinator, workers and limiter, between scripted edges.

Real here: Session, Leasing, Commits, Stops, Supervisor, Limiting, LimiterServer, Worker, Lane, Router, LimiterClient, and every
message in its bytes. Scripted: sockets, processes, the commit thread, the reading thread, the sending of requests, the clock.

Rules of this file:
1. One seed decides everything: delays, losses, deaths, and what the provider answers. Nothing waits for real time.
2. Code runs in the process that started it (a context variable). What belongs to a dead process never runs again.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock as patches

import msgspec
from jobs import job

from engine.coordinator.ended import Ended
from engine.coordinator.feed import Chunk
from engine.coordinator.limiting import Declared, Limiting
from engine.coordinator.session import Session
from engine.coordinator.supervise import Supervisor, backoff_s
from engine.core.commit import Commit
from engine.core.errors import ErrorKind
from engine.core.ledger import Ledger, LedgerRow
from engine.core.model import Call, Failure, Reply
from engine.core.quota import Rates
from engine.handover import decode_handover
from engine.limiter.registry import Registry
from engine.limiter.server import LimiterServer, LimiterSettings
from engine.observe.metrics import Metrics
from engine.wire.messages import Message, decode, encode
from engine.worker.loop import Worker

CHUNK_ROWS = 16
VIRTUAL_S_MAX = 900.0
_HEADERS: dict[str, str] = {}


class Gone(Exception):
    """The process that runs this has just ended."""


class Stuck(Exception):
    """Nothing is scheduled any more, and the run is not over."""


@dataclass(eq=False)
class Process:
    """One simulated process."""

    pid: int
    role: str
    code: int | None = None

    @property
    def is_dead(self) -> bool:
        return self.code is not None

    # --- as launchers.local.Process -------------------------------------------------------------------------

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        if self.code is None:
            self.code = -9

    def let_go(self) -> None:
        if self.role == "worker" and self.code is None:
            self.code = 0

    def disown(self) -> None:
        pass

    def wait(self, timeout_s: float) -> int | None:
        return self.code

    def last_words(self, chars_max: int = 0) -> str:
        return ""

    def close(self) -> None:
        pass


PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")
OUTSIDE = Process(1, "world")


class _Selector(selectors.SelectSelector):
    """Waits in virtual time."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck
        self.now += max(timeout, 0.0)
        if self.now > 1_000.0 + VIRTUAL_S_MAX:
            raise Stuck(f"not over after {VIRTUAL_S_MAX:g} virtual seconds")
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, for many processes."""

    def __init__(self, world: "World") -> None:
        self.clock = _Selector()
        self.world = world
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        process = PROCESS.get(OUTSIDE) if context is None else context.get(PROCESS, OUTSIDE)
        return super().call_soon(partial(_if_alive, process, callback), *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        process = PROCESS.get(OUTSIDE) if context is None else context.get(PROCESS, OUTSIDE)
        return super().call_at(when, partial(_if_alive, process, callback), *args, context=context)

    def _check_closed(self) -> None:
        """The dead are cleared away after the end, and what they would still do is nothing."""

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> Any:
        future = self.create_future()
        future.set_result(function(*args))
        return future

    def add_signal_handler(self, *arguments: Any) -> None:
        pass

    def remove_signal_handler(self, *arguments: Any) -> bool:
        return True

    def set_exception_handler(self, handler: Any) -> None:
        pass

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # The dead leave tasks behind that never run again; Python remarks on it when it clears them away.
        if not isinstance(error, Gone) and "was destroyed" not in context.get("message", ""):
            self.world.trouble.append(f"{PROCESS.get(OUTSIDE).role}: {context.get('message')}: {error!r}")


def _if_alive(process: Process, callback: Callable[..., Any], *args: Any) -> None:
    if not process.is_dead:
        callback(*args)


# --- sockets ----------------------------------------------------------------------------------------------------


class Hub:
    """As wire.link.Hub."""

    def __init__(self, path: Path, *, message_bytes_max: int) -> None:
        self.world = World.current
        self.process = PROCESS.get(OUTSIDE)
        self.path = str(path)
        self.spokes: dict[bytes, Spoke] = {}
        self.heard: Callable[[bytes, Message], None] | None = None
        self.is_open = True
        self.context = contextvars.copy_context()
        self.world.hubs[self.path] = self

    def listen(self, loop: Any, on_message: Callable[[bytes, Message], None]) -> None:
        self.heard = on_message
        queued = self.world.queued.pop(self.path, [])
        self.world.loop.call_later(
            0.02, lambda: [spoke.send(message) for spoke, message in queued if spoke.is_open]
        )

    def send(self, peer: bytes, message: Message) -> bool:
        spoke = self.spokes.get(peer)
        if spoke is None or not spoke.is_open or spoke.process.is_dead or self.process.is_dead:
            return False
        self.world.carry(self, spoke, encode(message), lambda decoded: spoke.heard and spoke.heard(decoded))
        return True

    def close(self, linger_ms: int = 0) -> None:
        self.is_open = False


class Spoke:
    """As wire.link.Spoke."""

    serial = 0

    def __init__(self, path: Path, *, message_bytes_max: int) -> None:
        self.world = World.current
        self.process = PROCESS.get(OUTSIDE)
        self.path = str(path)
        self.heard: Callable[[Message], None] | None = None
        self.is_open = True
        self.context = contextvars.copy_context()
        Spoke.serial += 1
        self.identity = b"peer%d" % Spoke.serial

    def listen(self, loop: Any, on_message: Callable[[Message], None]) -> None:
        self.heard = on_message

    def send(self, message: Message) -> bool:
        if self.process.is_dead:
            return True
        hub = self.world.hubs.get(self.path)
        if hub is None or not hub.is_open or hub.process.is_dead:
            self.world.queued.setdefault(self.path, []).append(
                (self, message)
            )  # for whoever binds there next
            return True
        hub.spokes[self.identity] = self
        self.world.carry(
            self, hub, encode(message), lambda decoded: hub.heard and hub.heard(self.identity, decoded)
        )
        return True

    def close(self, linger_ms: int = 0) -> None:
        self.is_open = False


# --- store, reading, processes ----------------------------------------------------------------------------------


@dataclass
class Disk:
    """What survives a coordinator: as the store keeps it."""

    outcomes: dict[int, tuple[bool, str, bytes]] = field(default_factory=dict)
    leases: dict[int, set[int]] = field(default_factory=dict)
    in_doubt: int = 0
    twice: list[int] = field(default_factory=list)
    attempts: int = 0

    def apply(self, commit: Commit) -> None:
        for lease, rows in commit.opened:
            self.leases[lease] = set(rows)
        for line in commit.outcomes:
            if line.row in self.outcomes:
                self.twice.append(line.row)
            self.outcomes[line.row] = (line.ok, line.kind, line.record)
            self.attempts += line.attempts
        for lease, rows in commit.released:
            self.leases[lease] -= set(rows)
        for lease in commit.closed:
            self.leases.pop(lease, None)
        self.in_doubt += commit.in_doubt

    def recover(self) -> None:
        leased = {row for rows in self.leases.values() for row in rows}
        self.in_doubt += len(leased - self.outcomes.keys())
        self.leases.clear()


class Writer:
    """As coordinator.writer.Writer: in order, acknowledged after it was kept."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.loop = world.loop
        self.queue: list[tuple[Commit, Callable[[], None] | None]] = []
        self.backlog = 0
        self.is_due = False

    def submit(self, commit: Commit, done: Callable[[], None] | None) -> None:
        self.backlog += 1 + len(commit.outcomes)
        self.queue.append((commit, done))
        if not self.is_due:
            self.is_due = True
            self.loop.call_later(self.world.random.choice((0.001, 0.02, 0.08)), self.write)

    def write(self) -> None:
        self.is_due = False
        group, self.queue = self.queue, []
        for commit, _ in group:
            self.world.disk.apply(commit)
        self.loop.call_later(self.world.random.choice((0.0, 0.01)), self.acknowledge, group)

    def acknowledge(self, group: list[tuple[Commit, Callable[[], None] | None]]) -> None:
        self.backlog -= sum(1 + len(commit.outcomes) for commit, _ in group)
        for _, done in group:
            if done is not None:
                done()


class Feed:
    """As coordinator.feed.Feed: chunks for credit, finished rows left out."""

    def __init__(self, world: "World", session: Session) -> None:
        self.world, self.session = world, session
        done = set(world.disk.outcomes)
        rows = [LedgerRow(row, row + 1, b'{"text":"row %d"}' % row, row) for row in range(world.rows)]
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
            self.rows_read = self.world.rows
            self.session.all_read(self.world.rows)

    def stop(self) -> None:
        pass


class Launcher:
    """As launchers.local.LocalLauncher."""

    def __init__(self, folder: Path, hide: object = ()) -> None:
        self.world = World.current

    def start(self, module: str, line: bytes, *, capture: bool = False, detached: bool = False) -> Process:
        world = self.world
        if module == "engine.worker":
            settings, auth = decode_handover(line)
            return world.begin(
                "worker", lambda: Worker(settings, auth).run(), world.random.uniform(0.05, 0.3)
            )
        limiter = msgspec.json.decode(line, type=LimiterSettings)
        return world.begin("limiter", lambda: LimiterServer(limiter).run(), world.random.uniform(0.02, 0.1))


# --- the provider -----------------------------------------------------------------------------------------------


@dataclass
class Server:
    """What arrived, when, and how each was answered."""

    arrivals: list[tuple[float, str]] = field(default_factory=list)
    full: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    def windows_over(self, limit: int, seconds: float = 60.0) -> int:
        times = [at for at, _ in self.arrivals]
        left = over = 0
        for right, at in enumerate(times):
            while times[left] <= at - seconds:
                left += 1
            over += right - left + 1 > limit
        return over


class Fetcher:
    """As worker.fetch.Fetcher: a call arrives, is answered or not, and its reply travels back."""

    def __init__(self, **_: Any) -> None:
        self.world = World.current
        self.process = PROCESS.get(OUTSIDE)

    def register(self, flight: object) -> None:
        pass

    def sweep(self, now: float) -> None:
        pass

    def drop_idle(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def start(self, call: Call, key: str, flight: object, on_done: Callable[[Reply | Failure], None]) -> None:
        asyncio.get_running_loop().create_task(self._serve(call, on_done))

    async def _serve(self, call: Call, on_done: Callable[[Reply | Failure], None]) -> None:
        on_done(await self._answer(call))

    async def _answer(self, call: Call) -> Reply | Failure:
        world, random = self.world, self.world.random
        await asyncio.sleep(random.uniform(0.0005, 0.003))
        assert call.body is not None
        text = msgspec.json.decode(call.body)["messages"][0]["content"]
        world.server.arrivals.append((world.loop.time(), text))
        await asyncio.sleep(random.choice((0.05, 0.2, 0.2, 0.9)))
        luck = random.random() if world.is_stormy else 1.0
        if luck < 0.04:
            return Failure(ErrorKind.CONNECTION_RESET, "reset")
        if luck < 0.07:
            await asyncio.sleep(5.0)
            return Failure(ErrorKind.TIMEOUT, "no reply")
        if luck < 0.12:
            world.server.refused += 1
            wait_s = random.choice((None, 0.5, 3.0))
            return Failure(ErrorKind.RATE_LIMITED, "too many", wait_s=wait_s, status=429)
        if luck < 0.17:
            return Failure(ErrorKind.SERVER_ERROR, "500", status=500)
        if luck < 0.19:
            return Failure(ErrorKind.STALE_KEEPALIVE, "stale")
        world.server.full[text] = world.server.full.get(text, 0) + 1
        body = {"model": "m", "choices": [{"message": {"content": f"answer to {text}"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4}}  # fmt: skip
        return Reply(200, _HEADERS, msgspec.json.encode(body))


# --- the world --------------------------------------------------------------------------------------------------


class World:
    """One job, from its first start to its end, however often it is started."""

    current: "World"

    def __init__(self, seed: int, folder: Path, *, rows: int, rpm: int, procs: int) -> None:
        self.random = Random(seed)
        self.rows, self.rpm = rows, rpm
        self.folder = folder
        self.loop = Loop(self)
        self.disk, self.server = Disk(), Server()
        self.hubs: dict[str, Hub] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.queued: dict[str, list[tuple[Spoke, Message]]] = {}
        self.processes: list[Process] = []
        self.trouble: list[str] = []
        self.notes: list[str] = []
        self.is_stormy = True
        self.ended: Ended | None = None
        self.starts = 0
        self.kills = 0
        self.messages = self.lost = 0
        self._last_at: dict[tuple[int, int], float] = {}
        self.job = job(procs=procs, rpm=rpm or None, in_flight=procs * 6, in_flight_auto=False, retries=50)
        World.current = self

    # --- processes ------------------------------------------------------------------------------------------

    def begin(self, role: str, make: Callable[[], Any], after_s: float) -> Process:
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
        return [process for process in self.processes if process.role == role and not process.is_dead]

    def kill(self, role: str) -> None:
        """SIGKILL one of a kind; workers die with their coordinator, as the kernel has it."""
        found = self.alive(role)
        if not found:
            return
        self.kills += 1
        self.random.choice(found).kill()
        if role == "coordinator":
            for worker in self.alive("worker"):
                worker.kill()

    # --- the network ----------------------------------------------------------------------------------------

    def carry(self, source: Any, target: Any, frame: bytes, deliver: Callable[[Message], Any]) -> None:
        """One frame, in order on its way; to and from a limiter it may be lost or come twice in a storm."""
        self.messages += 1
        random = self.random
        link = (id(source), id(target))
        copies = 1
        if self.is_stormy and "limiter" in (source.process.role, target.process.role):
            copies = random.choice((1,) * 18 + (0, 2))
            self.lost += copies == 0
        for _ in range(copies):
            delay_s = random.choice((0.0002, 0.0002, 0.002, 0.03)) if self.is_stormy else 0.0002
            at = max(self._last_at.get(link, 0.0), self.loop.time() + delay_s)
            self._last_at[link] = at

            def arrive() -> None:
                if target.is_open and not target.process.is_dead:
                    deliver(decode(frame, bytes_max=10**8))

            self.loop.call_at(at, arrive, context=target.context)

    # --- the job --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the command, or start it again."""
        self.starts += 1
        self.disk.recover()
        self.begin("coordinator", self._coordinate, 0.05)

    async def _coordinate(self) -> None:
        me = PROCESS.get()
        sockets = self.folder / f"r{me.pid}"
        hub = Hub(sockets / "c", message_bytes_max=10**8)
        registry = Registry(str(self.folder / "l"))
        made: list[Session] = []

        def limiting(session: Session) -> Limiting:
            return Limiting(
                registry.entry("http://sim", "m", ()),
                Declared(Rates(rpm=self.rpm), 1.0),
                pid=me.pid, label="sim", origin="http://sim", model="m", hide=[], backoff_s=backoff_s,
                note=self.notes.append, on_change=session.tune,
            )  # fmt: skip

        def supervisor(session: Session) -> Supervisor:
            made.append(session)
            return Supervisor(
                self.job, ((),), "run", sockets, pid=me.pid, limitings=[limiting(session)],
                on_death=session.worker_died, note=self.notes.append,
            )  # fmt: skip

        session = Session(
            self.job, hub=hub, ledger=Ledger(), writer=Writer(self), supervisor=supervisor,  # type: ignore[arg-type]
            feed=lambda owner: Feed(self, owner), metrics=Metrics(0.0, [Rates(rpm=self.rpm)]),  # type: ignore[arg-type, return-value]
            answers=("response",), on_tick=lambda session, now: None, note=self.notes.append,
        )  # fmt: skip
        self.ended = await session.run()

    def live(
        self,
        storm_s: float,
        deaths: int,
        roles: tuple[str, ...] = ("worker", "worker", "limiter", "coordinator"),
    ) -> None:
        """Faults for so long, then none; returns when the job is done. Raises Stuck where it never is."""
        random, loop = self.random, self.loop
        for _ in range(deaths):
            loop.call_later(random.uniform(0.2, storm_s), self.kill, random.choice(roles))
        loop.call_later(storm_s, setattr, self, "is_stormy", False)

        async def until_done() -> None:
            self.start()
            while self.ended is None:
                await asyncio.sleep(0.25)
                if self.ended is None and not self.alive("coordinator"):
                    self.start()

        loop.run_until_complete(until_done())
        assert self.ended is not None
        if not self.ended.whole:
            self.trouble.append(f"the run stopped: {self.ended.reason}")

    # --- the judgement --------------------------------------------------------------------------------------

    def wrong(self) -> dict[str, Any]:
        """Everything that should not be; {} is a pass."""
        rows = range(self.rows)
        records = {row: msgspec.json.decode(record) for row, (_, _, record) in self.disk.outcomes.items()}
        repeated = sum(self.server.full.values()) - len(self.server.full)
        found = {
            "trouble": self.trouble,
            "lost": [row for row in rows if row not in self.disk.outcomes],
            # A row that was alone with three workers when they died is poison, as promised, also where chance killed them.
            "not ok": [
                row for row, (ok, kind, _) in self.disk.outcomes.items() if not ok and kind != "poison"
            ],
            "another row's answer": [
                row
                for row, (ok, _, _) in self.disk.outcomes.items()
                if ok and records[row]["response"] != f"answer to row {row}"
            ],
            "repeated beyond doubt": max(0, repeated - self.disk.in_doubt),
            "windows over the limit": self.server.windows_over(self.rpm) if self.rpm else 0,
        }
        return {name: value for name, value in found.items() if value}


def simulate(seed: int, folder: Path, *, deaths: int | None = None, **settings: Any) -> World:
    """One seed's world, lived to its end."""
    random = Random(f"shape {seed}")
    shape = {
        "rows": random.choice((10, 30, 60)),
        "rpm": random.choice((0, 600, 3_000)),
        "procs": random.choice((1, 2, 3)),
    }
    with ExitStack() as stack:
        world = World(seed, folder, **(shape | settings))
        for place in _PATCHED:
            stack.enter_context(patches.patch(*place()))
        stack.callback(world.loop.close)
        asyncio.set_event_loop(world.loop)
        stack.callback(asyncio.set_event_loop, None)
        PROCESS.set(OUTSIDE)
        world.live(random.choice((2.0, 6.0, 15.0)), random.choice((0, 1, 3, 6)) if deaths is None else deaths)
    return world


def _sim_born(pid: int) -> float:
    return next(
        (float(one.pid) for one in World.current.processes if one.pid == pid and not one.is_dead), 0.0
    )


def _sim_exit(code: int) -> None:
    PROCESS.get(OUTSIDE).code = code
    raise Gone


def _patches() -> Iterator[Callable[[], tuple[str, Any]]]:
    def now() -> float:
        return World.current.loop.time()

    def of(name: str, value: Any) -> Callable[[], tuple[str, Any]]:
        return lambda: (name, value)

    yield of("engine.coordinator.supervise.LocalLauncher", Launcher)
    yield of("engine.coordinator.limiting.LocalLauncher", Launcher)
    yield of("engine.coordinator.limiting.Spoke", Spoke)
    yield of("engine.limiter.client.Spoke", Spoke)
    yield of("engine.limiter.server.Hub", Hub)
    yield of("engine.worker.loop.Spoke", Spoke)
    yield of("engine.worker.lane.Fetcher", Fetcher)
    yield of("engine.worker.lane.monotonic", now)
    yield of("engine.worker.slots.monotonic", now)
    yield of("engine.limiter.registry.born", _sim_born)
    yield of("engine.limiter.standing.born", _sim_born)
    yield of("engine.coordinator.limiting.born", _sim_born)
    yield of("engine.limiter.server.LimiterServer._mind", lambda self, run: None)
    seeded = SimpleNamespace(Random=lambda: Random(World.current.random.random()))
    yield of("engine.worker.loop.random", seeded)
    yield of("engine.limiter.server.random", seeded)
    yield of("time.monotonic", now)
    yield of("os.getpid", lambda: PROCESS.get(OUTSIDE).pid)
    yield of("os._exit", _sim_exit)


_PATCHED = list(_patches())
