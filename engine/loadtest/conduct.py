"""Runs a plan: its crew of workers, its quota, one test or a search of many, and Ctrl-C.

Rules of this file:
1. The first Ctrl-C ends the test, and what was measured so far is reported; nothing is sent after it. Before there is
   a crew it ends the start.
2. A name that cannot be resolved is refused before anything is sent.
"""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from yarl import URL

from engine.coordinator.embedded import is_embedded, start_mock
from engine.coordinator.quotas import limiting_of
from engine.core.errors import UsageError
from engine.core.measuring import Measures
from engine.credentials import Auth
from engine.handover import secret_values
from engine.launchers.local import Process
from engine.launchers.private import make_private_folder
from engine.launchers.process import dump_no_core, raise_open_files
from engine.loadtest.crew import Crew, Round, pieces_of
from engine.loadtest.live import LoadView, Moment
from engine.loadtest.model import LoadPlan, Tested
from engine.providers import make_provider
from engine.schedules import length_s
from engine.schedules.profile import Profile, steady
from engine.wire.load_messages import Begin
from engine.worker.fetch import proxy_for

LOOK_EVERY_S: Final = 0.25  # between two looks at the figures for the view
MOCK_END_S: Final = 2.0


class Conductor:
    """A crew and what is shown of it. ``is_interrupted``: a signal has come; nothing more is begun then."""

    def __init__(self, plan: LoadPlan, crew: Crew, view: LoadView) -> None:
        self.plan = plan
        self._crew = crew
        self._view = view
        self._looked = 0.0
        self.is_interrupted = False

    def interrupt(self) -> None:
        """End the test that runs; a second time, its workers with it."""
        if self.is_interrupted:
            self._crew.kill()
        self.is_interrupted = True
        self._crew.halt()

    def note(self, sentence: str) -> None:
        """Something a person should know."""
        self._view.note(sentence)

    def halt(self) -> None:
        """End the test that runs, and no more than that."""
        self._crew.halt()

    async def test(
        self, plan: LoadPlan, on_second: Callable[[Moment, Measures], None] | None = None
    ) -> Tested:
        """Run one test. ``plan`` may differ from the crew's own in its rates, its end and its warm-up alone."""
        schedule = plan.schedule
        pieces = pieces_of(plan)

        def begin(number: int, start: float) -> Begin:
            return Begin(
                test=number,
                start=start,
                pieces=pieces,
                seed=0 if schedule is None else schedule.seed,
                duration_s=plan.duration_s or 0.0,
                requests=plan.requests or 0,
                warmup_s=plan.warmup_s,
                concurrency=plan.concurrency,
            )

        def look(current: Round) -> None:
            now = time.monotonic()
            if self.is_interrupted:
                self._crew.halt()
            if now - self._looked >= LOOK_EVERY_S:
                self._looked = now
                moment = self._moment(plan, current, now)
                self._view.update(moment)
                if on_second is not None:
                    on_second(moment, current.measures)

        started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        measures = Measures(plan.objectives, is_streamed=plan.is_streamed)
        current = await self._crew.run(begin, measures, look)
        notes = [member.notes for member in self._crew.members]
        lasted_s = max((one.lasted_s for one in notes), default=0.0)
        return Tested(
            measures=measures,
            notes=notes,
            started_at=started_at,
            lasted_s=lasted_s,
            window_s=max(0.0, self._planned_s(plan, lasted_s, current) - plan.warmup_s),
            is_interrupted=self.is_interrupted,
            faults=current.faults,
        )

    def _planned_s(self, plan: LoadPlan, lasted_s: float, current: Round) -> float:
        """Until when requests were intended, after the schedule's start."""
        if current.is_halted:
            return lasted_s if plan.duration_s is None else min(lasted_s, plan.duration_s)
        if plan.schedule is None:
            return lasted_s if plan.duration_s is None else plan.duration_s
        ends_s = min(length_s(plan.schedule), plan.duration_s or float("inf"))
        if plan.requests is None or plan.schedule.arrival == "constant":
            return ends_s
        # A count of random gaps: what was expected of them says nothing of when the last one was due.
        last_due_s = max((member.notes.last_due_s for member in self._crew.members), default=0.0)
        return last_due_s if ends_s != plan.duration_s else ends_s

    def _moment(self, plan: LoadPlan, current: Round, now: float) -> Moment:
        return Moment(
            plan=plan,
            since_s=max(0.0, now - current.start),
            in_flight=sum(member.notes.in_flight for member in self._crew.members),
            measures=current.measures,
        )


