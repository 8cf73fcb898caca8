"""The children of a run, its workers: started, watched, replaced.

Rules of this file:
1. A child is ended by its own pid, never by name. All of them end with the run, whatever way it ends.
2. A dead worker is replaced after a back-off. The run gives up when that is hopeless: after 20 deaths within a
   minute, or 8 in a row of workers that never said hello, or of limiters that lived shortly; or as soon as a worker says
   that what it was told cannot work.
3. Workers are started one after the other: the first is at work before the last is there.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.config import GATE, Job
from engine.coordinator.blame import who_may_hold
from engine.coordinator.limiting import Limiting
from engine.core.errors import ExitCode, UsageError
from engine.credentials import Auth
from engine.handover import LimiterAddress, Surroundings, WorkerSettings, encode_handover, secret_values
from engine.launchers.local import LocalLauncher, Process
from engine.launchers.process import has_parent_death_signal

DEATHS_MAX = 20
DEATHS_WINDOW_S = 60.0
STILLBORN_MAX = 8
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
HEALTHY_S = 30.0  # a worker that lived so long starts its back-off anew
SILENT_S = 20.0  # a worker that says nothing for so long is killed, and its rows are leased again
START_MAX_S = 60.0  # a worker that has not said hello by then hangs
STAGGER_S = 0.4  # between two starts, unless the one before said hello
GUARD_S = 0.5
CANNOT_START = "workers cannot start"


@dataclass(slots=True)
class Child:
    """One worker's slot and whoever fills it now. ``key`` is new for every incarnation."""

    slot: int
    in_flight: int
    gate: int
    key: int = 0
    process: Process | None = None
    peer: bytes = b""  # "" until it said hello
    started: float = 0.0
    heard: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    want: int = 0
    busy: int = 0  # requests in flight, as last told
    waiting: int = 0
    sleeping: int = 0
    starved_s: float = 0.0
    drained: bool = False
    was_silent: bool = False  # it was killed because it said nothing


