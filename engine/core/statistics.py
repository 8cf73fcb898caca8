"""How sure a measured figure is: intervals of shares, means and quantiles, of their differences, and verdicts.

Rules of this file:
1. Every interval states its source. Confidence is 0.95 unless told: 95 of 100 such intervals hold the truth.
2. The formulas take samples as independent. Requests of one test are not quite: a slow second makes all of its
   requests slow. ``design_effect`` measures by how much, and every interval takes it.
3. What the data cannot say is infinite or a verdict of its own, never a guess.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

CONFIDENCE = 0.95
EXACT_SD_MAX = 1_000.0  # beyond, a rank of the normal approximation is within one of the exact one


class Estimate(NamedTuple):
    """A figure and the interval around it; an end is infinite where the data do not bound it."""

    value: float
    low: float
    high: float


class Ranks(NamedTuple):
    """Which ordered samples bound a quantile, counted from 1; None where no sample does."""

    low: int | None
    high: int | None


class Better(StrEnum):
    """Which way a metric improves."""

    LOWER = "lower"
    HIGHER = "higher"


class Change(StrEnum):
    """What a comparison found."""

    BETTER = "better"
    WORSE = "worse"
    NONE = "no change"
    UNKNOWN = "not enough data"


@lru_cache(maxsize=64)
def z_of(confidence: float) -> float:
    """How many standard deviations a two-sided interval spans on each side. Bounds: 0 < confidence < 1."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


@lru_cache(maxsize=1_024)
def t_of(confidence: float, freedom: float) -> float:
    """The same for Student's t. Within 0.2 % from 4 degrees of freedom on; infinite below 2.

    Source: the expansion of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    if freedom < 2:
        return math.inf
    z = z_of(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def share(
    hits: float, attempts: float, confidence: float = CONFIDENCE, *, design_effect: float = 1.0
) -> Estimate:
    """A share of attempts with Wilson's interval; from 0 to 1 when nothing was attempted.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    Bounds: ``0 <= hits <= attempts``.
    """
    if not 0 <= hits <= attempts:
        raise ValueError(f"{hits} of {attempts} is no share")
    if not attempts:
        return Estimate(math.nan, 0.0, 1.0)
    count = attempts / design_effect
    value = hits / attempts
    z = z_of(confidence)
    middle = value + z * z / (2 * count)
    spread = z * math.sqrt(value * (1 - value) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    low = 0.0 if hits == 0 else max(0.0, (middle - spread) / scale)
    high = 1.0 if hits == attempts else min(1.0, (middle + spread) / scale)
    return Estimate(value, low, high)


def mean(
    count: float, value: float, variance: float, confidence: float = CONFIDENCE, *, design_effect: float = 1.0
) -> Estimate:
    """A mean with Student's interval; unbounded with fewer than three samples. ``variance`` is the samples'."""
    alike = count / design_effect
    if alike < 3:
        return Estimate(value if count else math.nan, -math.inf, math.inf)
    spread = t_of(confidence, alike - 1) * math.sqrt(variance / alike)
    return Estimate(value, value - spread, value + spread)


def quantile_ranks(
    count: int, quantile: float, confidence: float = CONFIDENCE, *, design_effect: float = 1.0
) -> Ranks:
    """Which ordered samples hold a quantile between them, whatever the distribution.

    The number of samples below a quantile is binomial; the ranks leave out at most half the error on each side.
    Exact up to a standard deviation of ``EXACT_SD_MAX`` samples, the normal approximation beyond, rounded
    outwards. With a design effect the ranks of so many fewer samples are stretched to the samples there are.
    Source: David and Nagaraja, Order Statistics, 3rd edition, 7.1.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"there is no quantile {quantile}")
    alike = max(1, round(count / design_effect)) if count else 0
    low, high = _ranks(alike, quantile, confidence)
    if alike == count:
        return Ranks(low, high)
    stretch = count / alike
    return Ranks(
        None if low is None else max(1, math.floor((low - 1) * stretch) + 1),
        None if high is None else min(count, math.ceil(high * stretch)),
    )


@lru_cache(maxsize=256)
def _ranks(count: int, quantile: float, confidence: float) -> tuple[int | None, int | None]:
    error = (1 - confidence) / 2
    middle = count * quantile
    deviation = math.sqrt(middle * (1 - quantile))
    if deviation > EXACT_SD_MAX:
        spread = z_of(confidence) * deviation
        low, high = math.floor(middle - spread), math.ceil(middle + spread) + 1
    else:  # P(fewer than low below the quantile) <= error, and the same above
        low = _below(count, quantile, error)
        high = count + 1 - _below(count, 1 - quantile, error)
    return (low if low >= 1 else None), (high if high <= count else None)


