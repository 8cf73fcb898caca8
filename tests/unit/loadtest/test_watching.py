"""When a probe is stopped early: sequences of plain numbers, written down or computed from queues."""

import math
from collections.abc import Callable
from random import Random

import pytest
from modelled import Endpoint, LoadTest, Sent, progress_of, run

from engine.core.thresholds import Objective, parse_slo
from engine.loadtest.watching import Beat, Stop, Watch

P99 = (parse_slo("response_time.p99<500ms"),)


def watched(test: LoadTest, held_back: bool = False) -> tuple[Stop | None, float]:
    """What the watch says of a test, and at which second (its end when it says nothing)."""
    watch, at = Watch(test.objectives), progress_of(test)
    for second in range(1, int(test.duration_s) + 1):
        intended, ended, met, failed = at(float(second))
        in_flight = 0 if held_back else intended - ended
        beat = Beat(
            float(second), intended, ended, met, in_flight, round(test.rate * test.duration_s), failed
        )
        if (stop := watch.stop(beat)) is not None:
            assert watch.stopped is stop
            return stop, float(second)
    return None, test.duration_s


def slow(
    rate: float, takes_s: Callable[[Random], float], seed: int, objectives: tuple[Objective, ...] = ()
) -> LoadTest:
    """An endpoint without a limit."""
    return run(Endpoint(100_000, takes_s), rate, 120.0, seed, objectives)


def test_objectives_that_cannot_be_met_any_more_are_certain_at_the_first_request_too_many() -> None:
    for violations, stop in ((10, None), (11, Stop.MISSED)):
        watch = Watch(P99)
        assert watch.stop(Beat(1.0, 500, 500, (500 - violations,), 0, 1_000)) is stop
        assert watch.stopped is stop


def test_one_request_is_enough_where_every_one_has_to_be_met() -> None:
    assert Watch((parse_slo("ttft<1s"),)).stop(Beat(1.0, 9, 9, (9,), 0, 100)) is None
    assert Watch((parse_slo("ttft<1s"),)).stop(Beat(1.0, 9, 9, (8,), 0, 100)) is Stop.MISSED


def test_each_objective_is_looked_at() -> None:
    both = (*P99, parse_slo("ttft.p50<1s"))
    assert Watch(both).stop(Beat(1.0, 600, 600, (600, 300), 0, 1_000)) is None
    assert Watch(both).stop(Beat(1.0, 600, 600, (600, 99), 0, 1_000)) is Stop.MISSED


def test_without_objectives_failures_are_counted() -> None:
    assert Watch().stop(Beat(1.0, 500, 500, (), 0, 1_000, failed=10)) is None
    assert Watch().stop(Beat(1.0, 500, 500, (), 0, 1_000, failed=11)) is Stop.MISSED


def test_an_endpoint_that_hangs_is_known_by_what_is_under_way_for_too_long() -> None:
    test = run(Endpoint(10, lambda draw: 1.0, hang=True), 50.0, 60.0, 1, P99)
    stop, at_s = watched(test)
    assert stop is Stop.MISSED and at_s <= 4


def test_a_bound_on_the_first_content_says_nothing_of_a_request_that_is_under_way() -> None:
    watch = Watch((parse_slo("ttft.p99<500ms"),))
    assert all(watch.stop(Beat(float(at), 50 * at, 0, (0,), 50 * at, 3_000)) is None for at in range(1, 61))


@pytest.mark.parametrize(("over", "within_s"), [(1.3, 60.0), (2.0, 15.0), (10.0, 15.0)])
@pytest.mark.parametrize("seed", range(5))
def test_an_endpoint_that_is_asked_too_much_is_known_within_seconds(
    over: float, within_s: float, seed: int
) -> None:
    endpoint = Endpoint(10, lambda draw: draw.expovariate(5.0))  # 50/s
    stop, at_s = watched(run(endpoint, 50.0 * over, 120.0, seed))
    assert stop is Stop.SATURATED and at_s <= within_s
    with_bound, bound_s = watched(run(endpoint, 50.0 * over, 120.0, seed, P99))
    assert with_bound is not None and bound_s <= at_s


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("load", [0.5, 0.8, 0.9])
def test_an_endpoint_that_holds_the_rate_is_left_alone(load: float, seed: int) -> None:
    endpoint = Endpoint(10, lambda draw: draw.expovariate(5.0))
    assert watched(run(endpoint, 50.0 * load, 60.0, seed))[0] is None


@pytest.mark.parametrize(
    "takes_s",
    [lambda draw: 30.0, lambda draw: draw.uniform(20.0, 60.0), lambda draw: draw.expovariate(1 / 30),
     lambda draw: draw.lognormvariate(math.log(20), 0.8), lambda draw: draw.gammavariate(4.0, 8.0)],
    ids=["fixed", "uniform", "exponential", "lognormal", "gamma"],
)  # fmt: skip
@pytest.mark.parametrize("rate", [5.0, 100.0])
def test_an_endpoint_that_is_slow_and_follows_is_not_taken_for_one_that_falls_behind(
    takes_s: Callable[[Random], float], rate: float
) -> None:
    assert watched(slow(rate, takes_s, 1))[0] is None


def test_quick_answers_that_are_well_tell_that_the_slow_ones_are_only_under_way() -> None:
    def mixed(draw: Random) -> float:
        return 0.2 if draw.random() < 0.5 else 55.0

    assert watched(slow(50.0, mixed, 1, (parse_slo("response_time.p50<60s"),)))[0] is None
    # Without a bound the first minute of such an endpoint looks like one of half the capacity.
    assert watched(slow(50.0, mixed, 1))[0] is Stop.SATURATED


def test_what_the_client_holds_back_is_not_the_endpoints_backlog() -> None:
    test = run(Endpoint(10, lambda draw: draw.expovariate(5.0)), 100.0, 60.0, 1)
    assert watched(test)[0] is Stop.SATURATED
    assert watched(test, held_back=True)[0] is None


def test_a_pause_that_is_made_up_for_is_no_saturation() -> None:
    sent = [
        Sent(at / 50, max(at / 50 + 0.05, 22.0) if 20 <= at / 50 < 22 else at / 50 + 0.05, False)
        for at in range(3_000)
    ]
    assert watched(LoadTest(sent, 60.0, 50.0))[0] is None
