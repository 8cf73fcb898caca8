"""The histogram by example. Its proof over arbitrary values is tests/property/test_histogram.py."""

import math
import random

import pytest
from hdrh.histogram import HdrHistogram

from engine.core.histogram import VALUE_US_MAX, Histogram


def of(*values_us: int) -> Histogram:
    found = Histogram()
    for value_us in values_us:
        found.record(value_us)
    return found


def test_nothing_recorded_has_no_figures() -> None:
    empty = Histogram()
    assert empty.count == 0 and math.isnan(empty.mean_us()) and empty.quantile_us(0.5) is None
    assert set(empty.figures_ms().values()) == {None}
    estimate = empty.estimate_us(0.5)
    assert math.isnan(estimate.value) and (estimate.low, estimate.high) == (0.0, math.inf)
    assert Histogram.from_bytes(empty.to_bytes()) == empty


def test_small_values_are_exact_and_large_ones_to_a_thousandth() -> None:
    assert of(*range(1, 1001)).quantiles_us([0.0, 0.5, 0.999, 1.0]) == [1, 500, 999, 1000]
    found = of(5_000_000, 10_000_000).quantile_us(0.5)
    assert found is not None and 5_000_000 <= found <= 5_000_000 * (1 + 1 / 1024)


def test_count_sum_and_extremes_are_exact() -> None:
    found = of(7, 123_456_789, 3_000_001)
    assert (found.count, found.sum_us, found.min_us, found.max_us) == (3, 126_456_797, 7, 123_456_789)
    assert found.mean_us() == 126_456_797 / 3
    assert found.figures_ms()["max"] == 123_456.789


def test_what_is_out_of_range_is_counted_at_its_end() -> None:
    found = of(-5, 0, VALUE_US_MAX, VALUE_US_MAX + 1, 10**15)
    assert (found.min_us, found.max_us, found.clamped, found.count) == (0, VALUE_US_MAX, 2, 5)
    assert found.quantile_us(1.0) == VALUE_US_MAX
    assert found.sum_us == 3 * VALUE_US_MAX


def test_memory_is_bounded_whatever_is_recorded() -> None:
    found = Histogram()
    draw = random.Random(1)
    for _ in range(100_000):
        found.record(int(math.exp(draw.uniform(0, 22))))
    assert sum(1 for _ in found.buckets()) <= 23_221
    assert found.lowest_us(23_220) <= VALUE_US_MAX <= found.highest_us(23_220)


def test_the_quantiles_are_those_of_hdrhistogram() -> None:
    ours, theirs = Histogram(), HdrHistogram(1, VALUE_US_MAX, 3)
    draw = random.Random(2)
    for _ in range(20_000):
        value_us = int(draw.lognormvariate(12, 1.0))
        ours.record(value_us)
        theirs.record_value(value_us)
    for percent in (1, 50, 90, 95, 99, 99.9):
        assert ours.quantile_us(percent / 100) == theirs.get_value_at_percentile(percent)
    assert ours.variance() == pytest.approx(theirs.get_stddev() ** 2, rel=1e-3)


def test_the_count_up_to_a_bound_is_never_too_high() -> None:
    found = of(*range(0, 5_000_000, 1_000))
    for bound_us in (0, 999, 1_000, 799_999, 800_000, 4_999_000, 10**9):
        true = min(5_000, bound_us // 1_000 + 1)
        assert true - 8 <= found.count_at_most(bound_us) <= true
    assert found.count_at_most(4_999_000) == 5_000


def test_the_interval_of_a_quantile_lies_between_order_statistics() -> None:
    found = of(*range(1, 1001))
    assert found.estimate_us(0.99) == (990.0, 983.0, 997.0)
    few = of(*range(1, 51)).estimate_us(0.999)
    assert few.value == 50.0 and few.high == math.inf
    wide = found.estimate_us(0.5, design_effect=10.0)
    assert wide.low < found.estimate_us(0.5).low < 500 < found.estimate_us(0.5).high < wide.high


def test_histograms_with_other_buckets_are_not_merged() -> None:
    with pytest.raises(ValueError, match="different buckets"):
        Histogram().merge(Histogram(2))
    with pytest.raises(ValueError, match="1 to 5"):
        Histogram(6)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", b"\x02\x03", b"\x01\x09\x00\x00\x00\x00\x00", b"\x01\x03\x00\x05\x05\x05\x01",
     b"\x01\x03\x00\x05\x05\x05\x01\x05", b"\x01\x03\x00\x05\x05\x05\x01\x05\x01\x07",
     b"\x01\x03\x00\x05\x05\x05\x01\xff\xff\x7f\x01", b"\x01\x03\x00\x05\x05\x05\x02\x05\x01\x00\x01"],
)  # fmt: skip
def test_bytes_that_are_no_histogram_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        Histogram.from_bytes(data)