class Supervisor:
    """Keeps ``procs`` workers alive, and in touch with the limiters of their endpoints, one for each."""

    def __init__(
        self,
        job: Job,
        auth: tuple[Auth, ...],
        run_id: str,
        folder: Path,
        *,
        pid: int,
        limitings: list[Limiting],
        on_death: Callable[[Child, str], None],
        note: Callable[[str], None],
        surroundings: Surroundings | None = None,
        tell: Callable[[list[str]], None] | None = None,
    ) -> None:
        """``tell``: takes the lines that functions in the workers print; None where there are none."""
        self._job = job
        self._surroundings = surroundings or Surroundings()
        self._auth = auth
        self._run_id = run_id
        self._pid = pid
        self._folder = folder
        self._on_death = on_death
        self._note = note
        self._tell = tell
        self._launcher = LocalLauncher(folder, hide=secret_values(auth))
        self._deaths: deque[float] = deque()
        self._keys = 0
        self._stillborn = 0  # deaths since a worker last said hello
        self.token = secrets.token_hex(16)
        self.socket = folder / "c"
        self.limitings = limitings
        self._quotas = list(dict.fromkeys(limitings))  # steps may share one
        self.children = [
            Child(slot, share, gate)
            for slot, (share, gate) in enumerate(shares(job.in_flight, job.procs, job.gate))
        ]
        self._stopping = False
        self.hopeless = ""  # why the run should give up on its children, one sentence

    # --- the limiters -----------------------------------------------------------------------------------------

    def check_limits(self, limits: dict[str, int], endpoint: int = 0) -> None:
        """Raises UsageError for a limit below a single call of this run."""
        largest = self.limitings[endpoint].largest
        if limits.get("tpm", largest) < largest:
            raise UsageError(
                f"A single call cost {largest} tokens: with fewer a minute such a one could never pass."
            )

    def set_limits(self, limits: dict[str, int], endpoint: int = 0) -> None:
        """Other limits of an endpoint from now on, which ``check_limits`` has let pass."""
        self.limitings[endpoint].declare(limits)

    # --- starting ---------------------------------------------------------------------------------------------

    def check_in_flight(self, in_flight: int) -> None:
        """Raises UsageError below one for each worker."""
        if in_flight < len(self.children):
            raise UsageError(f"{len(self.children)} workers need at least as many requests in flight.")

    def set_in_flight(self, in_flight: int) -> None:
        """Divide another in-flight limit over the workers, which ``check_in_flight`` has let pass."""
        for child, (share, gate) in zip(self.children, shares(in_flight, len(self.children)), strict=True):
            child.in_flight, child.gate = share, gate

    def tick(self, now: float) -> None:
        """Start who is due, bury who is dead, kill who is silent. To be called several times a second."""
        if self._stopping:
            return
        for limiting in self._quotas:
            limiting.tick(now)
            self.hopeless = self.hopeless or limiting.hopeless
        for child in self.children:
            if child.process is None:
                if now >= child.start_at and self._may_start(child, now):
                    self._start(child, now)
            elif child.process.poll() is not None:
                self._bury(child, now)
                continue
            elif now - child.heard > (SILENT_S if child.peer else START_MAX_S):
                holds = who_may_hold(self._job) if child.peer else ""
                self._note(
                    f"worker {child.slot} has been silent for {now - child.heard:.0f} s; it is replaced"
                    + (f". {holds}" if holds else "")
                )
                child.process.kill()
                child.was_silent = True
                child.heard = now  # it is buried at a later tick; until then it is not killed again
            self._pass_on(child)

    def _pass_on(self, child: Child, *, is_over: bool = False) -> None:
        """What it printed. Before it said hello there are only its own complaints, which ``_bury`` tells."""
        if self._tell is not None and child.process is not None and child.peer:
            self._tell(child.process.lines(is_over=is_over))

    def _may_start(self, child: Child, now: float) -> bool:
        """One at a time: a start costs a third of a second of CPU, which the first worker needs for itself."""
        return not any(
            other.process is not None and not other.peer and now - other.started < STAGGER_S
            for other in self.children
            if other is not child
        )

    def _start(self, child: Child, now: float) -> None:
        self._keys += 1
        child.key = self._keys
        child.peer = b""
        child.want = child.busy = child.waiting = child.sleeping = 0
        child.starved_s = 0.0
        child.drained = child.was_silent = False
        child.started = child.heard = now
        settings = WorkerSettings(
            job=self._job,
            slot=child.slot,
            run_id=self._run_id,
            token=self.token,
            socket=str(self.socket),
            limiters=tuple(
                LimiterAddress(str(one.socket) if one.is_used else "", one.token) for one in self.limitings
            ),
            parent_pid=self._pid,
            guard_s=0.0 if has_parent_death_signal() else GUARD_S,
            surroundings=self._surroundings,
        )
        try:
            line = encode_handover(settings, self._auth)
            child.process = (
                self._launcher.start("engine.worker", line)
                if self._tell is None
                else self._launcher.start("engine.worker", line, tells=True)
            )
        except OSError as error:
            child.failures += 1
            child.start_at = now + backoff_s(child.failures)
            self._count_death(child, f"the system does not start processes: {error}", now)

    def _bury(self, child: Child, now: float) -> None:
        process = child.process
        assert process is not None
        code = process.poll()
        words = process.last_words()
        self._pass_on(child, is_over=True)
        process.close()
        child.process = None
        child.failures = 1 if now - child.started > HEALTHY_S else child.failures + 1
        child.start_at = now + backoff_s(child.failures)
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        last = words.splitlines()[-1].rstrip(".") if words else ""
        story = f"worker {child.slot} ended {how}" + (f": {last}" if last else "")
        is_refused = code == ExitCode.USAGE and not child.peer
        self._count_death(child, last if is_refused and last else story, now, is_refused=is_refused)
        self._on_death(child, story)

    def _count_death(self, child: Child, story: str, now: float, *, is_refused: bool = False) -> None:
        self._deaths.append(now)
        while now - self._deaths[0] > DEATHS_WINDOW_S:
            self._deaths.popleft()
        if not child.peer:
            self._stillborn += 1
        if is_refused:
            self.hopeless = f"{CANNOT_START}: {story}"  # the next one would be told the same
        elif self._stillborn >= STILLBORN_MAX:
            self.hopeless = f"{CANNOT_START}: {story}"
        elif len(self._deaths) >= DEATHS_MAX:
            self.hopeless = f"workers keep dying: {story}"

    @property
    def sends_beats(self) -> bool:
        """Whether workers are guarded by the coordinator's beats: where the kernel does not do it."""
        return not has_parent_death_signal()

    # --- asking -----------------------------------------------------------------------------------------------

    def greeted(self, child: Child, peer: bytes, now: float) -> None:
        """A worker has said hello."""
        child.peer = peer
        child.heard = now
        self._stillborn = 0

    def child_of(self, peer: bytes) -> Child | None:
        """The worker behind a socket identity, if it is the slot's present one."""
        for child in self.children:
            if child.peer == peer and peer:
                return child
        return None

    # --- ending -----------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """No more restarts; every child is told to exit by the end of its standard input."""
        self._stopping = True
        for process in self._processes():
            process.let_go()

    async def end(self, loop: asyncio.AbstractEventLoop, timeout_s: float = 2.0) -> None:
        """Every child is gone when this returns, and the limiters are left: asked first, killed then."""
        self.let_go()
        await loop.run_in_executor(None, self._end_children, timeout_s)
        for limiting in self._quotas:
            limiting.leave()
        for limiting in self._quotas:
            await loop.run_in_executor(None, limiting.bury)

    def _end_children(self, timeout_s: float) -> None:
        for process in self._processes():
            if process.wait(timeout_s) is None:
                process.kill()
                process.wait(timeout_s)
        for child in self.children:
            self._pass_on(child, is_over=True)
        for process in self._processes():
            process.close()

    def _processes(self) -> list[Process]:
        return [child.process for child in self.children if child.process is not None]


def backoff_s(failures: int) -> float:
    """How long to wait before the next start, after so many in a row that failed. Bounds: ``failures >= 1``.

    >>> [backoff_s(failures) for failures in (1, 2, 3, 99)]
    [0.1, 0.2, 0.4, 5.0]
    """
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 30))


def shares(in_flight: int, procs: int, gate: int = GATE) -> list[tuple[int, int]]:
    """Each worker's part of the in-flight limit and of the gate; no more workers than there are requests.

    >>> shares(10, 4, gate=6)
    [(3, 2), (3, 2), (2, 1), (2, 1)]
    """
    workers = max(1, min(procs, in_flight))
    return [
        (
            in_flight // workers + (slot < in_flight % workers),
            gate // workers + (slot < gate % workers),
        )
        for slot in range(workers)
    ]
