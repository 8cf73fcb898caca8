"""Counts of microseconds in buckets whose width grows with the value: any number of them in bounded memory.

Rules of this file:
1. A value keeps ``digits`` significant decimal digits; count, sum, smallest and largest are exact.
2. Merging is addition: the histogram of all values equals the merged histograms of any split of them.
3. The buckets are those of HdrHistogram with a lowest value of 1 (Tene, hdrhistogram.org), so that its tools read them.

Values below 2,048 (at three digits) have a bucket each; above, each doubling has 1,024 buckets of equal width,
so a bucket is at most 1/1,024 of its values wide. Only buckets that hold something take memory: at most 23,221
of them up to an hour, and a few hundred for the latencies of one endpoint.
"""

import math
from collections.abc import Iterator, Sequence

from engine.core.statistics import CONFIDENCE, Estimate, quantile_ranks

DIGITS = 3
VALUE_US_MAX = 3_600_000_000  # an hour; what is longer is counted as this long
VERSION = 1
# The figures that reports state, by their names there.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


class Histogram:
    """Counts of durations in whole microseconds, from 0 to ``VALUE_US_MAX``.

    Bounds: a value below 0 is taken as 0 and one above an hour as an hour; ``clamped`` says how many were longer.
    """

    __slots__ = ("_bits", "_counts", "_half_bits", "clamped", "digits", "max_us", "min_us", "sum_us")

    def __init__(self, digits: int = DIGITS) -> None:
        if not 1 <= digits <= 5:
            raise ValueError(f"a histogram has 1 to 5 significant digits, not {digits}")
        self.digits = digits
        self._bits: int = (2 * 10**digits - 1).bit_length()  # values of so many bits have a bucket each
        self._half_bits: int = self._bits - 1
        self._counts: dict[int, int] = {}
        self.sum_us = 0
        self.max_us = 0  # of no values: 0, and the smallest is an hour
        self.min_us = VALUE_US_MAX
        self.clamped = 0

    def record(self, value_us: int) -> None:
        """Count one value. This is called for every figure of every request: it is short for that reason."""
        if not self.min_us <= value_us <= self.max_us:
            value_us = self._widen(value_us)
        self.sum_us += value_us
        shift = value_us.bit_length() - self._bits
        index = (shift << self._half_bits) + (value_us >> shift) if shift > 0 else value_us
        counts = self._counts
        if index in counts:
            counts[index] += 1
        else:
            counts[index] = 1

    def record_all(self, values_us: Sequence[int]) -> None:
        """Count them all, for half of what one after the other costs."""
        if not values_us:
            return
        if not self.min_us <= min(values_us) <= max(values_us) <= self.max_us:
            values_us = [self._widen(value_us) for value_us in values_us]
        self.sum_us += sum(values_us)
        counts, bits, half_bits = self._counts, self._bits, self._half_bits
        for value_us in values_us:
            shift = value_us.bit_length() - bits
            index = (shift << half_bits) + (value_us >> shift) if shift > 0 else value_us
            if index in counts:
                counts[index] += 1
            else:
                counts[index] = 1

    def record_bucket(self, index: int, many: int) -> None:
        """Count so many values of which only the bucket is known. Bounds: ``many >= 1``.

        Raises ValueError for a bucket beyond an hour. The sum takes the middle, the extremes the bucket's ends.
        """
        # The shift first: a hostile index would make numbers of millions of digits.
        if self._shift(index) > VALUE_US_MAX.bit_length() or self.lowest_us(index) > VALUE_US_MAX:
            raise ValueError(f"the bucket {index} of a histogram is beyond an hour")
        low, high = self.lowest_us(index), self.highest_us(index)
        self._counts[index] = self._counts.get(index, 0) + many
        self.sum_us += (low + high) * many // 2
        self.min_us = min(self.min_us, low)
        self.max_us = max(self.max_us, min(high, VALUE_US_MAX))

    def _widen(self, value_us: int) -> int:
        """Take note of a value below or above all before it; returns it as it is counted."""
        if value_us > VALUE_US_MAX:
            self.clamped += 1
        value_us = min(max(0, value_us), VALUE_US_MAX)
        self.min_us = min(self.min_us, value_us)
        self.max_us = max(self.max_us, value_us)
        return value_us

    @property
    def count(self) -> int:
        """How many values were counted. Cost: one addition per bucket in use."""
        return sum(self._counts.values())

    def __eq__(self, other: object) -> bool:
        """Whether every figure that can be asked for is the same."""
        return isinstance(other, Histogram) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]

    def merge(self, other: "Histogram") -> None:
        """Add all of another's values. Raises ValueError when it has other buckets."""
        if other.digits != self.digits:
            raise ValueError(f"histograms of {self.digits} and {other.digits} digits have different buckets")
        counts = self._counts
        for index, count in other._counts.items():
            counts[index] = counts.get(index, 0) + count
        self.sum_us += other.sum_us
        self.max_us = max(self.max_us, other.max_us)
        self.min_us = min(self.min_us, other.min_us)
        self.clamped += other.clamped

    def lowest_us(self, index: int) -> int:
        """The smallest value of a bucket."""
        shift = self._shift(index)
        return (index - (shift << self._half_bits)) << shift

    def highest_us(self, index: int) -> int:
        """The largest value of a bucket."""
        shift = self._shift(index)
        return ((index - (shift << self._half_bits) + 1) << shift) - 1

    def _shift(self, index: int) -> int:
        shift = (index >> self._half_bits) - 1
        return shift if shift > 0 else 0

    def buckets(self) -> Iterator[tuple[int, int]]:
        """(index, count) of the buckets that hold something, ascending."""
        counts = self._counts
        return ((index, counts[index]) for index in sorted(counts))

    def mean_us(self) -> float:
        """The exact mean; not a number without values."""
        count = self.count
        return self.sum_us / count if count else math.nan

    def variance(self) -> float:
        """Of single values, in square microseconds, each taken as the middle of its bucket; 0 below two values."""
        count = self.count
        if count < 2:
            return 0.0
        mean = self.sum_us / count
        square = sum(
            many * ((self.lowest_us(index) + self.highest_us(index)) / 2 - mean) ** 2
            for index, many in self.buckets()  # in one order, so that merged ones round alike
        )
        return square / (count - 1)

    def quantiles_us(self, quantiles: Sequence[float]) -> list[int | None]:
        """The values that the given shares of all values do not exceed; None without values.

        Each is the largest value of the bucket that holds the sample of rank ``ceil(quantile * count)``, at most
        the exact maximum: never below that sample, and above it by less than 1/1,024 of it at three digits.
        Bounds: quantiles from 0 to 1.
        """
        count = self.count
        if not count:
            return [None] * len(quantiles)
        ranks = [_rank(quantile, count) for quantile in quantiles]
        return [min(self.highest_us(index), self.max_us) for index in self._buckets_of(ranks)]

    def quantile_us(self, quantile: float) -> int | None:
        """One of ``quantiles_us``."""
        return self.quantiles_us([quantile])[0]

    def estimate_us(
        self, quantile: float, confidence: float = CONFIDENCE, *, design_effect: float = 1.0
    ) -> Estimate:
        """A quantile with the interval between the order statistics around it, widened to whole buckets.

        An end that no sample bounds is 0 below and infinite above; all are open without values.
        """
        count = self.count
        if not count:
            return Estimate(math.nan, 0.0, math.inf)
        ranks = quantile_ranks(count, quantile, confidence, design_effect=design_effect)
        middle = _rank(quantile, count)
        at, low, high = self._buckets_of([middle, ranks.low or middle, ranks.high or middle])
        return Estimate(
            float(min(self.highest_us(at), self.max_us)),
            0.0 if ranks.low is None else float(max(self.lowest_us(low), self.min_us)),
            math.inf if ranks.high is None else float(min(self.highest_us(high), self.max_us)),
        )

    def count_at_most(self, value_us: int) -> int:
        """How many values are at most this; those of the bucket it falls into only if that bucket ends there.

        Never more than there are, and fewer by at most what one bucket holds.
        """
        if value_us >= self.max_us:
            return self.count
        return sum(many for index, many in self._counts.items() if self.highest_us(index) <= value_us)

    def figures_ms(self) -> dict[str, float | None]:
        """p50 to p99.9, largest and mean in milliseconds, as reports state them; None without values."""
        found = self.quantiles_us(list(QUANTILES.values()))
        figures = {name: None if us is None else us / 1000 for name, us in zip(QUANTILES, found, strict=True)}
        has = bool(self._counts)
        figures["max"] = self.max_us / 1000 if has else None
        figures["mean"] = self.mean_us() / 1000 if has else None
        return figures

    def _buckets_of(self, ranks: Sequence[int]) -> list[int]:
        """The buckets that hold the values of these ranks, in the order asked. Bounds: 1 to the count."""
        order = sorted(range(len(ranks)), key=ranks.__getitem__)
        found = [0] * len(ranks)
        buckets = self.buckets()
        index, seen = next(buckets)
        for place in order:
            while seen < ranks[place]:
                index, many = next(buckets)
                seen += many
            found[place] = index
        return found

    def to_bytes(self) -> bytes:
        """A compact form for messages: about three bytes for each bucket in use."""
        smallest = self.min_us if self._counts else 0
        out = bytearray((VERSION, self.digits))
        for number in (self.clamped, self.sum_us, smallest, self.max_us, len(self._counts)):
            _put(out, number)
        last = 0
        for index, count in self.buckets():
            _put(out, index - last)
            _put(out, count)
            last = index
        return bytes(out)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Histogram":
        """The histogram that ``to_bytes`` was called on. Raises ValueError for bytes that are none."""
        if len(data) < 2 or data[0] != VERSION:
            raise ValueError("these bytes are no histogram of this version")
        found = cls(data[1])
        numbers = _numbers(data, 2)
        try:
            found.clamped, found.sum_us, smallest, found.max_us, length = (next(numbers) for _ in range(5))
            index, counts = 0, found._counts
            for _ in range(length):
                index += next(numbers)
                counts[index] = next(numbers)
        except (StopIteration, RuntimeError):
            raise ValueError("the bytes of a histogram end too early") from None
        if len(counts) != length or next(numbers, None) is not None or found.lowest_us(index) > VALUE_US_MAX:
            raise ValueError("the bytes of a histogram do not fit together")
        if counts:
            found.min_us = smallest
        return found


def _rank(quantile: float, count: int) -> int:
    """Which of so many ordered values is the quantile, counted from 1; 0.999 of 1,000 is the 999th."""
    return min(count, max(1, math.ceil(quantile * count * (1 - 1e-12))))


def _put(out: bytearray, number: int) -> None:
    """Append a whole number in groups of seven bits, the lowest first (LEB128)."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _numbers(data: bytes, start: int) -> Iterator[int]:
    """All numbers from a place on; a last one that is cut off is left out."""
    number, shift = 0, 0
    for byte in memoryview(data)[start:]:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            yield number
            number, shift = 0, 0
