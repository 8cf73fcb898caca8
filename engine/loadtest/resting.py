"""The rest after a probe that failed: until the endpoint has drained, or for as long as anybody can wait.

Rules of this file:
1. An endpoint goes on with what a client gave up. A probe that meets that backlog fails at a rate that holds, and
   the search would not come back up. So no probe begins on a backlog that is known of.
2. Two looks, because either alone is wrong somewhere. *By count*: what was given up, at the best rate of completions
   that was ever seen, is the least that it takes; but an endpoint may be slower with what nobody waits for. *By a
   canary*: a short test at a tenth of the lowest rate that held. Where requests are served in turn, or share what
   there is, one that was sent behind a backlog ends about when the backlog does; so a canary that came to its end
   has waited for as long as was needed, and its latency says whether it had to.
3. Both are bounded: ``BACKLOG_MAX_S`` by count, ``REST_MAX_S`` and ``CANARIES_MAX`` in all. Then the search goes on.
4. Time is only counted, from what was asked and what tests say that they took: nothing here has a clock.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from engine.core.load_errors import LoadError

PAUSE_S: Final = 0.5  # the least, and between canaries; the latter doubles
BACKLOG_MAX_S: Final = 30.0
REST_MAX_S: Final = 60.0
CANARIES_MAX: Final = 5
CANARY_SHARE: Final = 0.1  # of the lowest rate that held: what is left over drains nine times as fast
CANARY_S, CANARY_S_MAX = 1.0, 5.0
CANARY_REQUESTS: Final = 5  # so that their median is one
# The median of five exponential times is beyond twice that of all in one canary of ten; then it looks again.
NEAR, NEAR_MS = 2.0, 5.0
GIVEN_UP: Final = (LoadError.CANCELLED, LoadError.TIMEOUT_FIRST_TOKEN, LoadError.TIMEOUT_TOTAL)


@dataclass(frozen=True, slots=True)
class Trial:
    """One test of a search. ``faults``: sentences on what broke in the client, none if nothing did."""

    results: dict[str, Any]
    faults: tuple[str, ...] = ()

    @property
    def is_interrupted(self) -> bool:
        """Whether somebody ended it, and the search with it."""
        return bool(self.results["interrupted"])

    @property
    def lasted_s(self) -> float:
        """From its first request to the end of its last."""
        return float(self.results["lasted_s"])

    @property
    def median_ms(self) -> float | None:
        """Of the latencies; None where nothing was answered."""
        found: float | None = self.results["latency_ms"]["p50"]
        return found


Pause = Callable[[float], Awaitable[None]]  # seconds
Canary = Callable[[float, float, float], Awaitable[Trial]]  # requests/s, for how long, ended after how long


class Rest:
    """What the probes of one search tell of the endpoint, and the rests between them.

    ``pause(seconds)`` waits, and may end early when the search is interrupted; the canary tells of that.
    ``canary(rate, lasts_s, ended_s)`` sends for ``lasts_s`` and gives up what is under way after ``ended_s``.
    """

    def __init__(self, pause: Pause, canary: Canary) -> None:
        self._pause = pause
        self._canary = canary
        self._best_per_s = 0.0  # completions
        self._tried = self._held = float("inf")  # the lowest rates
        self._baseline_ms: float | None = None  # the median of the first probe that held

    def learn(self, rate: float, trial: Trial, passed: bool) -> None:
        """To be told of every probe."""
        counted_s = trial.lasted_s - trial.results.get("warmup_s", 0.0)
        if counted_s > 0:
            self._best_per_s = max(self._best_per_s, trial.results["completed"] / counted_s)
        self._tried = min(self._tried, rate)
        if passed:
            self._held = min(self._held, rate)
            self._baseline_ms = trial.median_ms if self._baseline_ms is None else self._baseline_ms

    async def after(self, trial: Trial) -> Trial | None:
        """Rest after a probe, of which ``learn`` was told. The last canary: that may have been interrupted, or broken."""
        spent_s = self._backlog_s(trial)
        await self._pause(spent_s)
        last: Trial | None = None
        before_ms: float | None = None
        for number in range(CANARIES_MAX):
            pause_s = PAUSE_S * 2 ** (number - 1) if number else 0.0
            left_s = REST_MAX_S - spent_s - pause_s
            if left_s < CANARY_S:
                break
            if number:
                await self._pause(pause_s)
                spent_s += pause_s
            last = await self._send(left_s)
            if last.is_interrupted or last.faults or self._is_well(last, before_ms):
                break
            spent_s += last.lasted_s
            before_ms = last.median_ms
        return last

    def _backlog_s(self, trial: Trial) -> float:
        """The least time that the endpoint needs for what was given up: it may have begun on none of it."""
        given_up = sum(trial.results["errors"].get(kind.value, 0) for kind in GIVEN_UP)
        if not given_up:
            return PAUSE_S
        needed_s = given_up / self._best_per_s if self._best_per_s > 0 else BACKLOG_MAX_S
        return min(BACKLOG_MAX_S, max(PAUSE_S, needed_s))

    async def _send(self, left_s: float) -> Trial:
        rate = CANARY_SHARE * (self._held if self._baseline_ms is not None else self._tried)
        lasts_s = min(CANARY_S_MAX, left_s, max(CANARY_S, CANARY_REQUESTS / rate))
        return await self._canary(rate, lasts_s, left_s)

    def _is_well(self, canary: Trial, before_ms: float | None) -> bool:
        """Most were answered, about as fast as when a rate held; before one has, no faster than in the last canary."""
        median_ms = canary.median_ms
        if median_ms is None or canary.results["completed"] * 2 < canary.results["intended"]:
            return False
        if self._baseline_ms is not None:
            return median_ms <= NEAR * self._baseline_ms + NEAR_MS
        return before_ms is not None and NEAR * median_ms + NEAR_MS >= before_ms