def _below(count: int, quantile: float, error: float) -> int:
    """The largest k with P(Binomial(count, quantile) < k) <= error."""
    start = max(0, math.floor(count * quantile - 10 * math.sqrt(count * quantile * (1 - quantile)) - 10))
    odds = quantile / (1 - quantile)
    log_chance = (
        math.lgamma(count + 1) - math.lgamma(start + 1) - math.lgamma(count - start + 1)
        + start * math.log(quantile) + (count - start) * math.log1p(-quantile)
    )  # fmt: skip
    total = chance = math.exp(
        log_chance
    )  # ten standard deviations down, and still far above the smallest float
    k = start
    while total <= error and k < count:
        chance *= (count - k) / (k + 1) * odds
        k += 1
        total += chance
    return k


def design_effect(batches: Sequence[tuple[int, float]], variance: float) -> float:
    """How many samples of one test are worth one independent sample; at least 1.

    ``batches`` are (samples, their mean) of stretches of the test, seconds for example; ``variance`` is that of
    single samples. Independent samples give means that scatter by variance / samples; the factor by which they
    scatter more is the effect (batch means; Law, Simulation Modeling and Analysis, 5th edition, 9.5.3). For a
    quantile take the share of each stretch's samples below it, and ``quantile * (1 - quantile)``. Stretches have
    to be longer than what disturbs the test; with fewer than ten of them 1 is returned.
    """
    filled = [(count, value) for count, value in batches if count]
    total = sum(count for count, _ in filled)
    if len(filled) < 10 or not variance > 0:
        return 1.0
    centre = sum(count * value for count, value in filled) / total
    between = sum(count * (value - centre) ** 2 for count, value in filled) / (len(filled) - 1)
    return max(1.0, between / variance)


def difference(new: Estimate, old: Estimate) -> Estimate:
    """New minus old, for any two figures with intervals that were measured apart: shares, quantiles, means.

    Source: Zou and Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27
    (2008), which for two Wilson intervals is method 10 of Newcombe, Statistics in Medicine 17 (1998). The
    distances to the ends that face each other add up as squares, so that lopsided intervals stay lopsided.
    """
    value = new.value - old.value
    down = math.hypot(new.value - new.low, old.high - old.value)
    up = math.hypot(new.high - new.value, old.value - old.low)
    if math.isnan(value):
        return Estimate(math.nan, -math.inf, math.inf)
    return Estimate(value, value - down, value + up)


class Measured(NamedTuple):
    """What a difference of means needs of each side; ``variance`` is that of single samples."""

    samples: float
    mean: float
    variance: float
    design_effect: float = 1.0


def difference_of_means(new: Measured, old: Measured, confidence: float = CONFIDENCE) -> Estimate:
    """New minus old. Source: Welch, The generalization of Student's problem, Biometrika 34 (1947)."""
    counts = [side.samples / side.design_effect for side in (new, old)]
    value = new.mean - old.mean
    if min(counts) < 3:
        return Estimate(value, -math.inf, math.inf)
    parts = [side.variance / count for side, count in zip((new, old), counts, strict=True)]
    total = sum(parts)
    if not total:
        return Estimate(value, value, value)
    freedom = total**2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    spread = t_of(confidence, freedom) * math.sqrt(total)
    return Estimate(value, value - spread, value + spread)


def change_of(found: Estimate, better: Better, matters: float) -> Change:
    """The verdict on a difference (new minus old), given the smallest one that matters, in the metric's unit.

    - no change: the whole interval is smaller than what matters;
    - better, worse: the whole interval is on one side of 0, and the difference itself is as large as what matters;
    - not enough data: everything else. More requests narrow the interval until one of the others holds.

    A true difference of just what matters can stay in the last class for ever. Bounds: ``matters >= 0``; with 0
    only two equal figures without any spread are no change.
    """
    if not matters >= 0:
        raise ValueError(f"a change of {matters} cannot be the smallest that matters")
    if -matters <= found.low and found.high <= matters:
        return Change.NONE
    if (found.low > 0 or found.high < 0) and abs(found.value) >= matters:
        return Change.BETTER if (found.value < 0) == (better is Better.LOWER) else Change.WORSE
    return Change.UNKNOWN
