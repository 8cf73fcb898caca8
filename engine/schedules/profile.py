"""How fast a load test sends at each moment: rates that run in straight lines, their integral, and its inverse.

Rules of this file:
1. Pure: times are seconds from the start of the test, rates are requests per second, nothing is measured.
2. Positions are computed from whole counts, never by adding up gaps, so that nothing drifts.

The integral ``expected(t)`` is the number of requests that are due before ``t``. Its inverse turns an evenly
spaced or a random sequence of rate 1 into one that follows the profile (the time-change theorem; Cinlar,
Introduction to Stochastic Processes, 1975, chapter 4.7).
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.core.errors import UsageError
from engine.core.quantities import duration_s, rate_per_s

SNAP = 1e-12  # a count this close to a whole one, relatively, is that one: 0.1 * 30 is 3


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch in which the rate runs straight from one value to another; equal values make a step."""

    rate_from_per_s: float
    rate_to_per_s: float
    length_s: float

    def __post_init__(self) -> None:
        rates = (self.rate_from_per_s, self.rate_to_per_s)
        if not all(0 <= rate < math.inf for rate in rates):
            raise UsageError(f"A rate of {min(rates):g} to {max(rates):g} requests/s cannot be sent.")
        if not self.length_s > 0:
            raise UsageError(f"A piece of {self.length_s:g} s is no time to send in.")

    def at(self, since_s: float) -> float:
        """The rate so long after the piece's start."""
        if self.rate_from_per_s == self.rate_to_per_s:
            return self.rate_from_per_s
        share = since_s / self.length_s
        return self.rate_from_per_s + (self.rate_to_per_s - self.rate_from_per_s) * share

    def expected(self, since_s: float) -> float:
        """How many requests are due so long after the piece's start."""
        if self.rate_from_per_s == self.rate_to_per_s:
            return self.rate_from_per_s * since_s
        return (self.rate_from_per_s + self.at(since_s)) / 2 * since_s

    def since_s(self, count: float) -> float:
        """The inverse of ``expected``. The form that does not subtract stays exact near a slope of 0."""
        if count <= 0:
            return 0.0
        first = self.rate_from_per_s
        slope = (self.rate_to_per_s - first) / self.length_s
        if slope == 0:
            return count / first
        return 2 * count / (first + math.sqrt(max(0.0, first * first + 2 * slope * count)))


class Profile:
    """Pieces one after the other; after the last one its final rate holds for ever."""

    __slots__ = ("_counts", "_pieces", "_starts_s", "length_s", "total")

    def __init__(self, pieces: tuple[Piece, ...]) -> None:
        """Raises UsageError when there is no piece, or nothing would ever be sent."""
        if not pieces or not any(piece.rate_from_per_s or piece.rate_to_per_s for piece in pieces):
            raise UsageError("A rate of 0 sends nothing. Give a rate above 0, for example --rate 10.")
        starts_s, counts = [0.0], [0.0]
        for piece in pieces:
            starts_s.append(starts_s[-1] + piece.length_s)
            counts.append(snapped(counts[-1] + piece.expected(piece.length_s)))
        self.length_s = starts_s[-1]
        self.total = counts[-1]
        last = pieces[-1].rate_to_per_s
        self._pieces = (*pieces, Piece(last, last, math.inf))
        self._starts_s = starts_s
        self._counts = counts

    def rate_at(self, at_s: float) -> float:
        """Requests per second at a moment; at a step the new rate. Bounds: ``at_s >= 0``."""
        place = bisect_right(self._starts_s, at_s) - 1
        return self._pieces[place].at(at_s - self._starts_s[place])

    def expected(self, at_s: float) -> float:
        """How many requests are due before a moment. Bounds: ``at_s >= 0``."""
        if at_s == math.inf:
            return math.inf if self._pieces[-1].rate_to_per_s else self.total
        place = bisect_right(self._starts_s, at_s) - 1
        return snapped(self._counts[place] + self._pieces[place].expected(at_s - self._starts_s[place]))

    def time_of(self, count: float) -> float:
        """The last moment before which at most ``count`` requests are due; infinite if there never are more."""
        for _, at_s in self.times([(0, count)]):
            return at_s
        return math.inf

    def times(self, numbered: Iterable[tuple[int, float]]) -> Iterator[tuple[int, float]]:
        """(index, count) in ascending order of counts -> (index, seconds); ends where the profile's total ends."""
        counts, starts_s, pieces = self._counts, self._starts_s, self._pieces
        place, last = 0, len(pieces) - 1
        begin_s, begin, end = 0.0, 0.0, counts[1]
        piece = pieces[0]
        steady = piece.rate_from_per_s if piece.rate_from_per_s == piece.rate_to_per_s else 0.0
        for index, count in numbered:
            while count >= end:
                place += 1
                piece = pieces[place]
                begin_s, begin = starts_s[place], counts[place]
                end = counts[place + 1] if place < last else math.inf
                steady = piece.rate_from_per_s if piece.rate_from_per_s == piece.rate_to_per_s else 0.0
                if place == last and not steady:
                    return
            if steady:
                yield index, begin_s + (count - begin) / steady
            else:
                yield index, begin_s + piece.since_s(count - begin)


def snapped(count: float) -> float:
    """A count without the rounding error that makes 3 of it 3.0000000000000004."""
    if count == math.inf:
        return count
    whole = round(count)
    return float(whole) if abs(count - whole) <= SNAP * max(1.0, count) else count


def steady(rate: float, length_s: float = 1.0) -> tuple[Piece, ...]:
    """The profile of one rate; it holds beyond ``length_s`` too."""
    return (Piece(rate, rate, length_s),)


def parse_ramp(text: str) -> Piece:
    """``100:1000:30s``: from 100 to 1,000 requests/s within 30 s. Raises UsageError with a sentence."""
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"--ramp {text!r} is not like FROM:TO:SECONDS, for example 100:1000:30s.")
    what = f"In --ramp {text!r} the"
    return Piece(
        rate_per_s(parts[0], f"{what} rate", zero=True),
        rate_per_s(parts[1], f"{what} rate", zero=True),
        duration_s(parts[2], f"{what} length"),
    )
