"""What calls cost, before and after: by each provider's rule."""

import pytest

from engine.core.model import Charge
from engine.core.quota import Rates
from engine.providers.estimate import charge_by_larger, charge_by_sum
from engine.worker.charging import Charging


def learnt(charging: Charging, ratio: float) -> Charging:
    for _ in range(50):
        charge = charge_by_sum(100, 50)
        charging.settlement(charge, charge, round(100 * ratio), 50)
    return charging


def test_what_counts_real_usage_gives_back_what_was_not_used_of_each_kind() -> None:
    charge = charge_by_sum(100, 500)
    assert Charging(settles=True).settlement(charge, charge, 80, 20) == (-500, -20, -480)
    assert Charging(settles=True).settlement(charge, charge, 150, 520) == (70, 50, 20)


def test_what_counts_characters_gives_nothing_back_and_charges_what_was_too_low() -> None:
    larger, both = charge_by_larger(100, 60), charge_by_sum(100, 60)
    charging = Charging(settles=False)
    assert charging.settlement(larger, larger, 80, 20) == (0, 0, 0)
    assert charging.settlement(larger, larger, 130, 20) == (30, 30, 0)
    assert charging.settlement(both, both, 130, 20) == (30, 30, 0)
    assert charging.settlement(both, both, 90, 60) == (0, 0, 0)


@pytest.mark.parametrize("settles", [True, False])
def test_a_reply_without_usage_settles_nothing(settles: bool) -> None:
    charge = charge_by_sum(100, 60)
    assert Charging(settles=settles).settlement(charge, charge, 0, 0) == (0, 0, 0)
    assert Charging(settles=settles).settlement(charge, charge, -1, -1) == (0, 0, 0)


def test_usage_beyond_belief_is_cut() -> None:
    charge = charge_by_sum(100, 60)
    total, into, out = Charging(settles=True).settlement(charge, charge, 10**12, 10**12)
    assert (total, into, out) == (10**9 - 160, 10**9 - 100, 10**9 - 60)


def test_later_charges_are_corrected_by_the_rule_they_were_made_by() -> None:
    charging = learnt(Charging(settles=True), 0.5)
    assert charging.charged(charge_by_sum(1_000, 200)) == pytest.approx(Charge(501, 200, 701), abs=2)
    charging = learnt(Charging(settles=False), 1.5)
    assert charging.charged(charge_by_larger(1_000, 200)) == pytest.approx(Charge(1_500, 200, 1_500), abs=2)
    assert charging.charged(charge_by_larger(100, 200)).tokens == 200


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        (Rates(tpm=150), "160 tokens, more than the limit of 150 TPM"),
        (Rates(input_tpm=99), "100 tokens, more than the limit of 99 input TPM"),
        (Rates(output_tpm=59), "60 tokens, more than the limit of 59 output TPM"),
        (Rates(rpm=1, tpm=160, input_tpm=100, output_tpm=60), ""),
    ],
)
def test_a_call_that_costs_more_than_a_minute_of_a_limit_can_never_pass(rates: Rates, says: str) -> None:
    found = Charging(settles=True, rates=rates).too_dear(charge_by_sum(100, 60))
    assert says in found
    assert bool(found) == bool(says)


def test_other_limits_count_from_when_they_are_told() -> None:
    charging = Charging(settles=True)
    charge = charge_by_sum(100, 60)
    assert not charging.too_dear(charge)
    charging.limit(Rates(tpm=100))
    assert charging.too_dear(charge)


def test_for_a_call_that_is_older_than_the_minute_nothing_is_given_back() -> None:
    """Its charge is forgotten already: what was given back would be taken from younger calls."""
    charge = charge_by_sum(100, 500)
    charging = Charging(settles=True)
    assert charging.settlement(charge, charge, 80, 20, age_s=58.0) == (-500, -20, -480)
    assert charging.settlement(charge, charge, 80, 20, age_s=59.5) == (0, 0, 0)
    assert charging.settlement(charge, charge, 150, 520, age_s=90.0) == (70, 50, 20)
