"""How latency grows, of queues whose capacity is known and of medians that are written down."""

from collections.abc import Sequence

import pytest
from modelled import Endpoint, run

from engine.loadtest.growth import growing_share, undone_share
from engine.loadtest.reading import Results, results_of

STEADY = Endpoint(20, lambda draw: 0.2)  # 100/s


def with_medians(medians: Sequence[float | None]) -> Results:
    series = [{"completed": int(one is not None), "latency_p50_ms": one} for one in medians]
    return results_of({**run(STEADY, 20.0, 5.0, 1).results(), "series": series})


@pytest.mark.parametrize("over", [1.05, 1.2, 2.0])
def test_growing_latency_tells_how_much_of_the_rate_was_not_done(over: float) -> None:
    results = results_of(run(STEADY, 100 * over, 60.0, 1).results())
    assert undone_share(results) == pytest.approx(1 - 1 / over, abs=0.03)
    assert growing_share(results) == pytest.approx(1 - 1 / over, abs=0.03)
    holds = results_of(run(STEADY, 80.0, 60.0, 1).results())
    assert undone_share(holds) == growing_share(holds) == 0.0


@pytest.mark.parametrize("seconds", [3, 4, 10])
def test_one_in_a_hundred_too_many_shows_within_seconds_where_nothing_else_moves(seconds: int) -> None:
    medians = [55.0 + 10.0 * second + 0.2 * (second % 2) for second in range(seconds)]
    assert growing_share(with_medians(medians)) == pytest.approx(0.01, abs=0.001)


def test_of_two_seconds_nothing_is_said() -> None:
    assert growing_share(with_medians([50.0, 500.0])) == growing_share(with_medians([])) == 0.0
    assert growing_share(with_medians([50.0, None, 500.0, None, 950.0])) > 0.1


@pytest.mark.parametrize(
    "medians",
    [
        [50.0] * 10,
        [50.0] * 5 + [150.0] * 5,  # it became slower once
        [50.0, 80.0, 40.0, 90.0, 60.0, 70.0, 110.0, 50.0, 90.0, 100.0],  # scatter
        [500.0 - 50 * second for second in range(10)],
        [50.0 + 0.4 * second for second in range(10)],  # less than a client's noise
        [90.0, 50.0, 130.0],
    ],
)
def test_what_may_be_chance_is_no_growth(medians: list[float]) -> None:
    assert growing_share(with_medians(medians)) == 0.0


def test_an_endpoint_that_fills_up_for_as_long_as_a_request_takes_is_not_growing() -> None:
    filling = [4_000.0, 4_500.0, 5_000.0, 5_500.0]
    assert growing_share(with_medians([*filling, *[5_600.0, 5_500.0] * 4])) == 0.0
    assert growing_share(with_medians(filling)) == 0.0
    assert growing_share(with_medians([4_000.0 + 500.0 * second for second in range(12)])) > 0.3


def test_scattered_times_that_do_not_grow_seldom_look_as_if_they_did() -> None:
    slow = Endpoint(10_000, lambda draw: draw.lognormvariate(0.0, 0.8))
    found = [growing_share(results_of(run(slow, 10.0, 10.0, seed).results())) for seed in range(40)]
    assert sum(share > 0 for share in found) <= 2
