"""The search over endpoints of any capacity, with and without noise."""

import math
from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings

from engine.core.search import Search, Why

SIZES = st.floats(0.01, 100_000.0)


@settings(max_examples=500, deadline=None)
@given(start=SIZES, capacity=SIZES, resolution=st.floats(0.02, 0.5), confirmations=st.integers(0, 3))
def test_without_noise_the_knee_is_found_within_the_resolution(
    start: float, capacity: float, resolution: float, confirmations: int
) -> None:
    search = Search(start, resolution=resolution, confirmations=confirmations, probes_max=60)
    while (rate := search.next_rate()) is not None:
        search.tell(rate, passed=rate <= capacity, saturated=rate > 3 * capacity)
    found = search.result()
    assert found.why is Why.CONFIRMED and found.confirmations == confirmations
    assert found.held is not None and found.failed is not None
    assert found.held <= capacity < found.failed
    assert found.failed <= found.held * (1 + resolution) or found.failed - found.held < 0.011 * found.held


@settings(max_examples=500, deadline=None)
@given(start=SIZES, seed=st.integers(0, 10**6), noise=st.floats(0.0, 2.0), probes_max=st.integers(1, 40))
def test_with_any_answers_it_ends_and_the_rate_held_whenever_it_was_tried(
    start: float, seed: int, noise: float, probes_max: int
) -> None:
    draw = Random(seed)
    capacity = math.exp(draw.uniform(-3, 10))
    search = Search(start, probes_max=probes_max, rate_min=0.001)
    tried: list[tuple[float, bool]] = []
    while (rate := search.next_rate()) is not None:
        passes = math.log(rate / capacity) + draw.gauss(0.0, noise) < 0
        tried.append((rate, passes))
        search.tell(rate, passes)
    found = search.result()
    assert found.probes == len(tried) <= probes_max
    if found.held is not None:
        answers = [passed for rate, passed in tried if rate == found.held]
        assert all(answers) and len(answers) == found.confirmations + 1
    if found.failed is not None:
        assert found.failures == [passed for rate, passed in tried if rate == found.failed].count(False) > 0
        assert found.held is None or found.held < found.failed
        assert all(passed for rate, passed in tried if rate < found.failed)


def test_with_noise_around_the_knee_the_answer_is_near_it() -> None:
    draw = Random(1)
    errors = []
    for _ in range(300):
        capacity = math.exp(draw.uniform(1, 9))
        search = Search(100.0, confirmations=2, probes_max=60)
        while (rate := search.next_rate()) is not None:
            search.tell(rate, passed=draw.random() < 1 / (1 + (rate / capacity) ** 40))
        found = search.result()
        assert found.is_sure and found.held is not None
        errors.append(found.held / capacity)
    errors.sort()
    assert errors[15] > 0.85 and errors[-15] < 1.08
    assert sum(errors) / len(errors) < 1.01  # cautious rather than bold
