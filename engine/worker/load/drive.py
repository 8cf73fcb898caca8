"""One load test in one worker: sends what is due, and counts what became of it.

Rules of this file:
1. In an open loop nothing that ends or fails moves the time of what is sent next: it follows from the schedule alone.
2. Who is late catches up as fast as the loop allows, or drops what is late, as was asked; both are counted.
3. When the time is up, what is late is dropped and counted; what is under way may end.
4. In a closed loop a request is intended at the moment its slot is free.
5. What was held back, or waited for permits, counts as figures do: not what was intended during the warm-up.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from time import monotonic, process_time
from typing import Final

from engine.core.errors import ErrorKind, RowError
from engine.core.histogram import Histogram
from engine.core.load_errors import CUT_OFF, LoadError
from engine.core.measuring import LATE_S, Measures
from engine.core.model import Failure, Reply
from engine.worker.fetch import Fetcher
from engine.worker.load.calls import Calls
from engine.worker.load.exchanges import Exchange, OnLanded
from engine.worker.load.pacing import Alarm
from engine.worker.load.permits import Permits

BURST_MAX: Final = 32  # sent in a row before replies are read: a worker that catches up must not go deaf
DROPS_MAX: Final = 1000  # counted in a row, likewise
DROPS_COUNTED_MAX: Final = (
    500_000  # one by one; of more the rest is taken from the schedule's integral, to end on time
)
WAITING_MAX: Final = 10_000  # for permits; further ones wait in the schedule
LAG_EVERY_S: Final = 0.02


class Drive:
    """One test. ``arrivals``: (index, seconds after ``start``) of this worker's requests; None: a closed loop.

    Ends by itself when everything was sent or dropped, and has ended: ``on_end`` is called then, once.
    """

    def __init__(
        self,
        *,
        start: float,
        arrivals: Iterator[tuple[int, float]] | None,
        own: range | None,
        concurrency: int,
        duration_s: float,
        warmup_s: float,
        drops_late: bool,
        in_flight_max: int,
        measures: Measures,
        fetcher: Fetcher,
        calls: Calls,
        make_exchange: Callable[[OnLanded], Exchange],
        permits: Permits | None,
        left_after: Callable[[float], int],
        on_end: Callable[[], None],
    ) -> None:
        """``own``: the indices of a closed loop; None where only the time ends it, which is infinite in ``duration_s``
        where only the count does. ``left_after(at_s)``: about how many of this worker's are due after a moment."""
        self._loop = asyncio.get_running_loop()
        self._start = start
        self._arrivals = arrivals
        self._indices = iter(own) if own is not None else count()
        self._concurrency = concurrency
        self._end = start + duration_s
        self._warmup_s = warmup_s
        self._drops_late = drops_late
        self.in_flight_max = in_flight_max
        self.measures = measures
        self._fetcher = fetcher
        self._calls = calls
        self._make_exchange = make_exchange
        self._permits = permits
        self._left_after = left_after
        self._on_end = on_end
        self._idle: list[Exchange] = []
        self._next: tuple[int, float] | None = None
        self._waiting: deque[Exchange] = deque()  # for permits
        self._is_held = False  # by the number that may be in flight, or wait for permits
        self._held_until = start  # what was due before that was held back
        self._drops = 0
        self._is_cancelled = False
        self._is_sending = True
        self._is_over = False
        self.in_flight = self.in_flight_peak = self.held_back = self.quota_waited = 0
        self.cut_off_bytes = 0  # of streams that did not end by themselves
        self.last_sent = start
        self.last_due_s = 0.0  # of what was sent or dropped, after the start
        self.sending_s = self.sending_cpu_s = 0.0  # how long it sent after the warm-up, and the CPU of that
        self._begun_at, self._begun_cpu_s = start, process_time()  # of that, the beginning
        self.loop_lag = Histogram()
        self._alarm = Alarm(self._loop, self._pump if arrivals is not None else self._fill)
        self._lag_due = 0.0
        self._lag_timer = self._loop.call_later(LAG_EVERY_S, self._look_at_lag)
        self._end_timer: asyncio.TimerHandle | None = None
        if arrivals is not None and duration_s < float("inf"):
            # Whoever is held, or far behind, still ends on time.
            self._end_timer = self._loop.call_later(
                max(0.0, self._end + 2 * LATE_S - monotonic()), self._stop_sending
            )
        if arrivals is not None:
            self._next = next(arrivals, None)
        self._alarm.set(start)

    def halt(self) -> None:
        """Send nothing more, and give up what is under way."""
        if self._is_sending:
            self._note_sending(monotonic())
        self._is_sending = False
        self._is_cancelled = True
        self._give_up_waiting()
        self._fetcher.sweep(1e300)  # later than any deadline there is
        self._maybe_over()

    # --- sending ------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what is due of an open loop, and set the alarm for what is due next."""
        arrivals, now = self._arrivals, monotonic()
        assert arrivals is not None
        sends_left, drops_left = BURST_MAX, DROPS_MAX
        while sends_left and drops_left:
            if not self._is_sending:
                return
            if self._next is None:
                self._stop_sending()
                return
            index, at_s = self._next
            due = self._start + at_s
            if due > now:
                self._alarm.set(due)
                return
            is_late = now - due > LATE_S
            if is_late and now >= self._end:
                self._stop_sending()
                return
            if is_late and self._drops_late:
                self._drop(at_s)
                drops_left -= 1
            elif len(self._waiting) >= WAITING_MAX:
                self._is_held = True  # by the quota, which tells of itself
                return
            elif self.in_flight - len(self._waiting) >= self.in_flight_max:
                self._is_held = True
                self._held_until = float("inf")
                return
            else:
                self.held_back += due < self._held_until and at_s >= self._warmup_s
                self._send(index, at_s, due, now)
                sends_left -= 1
            self._next = next(arrivals, None)
            now = monotonic()
        self._loop.call_soon(self._pump)

    def _fill(self) -> None:
        """Send as many as may be under way in a closed loop."""
        now = monotonic()
        many = min(self._concurrency, self.in_flight_max)
        self.held_back = self._concurrency - many
        for _ in range(many):
            if not self._send_next(now):
                break
            now = monotonic()
        if self._end < float("inf"):
            self._loop.call_later(max(0.0, self._end - now), self._stop_sending)

    def _send_next(self, now: float) -> bool:
        """The next one of a closed loop, if there is one."""
        index = next(self._indices, None) if self._is_sending and now < self._end else None
        if index is None:
            self._stop_sending()
            return False
        self._send(index, now - self._start, now, now)
        return True

    def _send(self, index: int, at_s: float, intended: float, now: float) -> None:
        if self._idle:
            exchange = self._idle.pop()
        else:
            exchange = self._make_exchange(self._landed)
            self._fetcher.register(exchange)
        if at_s > self.last_due_s:
            self.last_due_s = at_s
        in_flight = self.in_flight = self.in_flight + 1
        if in_flight > self.in_flight_peak:
            self.in_flight_peak = in_flight
        try:
            exchange.begin(self._calls[index], at_s, intended)
        except RowError as error:  # every row was tried before the test: this is a fault of ours
            exchange.at_s = at_s
            exchange.timing.intended = exchange.timing.sent = now
            failure = Failure(ErrorKind.BAD_INPUT, error.message)
            self._loop.call_soon(exchange.landed, failure)
            return
        if self._permits is None:
            self._launch(exchange, now)
        else:
            self._waiting.append(exchange)
            assert exchange.call is not None
            self._permits.need(exchange.call.charge)

    def _launch(self, exchange: Exchange, now: float) -> None:
        call = exchange.call
        assert call is not None
        exchange.timing.sent = self.last_sent = now
        self._fetcher.start(call, "", exchange, exchange.landed, exchange.sink)

    def granted(self, many: int, generation: int) -> None:
        """The limiter lets the first ``many`` of those that wait go."""
        now = monotonic()
        for _ in range(min(many, len(self._waiting))):
            exchange = self._waiting.popleft()
            exchange.generation = generation
            is_late = now - exchange.timing.intended > LATE_S
            self.quota_waited += is_late and exchange.at_s >= self._warmup_s
            self._launch(exchange, now)
            now = monotonic()
        self._go_on()

    def _go_on(self) -> None:
        """What was held may be sent."""
        if self._is_held and self._is_sending:
            self._is_held = False
            if self._held_until == float("inf"):
                self._held_until = monotonic()
            self._pump()

    # --- landing ------------------------------------------------------------------------------------------

    def _landed(self, exchange: Exchange, result: Reply | Failure) -> None:
        now = monotonic()
        timing, at_s, measures = exchange.timing, exchange.at_s, self.measures
        error = exchange.judge(result, now)
        if self._permits is not None and exchange.call is not None:
            self._permits.settle(
                exchange.call.charge, timing, result, exchange.generation, age_s=now - timing.sent
            )
        if self._is_cancelled and error:
            error = LoadError.CANCELLED
        if error in CUT_OFF:  # those of the warm-up too: it is the measured requests that they keep waiting
            self.cut_off_bytes += exchange.streamed_bytes
        if at_s < self._warmup_s:
            measures.warmed_up()
        else:
            measures.ended(timing, at_s, error, is_late=timing.sent - timing.intended > LATE_S)
            if exchange.gaps_us and not error:
                measures.gaps(exchange.gaps_us)
        self.in_flight -= 1
        self._idle.append(exchange)
        if not self._is_sending:
            self._maybe_over()
        elif self._arrivals is None:
            self._send_next(now)
        elif self._is_held:
            self._go_on()

    # --- the end ------------------------------------------------------------------------------------------

    def _drop(self, at_s: float, many: int = 1) -> None:
        if at_s > self.last_due_s:
            self.last_due_s = at_s
        if at_s >= self._warmup_s:
            self.measures.dropped(at_s, many)

    def _stop_sending(self) -> None:
        """Everything was sent, or the time is up."""
        if self._is_sending:
            self._is_sending = False
            self._note_sending(monotonic())
            self._lag_timer.cancel()
            if self._held_until == float("inf"):
                self.held_back += 1  # at least the one that stood first
            left_s = self._end - monotonic()
            if left_s <= 0.0:
                self._give_up_waiting()
            elif self._waiting and left_s < float("inf"):
                self._loop.call_later(left_s, self._give_up_waiting)
            self._drop_rest()

    def _give_up_waiting(self) -> None:
        """What has no permit yet is not sent."""
        if self._permits is not None and self._waiting and not self._is_sending:
            self._permits.drop_queue()
            for exchange in self._waiting:
                self._drop(exchange.at_s)
                self.in_flight -= 1
                self._idle.append(exchange)
            self._waiting.clear()
            self._maybe_over()

    def _drop_rest(self) -> None:
        for _ in range(DROPS_MAX):
            if self._next is None or self._is_cancelled:
                self._next = None
                self._maybe_over()
                return
            at_s = self._next[1]
            self._drop(at_s)
            self._drops += 1
            assert self._arrivals is not None
            if self._drops >= DROPS_COUNTED_MAX:
                self._drop(at_s, self._left_after(at_s))
                self._next = None
                continue
            self._next = next(self._arrivals, None)
        self._loop.call_soon(self._drop_rest)

    def _maybe_over(self) -> None:
        is_done = self._next is None or self._is_cancelled
        if is_done and not self._is_sending and not self.in_flight and not self._is_over:
            self._is_over = True
            self._alarm.close()
            if self._end_timer is not None:
                self._end_timer.cancel()
            self._lag_timer.cancel()
            self._loop.call_soon(self._on_end)

    def _note_sending(self, now: float) -> None:
        """How long it has been sending, without the warm-up, and the CPU of that: later replies are no load."""
        self.sending_s = max(0.0, now - self._begun_at)
        self.sending_cpu_s = process_time() - self._begun_cpu_s

    def _look_at_lag(self) -> None:
        """How late the loop is: what is due meanwhile is as late."""
        now = monotonic()
        if self._is_sending:
            if self._begun_at < self._start + self._warmup_s <= now:
                self._begun_at, self._begun_cpu_s = now, process_time()
                self.loop_lag = Histogram()
            self._note_sending(now)
        if self._lag_due:
            self.loop_lag.record(max(0, round((now - self._lag_due) * 1e6)))
        self._lag_due = now + LAG_EVERY_S
        self._lag_timer = self._loop.call_later(LAG_EVERY_S, self._look_at_lag)
