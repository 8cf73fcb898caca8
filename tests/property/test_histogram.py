"""The histogram over arbitrary values: merging is addition, bytes come back equal, no figure is off by more than told."""

import math
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from engine.core.histogram import VALUE_US_MAX, Histogram

VALUES = st.lists(st.integers(-10, VALUE_US_MAX * 2) | st.integers(0, 5_000), max_size=200)
DIGITS = st.integers(1, 5)


def of(values_us: list[int], digits: int = 3) -> Histogram:
    found = Histogram(digits)
    for value_us in values_us:
        found.record(value_us)
    return found


@settings(max_examples=60, deadline=None)
@given(values=VALUES, owners=st.lists(st.integers(0, 3), min_size=200, max_size=200), digits=DIGITS)
def test_the_histogram_of_all_values_is_the_merge_of_any_shards(
    values: list[int], owners: list[int], digits: int
) -> None:
    merged = Histogram(digits)
    for owner in range(4):
        shard = of([one for one, mine in zip(values, owners, strict=False) if mine == owner], digits)
        merged.merge(Histogram.from_bytes(shard.to_bytes()))
    assert merged == of(values, digits)


@settings(max_examples=60, deadline=None)
@given(first=VALUES, values=VALUES, digits=DIGITS)
def test_values_counted_all_at_once_are_counted_as_one_by_one(
    first: list[int], values: list[int], digits: int
) -> None:
    found = of(first, digits)
    found.record_all(values)
    assert found == of(first + values, digits)


@settings(max_examples=300, deadline=None)
@given(value=st.integers(0, VALUE_US_MAX), digits=DIGITS)
def test_a_value_lies_in_its_bucket_and_the_bucket_is_narrow(value: int, digits: int) -> None:
    found = of([value], digits)
    ((index, many),) = found.buckets()
    low, high = found.lowest_us(index), found.highest_us(index)
    assert many == 1 and low <= value <= high
    assert high - low <= low / 10**digits
    assert found.lowest_us(index + 1) == high + 1


@settings(max_examples=200, deadline=None)
@given(values=VALUES.filter(bool), quantile=st.floats(0, 1), digits=DIGITS)
def test_a_quantile_is_never_low_and_never_high_by_more_than_a_bucket(
    values: list[int], quantile: float, digits: int
) -> None:
    ordered = sorted(min(max(0, value), VALUE_US_MAX) for value in values)
    true = ordered[min(len(ordered), max(1, math.ceil(quantile * len(ordered) * (1 - 1e-12)))) - 1]
    found = of(values, digits).quantile_us(quantile)
    assert found is not None and true <= found <= true * (1 + 10**-digits)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=40))
def test_any_bytes_are_a_histogram_or_refused(data: bytes) -> None:
    try:
        found = Histogram.from_bytes(data)
    except ValueError:
        return
    assert found.count >= 0


@pytest.mark.slow
def test_percentiles_of_many_log_normal_values_are_within_a_thousandth() -> None:
    draw = random.Random(4)
    values = [int(draw.lognormvariate(11.5, 0.8)) for _ in range(300_000)]
    found = of(values)
    values.sort()
    for quantile in (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999):
        true = values[math.ceil(quantile * len(values)) - 1]
        assert true <= (found.quantile_us(quantile) or 0) <= true * 1.001
    assert found.mean_us() == sum(values) / len(values)
