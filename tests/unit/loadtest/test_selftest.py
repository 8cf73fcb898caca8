"""The yardsticks of the self-test, and how it tells what it found."""

import math
from random import Random

import pytest

from engine.loadtest.selftest import Check, dispersion, table


def test_even_arrivals_have_no_dispersion_random_ones_have_one() -> None:
    draw = Random(3)
    random, now = [], 0.0
    while now < 400.0:
        now += draw.expovariate(50.0)
        random.append(now)
    assert dispersion([number / 47 for number in range(20_000)], 0.1) < 0.1, "4 or 5 in each"
    assert dispersion(random, 0.1) == pytest.approx(1.0, abs=0.06)


def test_workers_that_send_the_same_thing_at_the_same_time_stand_out() -> None:
    draw = Random(3)
    doubled, now = [], 0.0
    while now < 400.0:
        now += draw.expovariate(25.0)
        doubled += [now, now]
    assert dispersion(doubled, 0.1) == pytest.approx(2.0, abs=0.15)


def test_too_few_arrivals_say_nothing() -> None:
    assert math.isnan(dispersion([], 0.1))
    assert math.isnan(dispersion([1.0, 1.05], 0.1))


def test_every_check_is_told_and_what_does_not_hold_stands_out() -> None:
    shown = table([Check("one", "1", "below 2", True), Check("other", "3", "below 2", False)])
    assert shown.splitlines()[0].startswith("ok ")
    assert shown.splitlines()[1].startswith("NOT OK")
    assert "1 of 2 checks do not hold" in shown
    assert "can be trusted" in table([Check("one", "1", "below 2", True)])
