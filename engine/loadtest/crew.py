"""The worker processes of a load test: started together, told when to begin, listened to until they have ended.

Rules of this file:
1. A worker that dies is not replaced: its part of the schedule is lost, and the test is told to be invalid.
2. Nothing here happens per request. What workers count is merged exactly.
3. Every process is gone, and the folder with the sockets too, when ``close`` returns.
"""

import asyncio
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from engine.coordinator.limiting import Limiting
from engine.core.errors import CannotStart
from engine.core.histogram import Histogram
from engine.core.measuring import Delta, Measures
from engine.credentials import Auth
from engine.handover import LimiterAddress, LoadSettings, encode_handover, secret_values
from engine.launchers.local import LocalLauncher, Process
from engine.launchers.private import make_private_folder
from engine.loadtest.model import LoadPlan, OnLate, WorkerNotes
from engine.wire.link import Hub
from engine.wire.load_messages import Begin, Figures, Halt, PieceLine
from engine.wire.messages import Close, Hello, Message, Refuse

TICK_S: Final = 0.05
START_MAX_S: Final = 60.0
SILENT_S: Final = 20.0  # figures come every second; who has told nothing for so long hangs
LEAD_S: Final = 0.25  # from the word to begin until the schedule's second 0: every worker has it by then


@dataclass(slots=True)
class Member:
    """One worker of the crew."""

    slot: int
    process: Process
    peer: bytes = b""
    has_ended: bool = False  # this test's last figures have come
    notes: WorkerNotes = field(default_factory=lambda: WorkerNotes(0))
    is_dead: bool = False
    heard: float = 0.0  # when it last told anything


@dataclass(slots=True)
class Round:
    """One test of a crew, while it runs and after."""

    number: int
    start: float  # time.monotonic() of the schedule's second 0
    measures: Measures
    faults: list[str] = field(default_factory=list)
    is_halted: bool = False


