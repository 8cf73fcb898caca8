"""The mock's quota models, on a clock of the test's own."""

import math

import pytest

from engine.mock.quota import Cost, Quota
from engine.mock.settings import QuotaSettings


def passed(kind: str, times: list[float], rpm: int = 60, **settings: float) -> list[bool]:
    quota = Quota([QuotaSettings(kind=kind, rpm=rpm, **settings)])  # type: ignore[arg-type]
    return [quota.take(now, Cost()) is None for now in times]


def test_a_sliding_window_counts_exactly_the_last_minute() -> None:
    times = [0.5] * 30 + [30.0] * 30 + [59.0, 60.51]
    assert passed("sliding", times) == [True] * 60 + [False, True]


def test_a_bucket_lets_a_full_minute_burst_and_then_one_a_second() -> None:
    assert passed("bucket", [0.0] * 61) == [True] * 60 + [False]
    assert passed("bucket", [0.0] * 60 + [1.01, 1.02]) == [True] * 61 + [False]


def test_clock_seconds_take_a_sixtieth_and_the_tolerance() -> None:
    assert passed("second", [5.0] * 12, rpm=600, tolerance=0.1) == [True] * 11 + [False]
    assert passed("second", [5.0] * 11 + [6.0], rpm=600, tolerance=0.1)[-1]


def test_a_minute_counter_starts_anew_with_its_minute() -> None:
    assert passed("minute", [1.0] * 61 + [61.5]) == [True] * 60 + [False, True]


def test_a_shorter_period_is_the_same_quota_faster() -> None:
    assert passed("sliding", [0.0] * 60 + [0.9, 1.01], period_s=1.0) == [True] * 60 + [False, True]


def test_a_request_that_can_never_pass_says_so() -> None:
    refusal = Quota([QuotaSettings(tpm=100)]).take(0.0, Cost(tokens=101))
    assert refusal is not None
    assert math.isinf(refusal.wait_s)


def test_a_request_refused_by_one_limit_costs_nothing_at_another() -> None:
    quota = Quota([QuotaSettings(rpm=10), QuotaSettings(tpm=100)])
    assert quota.take(0.0, Cost(tokens=100)) is None
    for _ in range(50):
        assert quota.take(1.0, Cost(tokens=50)) is not None
    assert quota.levels(1.0)["requests"].remaining == 9


@pytest.mark.parametrize("kind", ["never", ""])
def test_an_unknown_kind_is_refused(kind: str) -> None:
    with pytest.raises(ValueError):
        QuotaSettings(kind=kind, rpm=1)
