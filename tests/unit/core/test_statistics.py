"""Intervals against known figures and by simulation: what is said to hold in 95 of 100 cases does."""

import math
import random
from statistics import fmean, variance

import pytest

from engine.core.statistics import (
    Better,
    Change,
    Estimate,
    Measured,
    Ranks,
    change_of,
    design_effect,
    difference,
    difference_of_means,
    mean,
    quantile_ranks,
    share,
    t_of,
    z_of,
)

TRIALS = 4_000


def quantile_of(ordered: list[float], quantile: float, effect: float = 1.0) -> Estimate:
    """A quantile of samples with its interval, as a histogram would give it."""
    ranks = quantile_ranks(len(ordered), quantile, design_effect=effect)
    return Estimate(
        ordered[math.ceil(quantile * len(ordered)) - 1],
        -math.inf if ranks.low is None else ordered[ranks.low - 1],
        math.inf if ranks.high is None else ordered[ranks.high - 1],
    )


def covered(estimates: list[Estimate], true: float) -> float:
    return sum(one.low <= true <= one.high for one in estimates) / len(estimates)


def test_the_tables_of_the_normal_and_of_students_distribution_are_met() -> None:
    assert z_of(0.95) == pytest.approx(1.959964, abs=1e-6)
    for confidence, freedom, value in (
        (0.95, 4, 2.776445), (0.95, 10, 2.228139), (0.95, 30, 2.042272), (0.99, 8, 3.355387), (0.9, 5, 2.015048),
    ):  # fmt: skip
        assert t_of(confidence, freedom) == pytest.approx(value, rel=2e-3)
    assert t_of(0.95, 1) == math.inf


def test_wilsons_interval_is_that_of_the_tables() -> None:
    assert share(15, 148) == pytest.approx((15 / 148, 0.0624, 0.1605), abs=1e-4)  # Newcombe 1998, table I
    assert share(0, 20) == pytest.approx((0.0, 0.0, 0.1611), abs=1e-4)
    assert share(29, 29) == pytest.approx((1.0, 0.8830, 1.0), abs=1e-4)
    none = share(0, 0)
    assert math.isnan(none.value) and none[1:] == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2"):
        share(3, 2)


def test_the_ranks_around_a_quantile_are_those_of_the_tables() -> None:
    assert quantile_ranks(6, 0.5) == (1, 6)
    assert quantile_ranks(10, 0.5) == (2, 9)
    assert quantile_ranks(100, 0.5) == (40, 61)
    assert quantile_ranks(1_000, 0.99) == (983, 997)


def test_a_quantile_that_few_samples_cannot_bound_is_open() -> None:
    assert quantile_ranks(0, 0.5) == (None, None)
    assert quantile_ranks(5, 0.5) == (None, None)
    assert quantile_ranks(300, 0.99).high is None
    assert quantile_ranks(400, 0.99).high == 400
    with pytest.raises(ValueError, match="no quantile 1"):
        quantile_ranks(10, 1.0)


def test_where_the_approximation_takes_over_the_ranks_do_not_jump() -> None:
    before, after = quantile_ranks(3_999_000, 0.5), quantile_ranks(4_002_000, 0.5)
    for old, new in zip(before, after, strict=True):
        assert old is not None and new is not None
        assert new - old == pytest.approx(1_500, abs=4)


def test_fewer_independent_samples_widen_the_ranks_and_stay_among_the_samples() -> None:
    plain, wide = quantile_ranks(10_000, 0.9), quantile_ranks(10_000, 0.9, design_effect=4.0)
    assert plain.low and plain.high and wide.low and wide.high
    assert (wide.high - wide.low) / (plain.high - plain.low) == pytest.approx(2.0, rel=0.05)
    assert quantile_ranks(10, 0.5, design_effect=100.0) == Ranks(None, None)


