"""Estimates of prompts, corrected by what replies state."""

import pytest

from engine.core.estimate import FACTOR_MAX, FACTOR_MIN, LEAST_REPLIES, Correction


def learnt(ratio: float, replies: int = 100, *, may_lower: bool = True) -> Correction:
    correction = Correction(may_lower=may_lower)
    for number in range(replies):
        estimated = 100 + number % 7
        correction.observe(estimated, max(1, round(estimated * ratio)))
    return correction


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.0, 1.3, 2.5])
def test_the_factor_is_found_and_estimates_are_right_on_average(ratio: float) -> None:
    correction = learnt(ratio)
    assert correction.factor == pytest.approx(ratio, rel=0.02)
    assert correction.corrected(1_000) == pytest.approx(1_000 * ratio, rel=0.02)


def test_a_few_replies_say_nothing_yet() -> None:
    assert learnt(2.0, LEAST_REPLIES - 1).corrected(100) == 100
    assert learnt(2.0, LEAST_REPLIES).corrected(100) > 190


def test_what_is_counted_by_characters_is_never_estimated_lower_than_that() -> None:
    assert learnt(0.5, may_lower=False).corrected(100) == 100
    assert learnt(1.5, may_lower=False).corrected(100) == pytest.approx(150, abs=2)


@pytest.mark.parametrize(("ratio", "factor"), [(1e-3, FACTOR_MIN), (1e6, FACTOR_MAX)])
def test_replies_that_lie_move_it_only_so_far(ratio: float, factor: float) -> None:
    assert learnt(ratio).factor == factor


def test_one_reply_that_is_far_off_moves_it_little_and_a_change_is_followed() -> None:
    correction = learnt(1.0, 200)
    correction.observe(100, 300)
    assert correction.factor < 1.06
    correction.observe(100, 10**9)
    assert correction.factor < 1.12
    for _ in range(200):
        correction.observe(100, 140)
    assert correction.factor == pytest.approx(1.4, rel=0.02)