@asynccontextmanager
async def conductor(plan: LoadPlan, auth: tuple[Auth, ...], view: LoadView) -> AsyncIterator[Conductor]:
    """A crew that is ready; it, its mock provider and all that belongs to it are gone at the end.

    Raises UsageError for a host that is not known, CannotStart where workers do not start, CancelledError or
    KeyboardInterrupt for a signal before they have started.
    """
    dump_no_core()
    raise_open_files()
    loop = asyncio.get_running_loop()
    private = make_private_folder()
    folder = private.path
    mock: Process | None = None
    crew: Crew | None = None
    signals = (signal.SIGINT, signal.SIGTERM)
    start = asyncio.current_task()
    assert start is not None
    for number in signals:
        loop.add_signal_handler(number, start.cancel)
    try:
        target = plan.job.target
        if target.provider == "mock" and is_embedded(target.base_url):
            starting = loop.run_in_executor(None, start_mock, target.base_url, folder)
            try:
                mock, address = await asyncio.shield(starting)
            except asyncio.CancelledError:
                mock, _ = await starting  # so that it is ended like any other
                raise
            plan = replace(plan, job=replace(plan.job, target=replace(target, base_url=address)))
        await _resolve(plan, loop)
        # A test without limits of its own keeps to those of the runs beside it.
        limiting = limiting_of(
            plan.job,
            auth[0],
            label="a load test",
            spare=folder / "q",
            hide=secret_values(auth),
            note=view.note,
            on_change=lambda: None,
        )
        crew = Crew(plan, auth, limiting)
        lead = Conductor(plan, crew, view)
        for number in signals:
            loop.add_signal_handler(number, lead.interrupt)
        await crew.start(lambda: lead.is_interrupted)
        if lead.is_interrupted:
            raise KeyboardInterrupt
        yield lead
    finally:
        if crew is not None:
            await crew.close()
        if mock is not None:
            mock.let_go()
            if mock.wait(MOCK_END_S) is None:
                mock.kill()
                mock.wait(MOCK_END_S)
            mock.close()
        private.remove()
        for number in signals:
            loop.remove_signal_handler(number)
            # What is left to do is to say what was measured: a second Ctrl-C is not to take that away.
            signal.signal(number, signal.SIG_IGN)


def at_rate(plan: LoadPlan, rate_per_s: float) -> LoadPlan:
    """The same test at another, steady rate."""
    assert plan.schedule is not None
    asked = plan.asked | {"rate": rate_per_s}
    return replace(plan, schedule=replace(plan.schedule, pieces=steady(rate_per_s)), asked=asked)


async def _resolve(plan: LoadPlan, loop: asyncio.AbstractEventLoop) -> None:
    origin = make_provider(plan.job.target).origin
    parts = urlsplit(str(origin))
    host = parts.hostname or ""
    if plan.job.trust_env and proxy_for(URL(str(origin))) is not None:
        return  # the proxy resolves it
    try:
        await loop.getaddrinfo(host, parts.port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"The host {host!r} is not known: {why}. Nothing was sent.") from None


def intended_by(plan: LoadPlan, at_s: float) -> int:
    """About how many requests of an open loop are due between the end of its warm-up and a moment of its schedule."""
    assert plan.schedule is not None
    profile = Profile(plan.schedule.pieces)
    at_s = min(at_s, plan.schedule.end_s)
    return max(0, round(profile.expected(at_s) - profile.expected(plan.warmup_s)))