@pytest.mark.slow
@pytest.mark.parametrize(("hits", "attempts"), [(0.02, 1_500), (0.3, 60), (0.5, 400)])
def test_wilsons_interval_covers_the_share(hits: float, attempts: int) -> None:
    draw = random.Random(f"{hits}")
    found = []
    for _ in range(TRIALS // 4):
        found.append(share(sum(draw.random() < hits for _ in range(attempts)), attempts))
    assert 0.93 <= covered(found, hits) <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize(("quantile", "samples"), [(0.5, 200), (0.9, 300), (0.99, 1_500)])
def test_the_interval_of_a_quantile_covers_it(quantile: float, samples: int) -> None:
    draw = random.Random(8)
    found = [quantile_of(sorted(draw.random() for _ in range(samples)), quantile) for _ in range(TRIALS // 4)]
    assert 0.94 <= covered(found, quantile) <= 0.98  # whole ranks leave out less than the error


@pytest.mark.slow
def test_the_interval_of_a_difference_of_means_covers_it() -> None:
    draw = random.Random(3)
    found, alone = [], []
    for _ in range(TRIALS):
        sides = []
        for many, scale in ((25, 3.0), (80, 1.0)):
            values = [draw.gauss(10.0, scale) for _ in range(many)]
            sides.append(Measured(many, fmean(values), variance(values)))
        found.append(difference_of_means(*sides))
        alone.append(mean(*sides[0][:3]))
    assert 0.94 <= covered(found, 0.0) <= 0.96
    assert 0.94 <= covered(alone, 10.0) <= 0.96


@pytest.mark.slow
def test_the_interval_of_a_difference_of_quantiles_covers_it() -> None:
    draw = random.Random(6)
    found = []
    for _ in range(1_000):
        new = sorted(draw.lognormvariate(0.0, 0.5) for _ in range(400))
        old = sorted(draw.lognormvariate(0.0, 0.5) for _ in range(250))
        found.append(difference(quantile_of(new, 0.9), quantile_of(old, 0.9)))
    assert 0.93 <= covered(found, 0.0) <= 0.975


@pytest.mark.slow
def test_the_interval_of_a_difference_of_shares_covers_it() -> None:
    draw = random.Random(5)
    found = []
    for _ in range(1_500):
        new = sum(draw.random() < 0.10 for _ in range(150))
        old = sum(draw.random() < 0.04 for _ in range(250))
        found.append(difference(share(new, 150), share(old, 250)))
    assert 0.93 <= covered(found, 0.06) <= 0.97


def test_newcombes_example_of_two_shares_is_met() -> None:
    found = difference(share(56, 70), share(48, 80))  # Newcombe 1998, table II, (a), method 10
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


@pytest.mark.slow
def test_samples_that_move_together_are_seen_and_the_interval_made_wide_enough() -> None:
    draw = random.Random(9)
    plain, widened, effects = [], [], []
    for _ in range(300):
        batches, values = [], []
        for _ in range(60):
            level = draw.gauss(10.0, 0.5)
            second = [draw.gauss(level, 1.0) for _ in range(20)]
            batches.append((20, fmean(second)))
            values += second
        effect = design_effect(batches, variance(values))
        effects.append(effect)
        plain.append(mean(len(values), fmean(values), variance(values)))
        widened.append(mean(len(values), fmean(values), variance(values), design_effect=effect))
    assert fmean(effects) == pytest.approx((1 + 20 * 0.25) / 1.25, rel=0.1)
    assert covered(plain, 10.0) < 0.75
    assert 0.92 <= covered(widened, 10.0) <= 0.98


def test_independent_samples_have_an_effect_near_one_and_few_seconds_say_nothing() -> None:
    draw = random.Random(2)
    batches = [(50, fmean(draw.gauss(0, 1) for _ in range(50))) for _ in range(200)]
    assert 1.0 <= design_effect(batches, 1.0) < 1.3
    assert design_effect(batches[:9], 1.0) == 1.0
    assert design_effect(batches, 0.0) == 1.0


@pytest.mark.parametrize(
    ("found", "change"),
    [
        (Estimate(20.0, 12.0, 28.0), Change.WORSE),
        (Estimate(12.0, 2.0, 22.0), Change.WORSE),
        (Estimate(-20.0, -28.0, -12.0), Change.BETTER),
        (Estimate(1.0, -3.0, 5.0), Change.NONE),
        (Estimate(3.0, 2.0, 4.0), Change.NONE),
        (Estimate(7.0, 2.0, 12.0), Change.UNKNOWN),
        (Estimate(20.0, -5.0, 45.0), Change.UNKNOWN),
        (Estimate(0.0, -math.inf, math.inf), Change.UNKNOWN),
        (Estimate(math.nan, -math.inf, math.inf), Change.UNKNOWN),
    ],
)
def test_the_verdict_follows_from_the_interval_and_from_what_matters(found: Estimate, change: Change) -> None:
    assert change_of(found, Better.LOWER, 10.0) == change
    other = {Change.BETTER: Change.WORSE, Change.WORSE: Change.BETTER}.get(change, change)
    assert change_of(found, Better.HIGHER, 10.0) == other


def test_a_difference_of_what_was_not_measured_is_not_enough_data() -> None:
    nothing = Estimate(math.nan, 0.0, math.inf)
    assert change_of(difference(nothing, Estimate(1.0, 0.9, 1.1)), Better.LOWER, 0.1) is Change.UNKNOWN
    two = difference_of_means(Measured(2, 1.0, 1.0), Measured(100, 5.0, 1.0))
    assert change_of(two, Better.LOWER, 0.1) is Change.UNKNOWN
    same = difference_of_means(Measured(9, 1.0, 0.0), Measured(9, 1.0, 0.0))
    assert change_of(same, Better.LOWER, 0.0) is Change.NONE
    with pytest.raises(ValueError, match="smallest that matters"):
        change_of(same, Better.LOWER, -1.0)


@pytest.mark.slow
def test_two_tests_of_one_endpoint_are_seldom_told_apart() -> None:
    draw = random.Random(12)
    found = []
    for _ in range(400):
        sides = [sorted(draw.lognormvariate(0.0, 0.4) for _ in range(500)) for _ in range(2)]
        new, old = (quantile_of(side, 0.95) for side in sides)
        found.append(change_of(difference(new, old), Better.LOWER, 0.02 * old.value))
    wrong = sum(one in (Change.BETTER, Change.WORSE) for one in found)
    assert wrong <= 0.07 * len(found)
