"""The children of a run: workers, the limiter, the embedded mock. Started, watched, replaced.

Rules of this file:
1. A child is ended by its own pid, never by name. All of them end with the run, whatever way it ends.
2. A dead worker is replaced after a back-off; the run gives up on workers after 20 deaths within a minute.
3. Workers are started one after the other: the first is at work before the last is there.
"""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.config import Job
from engine.coordinator.gauges import LimiterWatch
from engine.credentials import AuthHeader
from engine.handover import WorkerSettings, encode_handover, secret_values
from engine.launchers.local import LocalLauncher, Process
from engine.launchers.process import has_parent_death_signal

DEATHS_MAX = 20
DEATHS_WINDOW_S = 60.0
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
HEALTHY_S = 30.0  # a worker that lived so long starts its back-off anew
SILENT_S = 20.0  # a worker that says nothing for so long is killed, and its rows are leased again
STAGGER_S = 0.4  # between two starts, unless the one before said hello
GUARD_S = 0.5
GENERATIONS_APART = 1_000_000  # pauses are numbered anew after a limiter's restart, above all earlier ones


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


class Supervisor:
    """Keeps ``procs`` workers and the limiter alive."""

    def __init__(
        self,
        job: Job,
        auth: tuple[AuthHeader, ...],
        run_id: str,
        folder: Path,
        *,
        pid: int,
        on_death: Callable[[Child, str], None],
        note: Callable[[str], None],
    ) -> None:
        self._job = job
        self._auth = auth
        self._run_id = run_id
        self._pid = pid
        self._folder = folder
        self._on_death = on_death
        self._note = note
        self._launcher = LocalLauncher(folder, hide=secret_values(auth))
        self._deaths: deque[float] = deque()
        self._keys = 0
        self.token = secrets.token_hex(16)
        self.socket = folder / "c"
        self.limiter_socket = folder / "l" if job.rpm is not None or job.tpm is not None else None
        self.limiter: Process | None = None
        self.limiter_starts = 0
        self.limits = LimiterWatch()
        self.children = [
            Child(slot, share, gate) for slot, (share, gate) in enumerate(shares(job.in_flight, job.procs))
        ]
        self._stopping = False

    # --- starting ---------------------------------------------------------------------------------------------

    def start_limiter(self) -> None:
        """Start the limiter, where a limit is declared."""
        if self.limiter_socket is None:
            return
        line = msgspec.json.encode(
            {
                "socket": str(self.limiter_socket),
                "token": self.token,
                "rpm": self._job.rpm,
                "tpm": self._job.tpm,
                # A limiter that is not the first inherits what an earlier one may have granted.
                "largest": max(1, self.limits.largest) if self.limiter_starts else 0,
                "generation": self.limits.pauses + GENERATIONS_APART * self.limiter_starts,
                "parent_pid": self._pid,
            }
        )
        self.limiter = self._launcher.start("engine.limiter", line + b"\n")
        self.limiter_starts += 1
        self.limits.connect(self.limiter_socket, self.token)

    def tick(self, now: float) -> None:
        """Start who is due, bury who is dead, kill who is silent. To be called several times a second."""
        if self._stopping:
            return
        if self.limiter is not None and self.limiter.poll() is not None:
            self._note(
                f"the limiter ended ({self.limiter.last_words() or self.limiter.poll()}); it is restarted"
            )
            self.limiter.close()
            self.start_limiter()
        for child in self.children:
            if child.process is None:
                if now >= child.start_at and self._may_start(child, now):
                    self._start(child, now)
            elif child.process.poll() is not None:
                self._bury(child, now)
            elif child.peer and now - child.heard > SILENT_S:
                self._note(f"worker {child.slot} has been silent for {SILENT_S:g} s; it is replaced")
                child.process.kill()

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
        child.drained = False
        child.started = child.heard = now
        settings = WorkerSettings(
            job=self._job,
            slot=child.slot,
            run_id=self._run_id,
            token=self.token,
            socket=str(self.socket),
            limiter_socket=str(self.limiter_socket or ""),
            parent_pid=self._pid,
            guard_s=0.0 if has_parent_death_signal() else GUARD_S,
        )
        child.process = self._launcher.start("engine.worker", encode_handover(settings, self._auth))

    def _bury(self, child: Child, now: float) -> None:
        process = child.process
        assert process is not None
        code = process.poll()
        words = process.last_words()
        process.close()
        child.process = None
        child.failures = 1 if now - child.started > HEALTHY_S else child.failures + 1
        child.start_at = now + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (child.failures - 1))
        self._deaths.append(now)
        while self._deaths and now - self._deaths[0] > DEATHS_WINDOW_S:
            self._deaths.popleft()
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        last = words.splitlines()[-1] if words else ""
        self._on_death(child, f"worker {child.slot} ended {how}" + (f": {last}" if last else ""))

    @property
    def sends_beats(self) -> bool:
        """Whether workers are guarded by the coordinator's beats: where the kernel does not do it."""
        return not has_parent_death_signal()

    # --- asking -----------------------------------------------------------------------------------------------

    @property
    def too_many_deaths(self) -> bool:
        """Whether the run should give up on workers."""
        return len(self._deaths) >= DEATHS_MAX

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
        self.limits.close()
        for process in self._processes():
            process.let_go()

    def end(self, timeout_s: float = 2.0) -> None:
        """Every child is gone when this returns: asked first, killed then."""
        self.let_go()
        for process in self._processes():
            if process.wait(timeout_s) is None:
                process.kill()
                process.wait(timeout_s)
            process.close()

    def _processes(self) -> list[Process]:
        found = [child.process for child in self.children if child.process is not None]
        return [*found, self.limiter] if self.limiter is not None else found


def shares(in_flight: int, procs: int, gate: int = 16) -> list[tuple[int, int]]:
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
