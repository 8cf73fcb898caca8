"""A drive on a virtual clock, with a wire that answers as it is told."""

from collections.abc import Callable
from typing import Any

from clockwork import Clockwork

from engine.core.errors import ErrorKind
from engine.core.measuring import Measures
from engine.core.model import Call, Failure, Reply
from engine.schedules import numbered_arrivals
from engine.schedules.base import Schedule
from engine.worker.exchange import NEVER, Flight
from engine.worker.load.drive import Drive
from engine.worker.load.exchanges import Exchange

CALL = Call("GET", "http://127.0.0.1/", (), None)
OK = Reply(200, {}, b"ok")


class Wire:
    """Stands where the fetcher does. ``answer(n)``: (seconds until the n-th request's end, its result)."""

    def __init__(self, clock: Clockwork, answer: Callable[[int], tuple[float, Reply | Failure]]) -> None:
        self._clock, self._answer = clock, answer
        self.sent_at: list[float] = []
        self.costs_s = 0.0  # of sending one
        self._flights: dict[Flight, tuple[Any, Any]] = {}

    def register(self, flight: Flight) -> None:
        pass

    def start(self, call: Call, key: str, flight: Flight, on_done: Any, sink: Any) -> None:
        self.sent_at.append(self._clock.now)
        delay, result = self._answer(len(self.sent_at) - 1)
        flight.sent = flight.first_byte = self._clock.now
        flight.deadline = self._clock.now + 60.0
        self._clock.spend(self.costs_s)
        timer = self._clock.call_later(delay, self._end, flight, result)
        self._flights[flight] = (timer, on_done)

    def _end(self, flight: Flight, result: Reply | Failure) -> None:
        _, on_done = self._flights.pop(flight)
        flight.deadline = NEVER
        on_done(result)

    def sweep(self, now: float) -> None:
        for flight, (timer, _) in list(self._flights.items()):
            timer.cancel()
            self._end(flight, Failure(ErrorKind.TIMEOUT, "cut off"))


class Scene:
    """One drive, from the beginning to its end."""

    def __init__(self, clock: Clockwork) -> None:
        self.clock = clock
        self.start = clock.now + 0.25
        self.ends = 0
        self.measures = Measures()
        self.wire = Wire(clock, lambda number: (0.01, OK))

    def drive(
        self, schedule: Schedule | None = None, *, worker: int = 0, workers: int = 1, **changes: Any
    ) -> Drive:
        arrivals = None if schedule is None else numbered_arrivals(schedule, worker, workers)
        end_s = float("inf") if schedule is None else schedule.end_s
        settings: dict[str, Any] = {
            "start": self.start, "arrivals": arrivals, "own": None, "concurrency": 0, "duration_s": end_s,
            "warmup_s": 0.0, "drops_late": False, "in_flight_max": 1000, "measures": self.measures, "fetcher": self.wire,
            "calls": [CALL] * 1_000_000, "make_exchange": Exchange, "permits": None,
            "left_after": lambda at_s: 0, "on_end": self._on_end,
        }  # fmt: skip
        return Drive(**(settings | changes))

    def _on_end(self) -> None:
        self.ends += 1


class BellClock:
    """Stands where the alarm does."""

    def __init__(self, clock: Clockwork, callback: Callable[[], None]) -> None:
        self._clock, self._callback = clock, callback
        self._timer: Any = None

    def set(self, at: float) -> None:
        self.close()
        self._timer = self._clock.call_at(at, self._callback)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
