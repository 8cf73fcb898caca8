"""What resemblance within a test does to its intervals."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.measuring import Second
from engine.loadtest.certainty import STRETCHES_MAX, Likeness


def seconds(latencies_us: list[list[int]]) -> dict[int, Second]:
    found = {}
    for number, values in enumerate(latencies_us):
        second = found[number] = Second(intended=len(values), sent=len(values), completed=len(values))
        for value in values:
            second.latency.record(value)
            second.ttft.record(value)
    return found


def independent(many: int, each: int, seed: int = 1) -> list[list[int]]:
    draw = Random(seed)
    return [[int(draw.lognormvariate(11, 0.4)) for _ in range(each)] for _ in range(many)]


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_independent_requests_count_nearly_in_full(quantile: float) -> None:
    effects = [
        Likeness(seconds(independent(60, 100, seed))).of_quantile("latency", quantile) for seed in range(6)
    ]
    assert 1 <= sum(effects) / len(effects) < 1.3


@pytest.mark.parametrize("name", ["latency", "ttft_sched", "response_time", "tpot"])
def test_seconds_that_are_slow_as_a_whole_count_for_less(name: str) -> None:
    values = [
        [value * (5 if number % 10 == 0 else 1) for value in one]
        for number, one in enumerate(independent(60, 100))
    ]
    likeness = Likeness(seconds(values))
    assert likeness.of_quantile(name, 0.9) > 20
    assert likeness.of_mean(name) > 10


def test_a_slow_phase_of_a_long_test_is_seen_as_one() -> None:
    """Half a minute is half of a stretch of an hour, and thirty seconds that resemble each other."""
    values = independent(3_600, 5)
    for number in range(1_800, 1_830):
        values[number] = [50_000_000] * 5
    assert Likeness(seconds(values)).of_quantile("latency", 0.99) > 60
    assert len(Likeness(seconds(values))._stretches) == STRETCHES_MAX


def test_equal_values_and_too_few_seconds_tell_nothing() -> None:
    for values in ([[70_000] * 9] * 30, independent(9, 100), [], [[]] * 20):
        likeness = Likeness(seconds(values))
        assert likeness.of_quantile("latency", 0.9) == likeness.of_mean("latency") == 1
        assert likeness.of_success() == likeness.of_failure() == likeness.of_bound("latency", 1.0) == 1


def test_values_of_one_bucket_do_not_differ_by_where_their_seconds_end() -> None:
    draw = Random(3)
    values = [[draw.randint(10_010, 10_040) for _ in range(50)] for _ in range(40)]
    assert Likeness(seconds(values)).of_quantile("latency", 0.5) == 1


def test_failures_that_come_together_make_every_share_less_sure() -> None:
    found = seconds(independent(40, 50))
    for number in (20, 21):
        found[number] = Second(intended=50, sent=50, failed=50)
    likeness = Likeness(found)
    assert min(likeness.of_success(), likeness.of_failure(), likeness.of_bound("latency", 1e6)) > 20


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10_000_000), max_size=8), max_size=200), st.floats(0.001, 0.999))
def test_no_effect_is_below_one(values: list[list[int]], quantile: float) -> None:
    likeness = Likeness(seconds(values))
    assert likeness.of_quantile("latency", quantile) >= 1
    assert likeness.of_mean("ttft") >= 1
    assert likeness.of_bound("ttft", quantile * 10_000) >= 1
