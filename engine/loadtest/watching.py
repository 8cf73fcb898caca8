"""Whether a probe can be stopped early: its outcome is certain, or the endpoint cannot follow.

Rules of this file:
1. Pure: it is told how far the probe is, once a second, and remembers what it was told.
2. *Missed* is arithmetic. So many requests have missed an objective already that all others together cannot make up
   for it. A request that is under way for longer than a bound on its whole time has missed that as well: of those that
   were intended before then, at most as many as have ended are not among them.
3. *Saturated* is a finding. See ``Watch.stop`` for the rule and what it keeps apart.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import sqrt
from typing import Final, NamedTuple

from engine.core.thresholds import Objective

SATURATED_AFTER_S: Final = 6.0  # three parts of 2 s
BEHIND: Final = 0.1  # of the rate, left undone
# By how much completions rise from one part to the next while the first requests of an exponential time are under way:
# so much, and the more the further they are still behind. Times that scatter less make them rise faster.
RISING, RISING_BY_BEHIND = 1.1, 0.65
SIGMAS: Final = 3.5  # it is asked every second
FAILED_MAX: Final = 0.01  # where there are no objectives
WHOLE_TIMES: Final = ("latency", "response_time")  # they last until a request's end
SLACK_S: Final = 1.0  # by which a request may have been sent late, which a latency does not count


class Stop(StrEnum):
    """Why a probe needs no more time."""

    MISSED = "the objectives could not be met any more"
    SATURATED = "the endpoint fell behind"


class Beat(NamedTuple):
    """How far a probe is: all figures count from its start, and only what its results will count."""

    at_s: float
    intended: int  # by the schedule, up to now
    ended: int  # completed, failed and dropped
    met: tuple[int, ...]  # of what ended, by objective
    in_flight: int  # sent and not ended
    expected: int  # requests of the whole probe
    failed: int = 0  # of what ended: failed and dropped


class Watch:
    """Watches one probe. ``stopped`` is the reason once ``stop`` has given one.

    Bounds: one entry per call; a probe of a day has 86,400.
    """

    def __init__(self, objectives: Sequence[Objective] = ()) -> None:
        self._objectives = tuple(objectives)
        self._beats: list[Beat] = []
        self.stopped: Stop | None = None

    def stop(self, beat: Beat) -> Stop | None:
        """Whether the probe can be stopped, and why. To be asked about once a second, in order.

        Saturated: cut the time so far into three equal parts. In the last two completions were at least a tenth
        below what was intended, by more than chance explains (standard deviations of two Poisson counts); they
        were not rising from the one to the other, which takes some hundred of them to say; the requests that are
        missing are with the endpoint, not held back by the client; and where there are objectives, some request of
        the last part has missed one. The first part is left out and the parts grow with the time because an endpoint
        that holds the rate has a backlog as well, of as many requests as come in while one takes (Little), and while
        that builds up completions rise. A pause is behind in one part only.
        """
        self._beats.append(beat)
        if self.stopped is None:
            if self._is_missed(beat):
                self.stopped = Stop.MISSED
            elif self._is_saturated(beat):
                self.stopped = Stop.SATURATED
        return self.stopped

    def _is_missed(self, beat: Beat) -> bool:
        expected = max(beat.expected, beat.intended)
        if not self._objectives:
            return beat.failed > FAILED_MAX * expected
        for objective, met in zip(self._objectives, beat.met, strict=True):
            best = expected - (beat.ended - met) - self._overdue(objective, beat)
            if best < objective.share * expected * (1 - 1e-12):
                return True
        return False

    def _overdue(self, objective: Objective, beat: Beat) -> int:
        """Requests under way that have missed a bound on their whole time, at least so many."""
        if objective.metric not in WHOLE_TIMES:
            return 0
        before = self._at(beat.at_s - objective.bound_ms / 1000 - SLACK_S)
        return max(0, before.intended - beat.ended)

    def _is_saturated(self, beat: Beat) -> bool:
        if beat.at_s < SATURATED_AFTER_S:
            return False
        first, second = self._at(beat.at_s / 3), self._at(beat.at_s * 2 / 3)
        spans = (second.at_s - first.at_s, beat.at_s - second.at_s)
        if min(spans) <= 0:
            return False
        intended, ended = beat.intended - second.intended, beat.ended - second.ended
        intended_before, ended_before = second.intended - first.intended, second.ended - first.ended
        is_behind = _is_behind(intended, ended) and _is_behind(intended_before, ended_before)
        behind = 1 - ended / max(1, intended)
        risen = (RISING + RISING_BY_BEHIND * behind) * ended_before * spans[1] / spans[0]
        is_rising = ended >= risen - SIGMAS * sqrt(ended + risen)  # or may be, as far as chance goes
        backlog = beat.intended - beat.ended
        is_theirs = beat.in_flight >= backlog / 2
        has_missed = not self._objectives or any(
            now - then < ended for now, then in zip(beat.met, second.met, strict=True)
        )
        return is_behind and not is_rising and is_theirs and has_missed

    def _at(self, at_s: float) -> Beat:
        """The last beat up to a moment; nothing, before the first."""
        low, high = 0, len(self._beats)
        while low < high:
            middle = (low + high) // 2
            if self._beats[middle].at_s <= at_s:
                low = middle + 1
            else:
                high = middle
        return self._beats[low - 1] if low else Beat(0.0, 0, 0, (0,) * len(self._objectives), 0, 0)


def _is_behind(intended: int, ended: int) -> bool:
    return intended - ended > max(BEHIND * intended, SIGMAS * sqrt(intended + ended))
