"""The search for the highest rate, step by step. Its bounds are in tests/property/test_search.py."""

import pytest

from engine.core.search import Search, Why


def run(search: Search, capacity: float, saturated_from: float = float("inf")) -> list[float]:
    """Answer as an endpoint of that capacity; returns the rates that were tried."""
    tried = []
    while (rate := search.next_rate()) is not None:
        tried.append(rate)
        search.tell(rate, passed=rate <= capacity, saturated=rate >= saturated_from)
    return tried


def test_the_rate_doubles_until_it_fails_then_the_gap_is_halved_and_the_knee_confirmed() -> None:
    search = Search(100.0, resolution=0.05, confirmations=2)
    tried = run(search, 1_000.0)
    assert tried[:5] == [100.0, 200.0, 400.0, 800.0, 1_600.0]
    assert tried[5:] == [1_130.0, 951.0, 1_040.0, 995.0, 995.0, 995.0]
    found = search.result()
    assert (found.held, found.failed, found.confirmations, found.failures) == (995.0, 1_040.0, 2, 1)
    assert found.why is Why.CONFIRMED and found.is_sure and found.probes == len(tried)


def test_a_start_above_the_knee_is_halved_and_quartered_when_it_is_far_above() -> None:
    assert run(Search(1_000.0), 300.0)[:3] == [1_000.0, 500.0, 250.0]
    assert run(Search(1_000.0), 300.0, saturated_from=900.0)[:2] == [1_000.0, 250.0]


def test_a_saturated_try_never_passes() -> None:
    search = Search(10.0)
    search.tell(10.0, passed=True, saturated=True)
    assert search.held is None and search.failed == 10.0


def test_a_rate_that_fails_when_it_is_tried_again_counts_as_failed() -> None:
    search = Search(100.0, resolution=0.5, confirmations=1)
    for rate, passed in ((100.0, True), (200.0, False), (141.0, True)):
        assert search.next_rate() == rate
        search.tell(rate, passed)
    assert search.next_rate() == 141.0
    search.tell(141.0, passed=False)
    assert search.next_rate() == 100.0
    search.tell(100.0, passed=True)
    found = search.result()
    assert (found.held, found.failed, found.confirmations, found.why) == (100.0, 141.0, 1, Why.CONFIRMED)


def test_an_endpoint_that_holds_everything_is_confirmed_at_the_highest_rate() -> None:
    search = Search(300.0, rate_max=1_000.0, confirmations=2)
    assert run(search, 1e9) == [300.0, 600.0, 1_000.0, 1_000.0, 1_000.0]
    found = search.result()
    assert (found.held, found.failed, found.why, found.is_sure) == (1_000.0, None, Why.RATE_MAX, True)


def test_an_endpoint_that_holds_nothing_ends_at_the_lowest_rate() -> None:
    search = Search(1.0, rate_min=0.3)
    assert run(search, 0.0) == [1.0, 0.5, 0.3]
    found = search.result()
    assert (found.held, found.failed, found.why, found.is_sure) == (None, 0.3, Why.NOTHING_HELD, False)


def test_a_search_that_is_stopped_says_what_it_knows() -> None:
    search = Search(100.0, probes_max=4)
    assert Search(5.0).result().why is Why.UNFINISHED
    assert len(run(search, 350.0)) == 4
    found = search.result()
    assert (found.held, found.failed, found.confirmations, found.why) == (283.0, 400.0, 0, Why.PROBES_SPENT)
    assert not found.is_sure


def test_a_try_that_showed_nothing_is_repeated_twice_and_has_to_be_told_then() -> None:
    search = Search(100.0)
    assert [search.repeat(100.0) for _ in range(3)] == [True, True, False]
    assert search.probes == 2 and search.next_rate() == 100.0 and search.failed is None
    search.tell(100.0, passed=True)
    assert search.next_rate() == 200.0 and search.repeat(200.0)
    search.tell(200.0, passed=False)
    assert search.result().failures == 1 and search.probes == 5


def test_repetitions_are_tries_too() -> None:
    search = Search(100.0, probes_max=2)
    assert search.repeat(100.0) and search.repeat(100.0)
    assert search.next_rate() is None and search.result().why is Why.PROBES_SPENT
    with pytest.raises(ValueError):
        search.repeat(100.0)


def test_an_answer_that_was_not_asked_for_changes_nothing() -> None:
    search = Search(100.0)
    with pytest.raises(ValueError, match="99"):
        search.tell(99.0, passed=True)
    with pytest.raises(ValueError, match="99"):
        search.repeat(99.0)
    assert search.probes == 0 and search.next_rate() == 100.0
    run(search, 100.0)
    with pytest.raises(ValueError):
        search.tell(100.0, passed=True)


@pytest.mark.parametrize(
    "wrong",
    [{"rate_max": 5.0}, {"rate_min": 20.0}, {"rate_min": 0.0}, {"resolution": 0.0}, {"resolution": 1.0},
     {"confirmations": -1}, {"probes_max": 0}, {"rate_max": float("inf")}],
)  # fmt: skip
def test_a_search_over_nothing_is_a_programming_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Search(10.0, **wrong)  # type: ignore[arg-type]