class Crew:
    """The workers of one plan. Tests are run one after the other by ``run``."""

    def __init__(self, plan: LoadPlan, auth: tuple[Auth, ...], limiting: Limiting) -> None:
        self._plan = plan
        self._auth = auth
        self._private = make_private_folder()
        self._folder = self._private.path
        self._token = secrets.token_hex(16)
        self._loop = asyncio.get_running_loop()
        self._hub = Hub(self._folder / "c", message_bytes_max=plan.job.limits.message_bytes_max)
        self._hub.listen(self._loop, self._on_message)
        self._limiting = limiting
        self.members: list[Member] = []
        self._round: Round | None = None
        self._changed = asyncio.Event()

    # --- starting -----------------------------------------------------------------------------------------

    async def start(self, is_over: Callable[[], bool]) -> None:
        """All workers are up when this returns, or fewer where ``is_over`` says that nothing is to begin. Raises CannotStart."""
        plan = self._plan
        limiter = self._find_limiter()
        launcher = LocalLauncher(self._folder, hide=secret_values(self._auth))
        for slot in range(plan.job.procs):
            if is_over():
                return
            settings = LoadSettings(
                job=plan.job,
                slot=slot,
                workers=plan.job.procs,
                token=self._token,
                socket=str(self._folder / "c"),
                schedule=plan.schedule,
                rows=plan.rows,
                drops_late=plan.on_late is OnLate.DROP,
                objectives=plan.objectives,
                limiter=limiter,
                parent_pid=os.getpid(),
            )
            line = encode_handover(settings, self._auth)
            try:
                process = await self._loop.run_in_executor(None, launcher.start, "engine.worker.load", line)
            except OSError as error:
                raise CannotStart(
                    f"The system does not start processes: {error}. Nothing was sent."
                ) from None
            self.members.append(Member(slot, process, notes=WorkerNotes(slot)))
        until = self._loop.time() + START_MAX_S
        while not all(member.peer for member in self.members):
            if is_over():  # first: who is to end may have been killed meanwhile
                return
            for member in self.members:
                if member.process.poll() is not None:
                    words = member.process.last_words() or "it said nothing"
                    raise CannotStart(f"A load worker ended at its start: {words}. Nothing was sent.")
            self._limiting.tick(self._loop.time())
            if self._loop.time() > until:
                raise CannotStart(
                    f"The load workers did not start within {START_MAX_S:.0f} s. Nothing was sent."
                )
            await self._wait()

    def _find_limiter(self) -> LimiterAddress:
        """Where permits are to be had, once the limiter is there."""
        limiting = self._limiting
        limiting.tick(self._loop.time())
        return LimiterAddress(str(limiting.socket), limiting.token) if limiting.is_used else LimiterAddress()

    # --- a test -------------------------------------------------------------------------------------------

    async def run(
        self,
        begin: Callable[[int, float], Begin],
        measures: Measures,
        on_second: "Callable[[Round], None]",
    ) -> Round:
        """One test, from its first request to its last figures. ``begin(test, start)`` says what it is.

        ``on_second``: called when there are new figures, at most a few times a second.
        """
        number = self._round.number + 1 if self._round is not None else 1
        current = self._round = Round(number, self._loop.time() + LEAD_S, measures)
        workers = len(self.members)
        for member in self.members:
            member.has_ended = member.is_dead
            member.notes = WorkerNotes(member.slot)
            message = begin(number, current.start)
            if message.concurrency:
                mine = message.concurrency // workers + (member.slot < message.concurrency % workers)
                message = _with_concurrency(message, mine)
            if not member.is_dead and not self._hub.send(member.peer, message):
                current.faults.append(f"worker {member.slot} could not be told to begin")
                member.process.kill()
        while not all(member.has_ended for member in self.members):
            await self._wait()
            self._look(current)
            on_second(current)
        return current

    def kill(self) -> None:
        """End the workers on the spot: what they have told so far is all there will be."""
        for member in self.members:
            member.process.kill()

    def halt(self) -> None:
        """End the test now: what is under way is given up."""
        if self._round is not None and not self._round.is_halted:
            self._round.is_halted = True
            for member in self.members:
                self._hub.send(member.peer, Halt(self._round.number))

    def _look(self, current: Round) -> None:
        now = self._loop.time()
        self._limiting.tick(now)
        for member in self.members:
            if not member.has_ended and now - max(member.heard, current.start) > SILENT_S:
                current.faults.append(f"worker {member.slot} told nothing for {SILENT_S:.0f} s and was ended")
                member.process.kill()
                member.heard = now  # it is buried at a later look
            code = member.process.poll()
            if code is not None and not member.is_dead:
                member.is_dead = member.has_ended = True
                member.peer = b""
                how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                words = member.process.last_words().splitlines()
                current.faults.append(
                    f"worker {member.slot} ended {how}" + (f": {words[-1]}" if words else "")
                )

    async def _wait(self) -> None:
        """Until something was heard, or a tick has passed."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), TICK_S)
        except TimeoutError:
            return

    # --- what is heard ------------------------------------------------------------------------------------

    def _on_message(self, peer: bytes, message: Message) -> None:
        if isinstance(message, Hello):
            self._greet(peer, message)
        elif isinstance(message, Figures):
            member = next((one for one in self.members if one.peer == peer and peer), None)
            if member is not None and self._round is not None and message.test == self._round.number:
                self._count(member, message, self._round)
        self._changed.set()

    def _greet(self, peer: bytes, hello: Hello) -> None:
        member = next((one for one in self.members if one.slot == hello.slot and not one.peer), None)
        if member is None or not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            self._hub.send(peer, Refuse("its token or its slot is not one of this test"))
            return
        member.peer = peer

    def _count(self, member: Member, figures: Figures, current: Round) -> None:
        try:
            current.measures.add(
                Delta(
                    tuple(figures.counts),
                    figures.errors,
                    tuple(figures.met),
                    figures.histograms,
                    {
                        one.second: (
                            (one.intended, one.sent, one.completed, one.failed, one.dropped),
                            one.latency,
                            one.ttft,
                        )
                        for one in figures.seconds
                    },
                )
            )
            lag = Histogram.from_bytes(figures.loop_lag)
        except (ValueError, TypeError) as error:
            current.faults.append(f"the figures of worker {member.slot} cannot be read: {error}")
            return
        notes = member.notes
        member.heard = self._loop.time()
        notes.loop_lag.merge(lag)
        notes.cpu_s, notes.sending_s, notes.lasted_s = figures.cpu_s, figures.sending_s, figures.lasted_s
        notes.in_flight, notes.in_flight_peak = figures.in_flight, figures.in_flight_peak
        notes.in_flight_max = figures.in_flight_max
        notes.held_back, notes.quota_waited = figures.held_back, figures.quota_waited
        notes.cut_off_bytes = figures.cut_off_bytes
        notes.last_sent_s, notes.last_due_s = figures.last_sent_s, figures.last_due_s
        member.has_ended = member.has_ended or figures.is_last

    # --- the end ------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End every process; asked first, killed then."""
        for member in self.members:
            if member.peer:
                self._hub.send(member.peer, Close())
        await self._loop.run_in_executor(None, self._end_members)
        self._limiting.leave()
        await self._loop.run_in_executor(None, self._limiting.bury)
        self._hub.close()
        self._private.remove()

    def _end_members(self) -> None:
        for member in self.members:
            if member.process.wait(2.0) is None:
                member.process.kill()
                member.process.wait(2.0)
            member.process.close()


def _with_concurrency(begin: Begin, concurrency: int) -> Begin:
    return msgspec.structs.replace(begin, concurrency=concurrency)


def pieces_of(plan: LoadPlan) -> list[PieceLine]:
    """The plan's rates as a message has them."""
    schedule = plan.schedule
    if schedule is None:
        return []
    return [PieceLine(one.rate_from_per_s, one.rate_to_per_s, one.length_s) for one in schedule.pieces]
