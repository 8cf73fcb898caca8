"""Axes: every value has a place, and ticks are few, round and in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.loadtest import scales
from engine.loadtest.scales import Scale


def is_sound(scale: Scale) -> None:
    places = [scale.place(value) for value, _ in scale.ticks]
    assert places == sorted(places) and all(0 <= place <= 1 for place in places)
    assert len({words for _, words in scale.ticks}) == len(scale.ticks)


@given(st.floats(0, 1e12, allow_subnormal=False).filter(lambda high: high == 0 or high > 1e-9))
def test_a_linear_axis_begins_at_nothing_and_holds_its_highest_value(high: float) -> None:
    scale = scales.linear(high)
    is_sound(scale)
    assert 2 <= len(scale.ticks) <= scales.TICKS_MAX
    assert scale.ticks[0] == (0.0, "0") and scale.ticks[-1][0] >= high * (1 - 1e-9)
    assert scale.ticks[-1][0] <= max(1.0, 2.0 * high)


def test_counts_have_whole_ticks() -> None:
    assert [words for _, words in scales.linear(1, whole=True).ticks] == ["0", "1"]
    assert [words for _, words in scales.linear(3, whole=True).ticks] == ["0", "1", "2", "3"]


@given(st.lists(st.floats(0, 3.6e6).filter(lambda value: value == 0 or value > 1e-4), max_size=20))
def test_times_are_on_a_logarithmic_axis_only_where_they_span_much(values: list[float]) -> None:
    scale = scales.times_ms(values)
    is_sound(scale)
    some = [value for value in values if value > 0]
    is_wide = bool(some) and max(some) / min(some) > scales.LOG_FROM
    assert (scale.ticks[0][0] > 0) == is_wide
    assert 2 <= len(scale.ticks) <= scales.TICKS_MAX + 1
    placed = [scale.place(value) for value in sorted(values)]
    assert placed == sorted(placed)


@given(st.integers(0, 10**6), st.integers(1, 10**7))
def test_a_clock_has_few_ticks_within_the_test(start: int, length: int) -> None:
    scale = scales.clock(start, start + length)
    is_sound(scale)
    assert len(scale.ticks) <= scales.TICKS_MAX + 1
    assert all(start <= at_s <= start + length for at_s, _ in scale.ticks)


def test_a_clock_counts_seconds_in_short_tests_and_minutes_in_long_ones() -> None:
    assert [words for _, words in scales.clock(5, 35).ticks] == [
        "5 s",
        "10 s",
        "15 s",
        "20 s",
        "25 s",
        "30 s",
        "35 s",
    ]
    assert [words for _, words in scales.clock(0, 600).ticks][:3] == ["0:00", "2:00", "4:00"]


@given(st.integers(1, 10**9), st.floats(0, 1), st.floats(0, 1))
def test_each_nine_is_as_wide_as_the_one_before(count: int, low: float, high: float) -> None:
    scale = scales.nines(count)
    is_sound(scale)
    assert (scale.place(low) <= scale.place(high)) if low <= high else (scale.place(low) >= scale.place(high))
    if count >= 1_000:
        width = scale.place(0.99) - scale.place(0.9)
        assert width == pytest.approx(scale.place(0.999) - scale.place(0.99))
