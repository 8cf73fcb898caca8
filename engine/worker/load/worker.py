"""The load worker: greets its coordinator, runs the tests it is told to, and reports what it counts once a second.

Rules of this file:
1. No message is about a single request: what is due when follows from seed, slot and index (``engine.schedules``).
2. Without its coordinator it sends nothing: the end of its standard input ends it on the spot.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final

from engine.core.measuring import Measures
from engine.core.model import Target
from engine.credentials import Auth
from engine.handover import LoadSettings
from engine.launchers.process import raise_open_files
from engine.providers import make_provider
from engine.providers.base import Provider
from engine.schedules import numbered_arrivals
from engine.schedules.base import Schedule
from engine.schedules.profile import Piece, Profile
from engine.wire.link import Spoke
from engine.wire.load_messages import Begin, Figures, Halt, SecondLine
from engine.wire.messages import Close, Hello, Message, Refuse
from engine.worker.fetch import Fetcher
from engine.worker.load.calls import Calls
from engine.worker.load.drive import Drive
from engine.worker.load.exchanges import AnswerExchange, Exchange, OnLanded, StreamExchange
from engine.worker.load.permits import Permits

SWEEP_S: Final = 0.1
FIGURES_S: Final = 1.0
SPARE_FILES: Final = 64  # descriptors a worker needs besides one for each connection
EXIT_REFUSED: Final = 3
_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORTS_USUAL: Final = 28_232  # Linux: 32768 to 60999


class LoadWorker:
    """One worker process, from its Hello to its exit."""

    def __init__(self, settings: LoadSettings, auth: tuple[Auth, ...]) -> None:
        job = settings.job
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._link = Spoke(Path(settings.socket), message_bytes_max=job.limits.message_bytes_max)
        provider = make_provider(job.target)
        self._calls = Calls(job, provider, settings.rows)
        self._make_exchange = exchange_maker(job.target, provider)
        self._fetcher = Fetcher(
            origin=provider.origin,
            auth=auth[0],
            timeouts=job.timeouts,
            limits=job.limits,
            ca_file=job.ca_file,
            trust_env=job.trust_env,
            wire=job.wire,
            keyed=False,
        )
        self._permits: Permits | None = None
        if settings.limiter.socket:
            self._permits = Permits(
                settings.limiter, settings.slot, settings.parent_pid, provider, self._granted
            )
        self._in_flight_max = max(1, min(raise_open_files() - SPARE_FILES, ports() // settings.workers))
        self._drive: Drive | None = None
        self._test = 0
        self._start = 0.0
        self._figures_timer: asyncio.TimerHandle | None = None
        self._ended = self._loop.create_future()

    async def run(self) -> None:
        """Serve until the coordinator says Close."""
        self._link.listen(self._loop, self._on_message)
        self._link.send(Hello(token=self._settings.token, slot=self._settings.slot, pid=os.getpid()))
        sweep = self._loop.call_later(SWEEP_S, self._sweep)
        try:
            await self._ended
        finally:
            sweep.cancel()
            await self._fetcher.close()
            if self._permits is not None:
                self._permits.close()
            self._link.close(linger_ms=1000)

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Begin):
            self._begin(message)
        elif isinstance(message, Halt):
            if self._drive is not None and message.test == self._test:
                self._drive.halt()
        elif isinstance(message, Close):
            if not self._ended.done():
                self._ended.set_result(None)
        elif isinstance(message, Refuse):
            sys.stderr.write(f"the coordinator refused this worker: {message.reason}\n")
            os._exit(EXIT_REFUSED)

    def _begin(self, begin: Begin) -> None:
        settings = self._settings
        self._test, self._start = begin.test, begin.start
        schedule = schedule_of(begin, settings.schedule)
        own = None
        if begin.concurrency and begin.requests:
            own = range(settings.slot, begin.requests, settings.workers)
        self._drive = Drive(
            start=begin.start,
            arrivals=(
                None if schedule is None else numbered_arrivals(schedule, settings.slot, settings.workers)
            ),
            own=own,
            concurrency=begin.concurrency,
            duration_s=begin.duration_s or float("inf"),
            warmup_s=begin.warmup_s,
            drops_late=settings.drops_late,
            in_flight_max=self._in_flight_max,
            measures=Measures(settings.objectives, is_streamed=settings.job.target.stream),
            fetcher=self._fetcher,
            calls=self._calls,
            make_exchange=self._make_exchange,
            permits=self._permits,
            left_after=lambda at_s: 0 if schedule is None else left_after(schedule, at_s, settings.workers),
            on_end=self._on_end,
        )
        self._figures_timer = self._loop.call_later(
            max(0.0, begin.start - monotonic()) + FIGURES_S, self._tell
        )

    def _granted(self, many: int, generation: int) -> None:
        if self._drive is not None:
            self._drive.granted(many, generation)

    def _sweep(self) -> None:
        self._fetcher.sweep(monotonic())
        self._loop.call_later(SWEEP_S, self._sweep)

    # --- figures ------------------------------------------------------------------------------------------

    def _on_end(self) -> None:
        if self._figures_timer is not None:
            self._figures_timer.cancel()
        self._send_figures(is_last=True)
        self._drive = None

    def _tell(self) -> None:
        self._figures_timer = self._loop.call_later(FIGURES_S, self._tell)
        self._send_figures(is_last=False)

    def _send_figures(self, *, is_last: bool) -> None:
        drive = self._drive
        if drive is None:
            return
        delta = drive.measures.take()
        lag, drive.loop_lag = drive.loop_lag, type(drive.loop_lag)()
        self._link.send(
            Figures(
                test=self._test,
                is_last=is_last,
                counts=list(delta.counts),
                errors=delta.errors,
                met=list(delta.met),
                histograms=delta.histograms,
                seconds=[
                    SecondLine(second, *counts, latency, ttft)
                    for second, (counts, latency, ttft) in delta.seconds.items()
                ],
                loop_lag=lag.to_bytes(),
                cpu_s=drive.sending_cpu_s,
                sending_s=drive.sending_s,
                lasted_s=monotonic() - self._start,
                in_flight=drive.in_flight,
                in_flight_peak=drive.in_flight_peak,
                in_flight_max=drive.in_flight_max,
                held_back=drive.held_back,
                quota_waited=drive.quota_waited,
                cut_off_bytes=drive.cut_off_bytes,
                last_sent_s=drive.last_sent - self._start,
                last_due_s=drive.last_due_s,
            )
        )


def exchange_maker(target: Target, provider: Provider) -> Callable[[OnLanded], Exchange]:
    """What makes slots for the replies of this target."""
    if target.provider == "http":
        return Exchange
    if target.stream:
        dialect = provider.dialects[target.endpoint]
        return lambda on_landed: StreamExchange(on_landed, dialect)
    return lambda on_landed: AnswerExchange(on_landed, provider)


def schedule_of(begin: Begin, kind: Schedule | None) -> Schedule | None:
    """The schedule of one test: of the kind that the settings name, with this test's rates and end. None: closed loop."""
    if kind is None or begin.concurrency:
        return None
    return replace(
        kind,
        pieces=tuple(Piece(*piece) for piece in begin.pieces),
        seed=begin.seed,
        duration_s=begin.duration_s or None,
        requests=begin.requests or None,
    )


def left_after(schedule: Schedule, at_s: float, workers: int) -> int:
    """About how many requests of one worker are due after a moment; a trace is always walked to its end."""
    if not schedule.pieces or schedule.duration_s is None:
        return 0
    profile = Profile(schedule.pieces)
    return max(0, round((profile.expected(schedule.duration_s) - profile.expected(at_s)) / workers))


def ports() -> int:
    """How many connections this machine can have to one address at once."""
    try:
        low, high = map(int, _PORTS.read_text().split())
    except (OSError, ValueError):
        return _PORTS_USUAL
    return max(1, high - low + 1)
