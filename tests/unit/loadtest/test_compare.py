"""Comparisons of tests whose truth is known: queues of plain numbers, faster, slower, failing, or just the same."""

import json
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from modelled import Endpoint, run

from engine.core.histogram import Histogram
from engine.core.statistics import Change
from engine.core.thresholds import parse_slo
from engine.loadtest.compare import Comparison, compare
from engine.loadtest.reading import results_of
from engine.observe.hlog import encoded

FAST = Endpoint(200, lambda draw: draw.lognormvariate(-2.0, 0.3))
SLOW = Endpoint(200, lambda draw: 1.3 * draw.lognormvariate(-2.0, 0.3))
SLO = (parse_slo("latency.p99<250ms"),)


def of(
    endpoint: Endpoint, seed: int, rate: float = 60.0, duration_s: float = 60.0, **more: Any
) -> dict[str, Any]:
    return run(endpoint, rate, duration_s, seed, SLO, **more).results()


def compared(old: dict[str, Any], new: dict[str, Any], **more: Any) -> Comparison:
    return compare(results_of(old), results_of(new), **more)


def changes(found: Comparison) -> dict[str, Change]:
    return {line.name: line.change for line in found.lines}


def test_what_takes_a_third_longer_is_worse_one_way_and_better_the_other() -> None:
    fast, slow = of(FAST, 1), of(SLOW, 2)
    found = compared(fast, slow)
    assert found.is_worse and found.is_concluded
    for name in ("latency.p50", "latency.p95", "latency.mean", "response_time.p50"):
        assert changes(found)[name] is Change.WORSE
        assert changes(compared(slow, fast))[name] is Change.BETTER
        (line,) = (line for line in found.lines if line.name == name)
        assert line.found.low < 0.3 * line.old < line.found.high
    assert changes(found)["attainment"] is Change.WORSE
    assert "worse (latency.p50, latency.p95, " in found.conclusion()


@pytest.mark.slow
def test_equal_tests_are_hardly_ever_told_apart() -> None:
    results = [results_of(of(FAST, seed, streamed=True)) for seed in range(16)]
    pairs = [compare(old, new) for old, new in pairwise(results)]
    assert sum(pair.is_worse for pair in pairs) <= 1
    medians = [changes(pair)["latency.p50"] for pair in pairs]
    assert medians.count(Change.NONE) >= 12


@pytest.mark.slow
def test_a_queue_near_its_limit_is_not_taken_for_so_many_independent_requests() -> None:
    near = Endpoint(8, lambda draw: draw.expovariate(10.0))
    results = [results_of(of(near, seed, rate=72.0)) for seed in range(16)]
    worse = sum(compare(old, new).is_worse for old, new in pairwise(results))
    assert worse <= 2
    plain = [results_of({**of(near, seed, rate=72.0), "series": []}) for seed in range(16)]
    assert sum(compare(old, new).is_worse for old, new in pairwise(plain)) > 2 * worse + 2


def test_a_short_test_says_that_it_has_not_enough_data() -> None:
    found = compared(of(FAST, 1, duration_s=1.0), of(FAST, 2, duration_s=1.0))
    assert changes(found)["latency.p99"] is Change.UNKNOWN
    assert not found.is_worse and "not enough data" in found.conclusion()


def test_a_second_in_which_all_is_slow_counts_as_one_bad_second_not_as_many_bad_requests() -> None:
    test = run(FAST, 60.0, 60.0, 1)
    frozen = run(FAST, 60.0, 60.0, 1)
    for one in frozen.sent:
        if 30 <= one.intended_s < 34:
            one.end_s = max(one.end_s, 34.0)
    (line,) = (
        line for line in compared(test.results(), frozen.results()).lines if line.name == "latency.p95"
    )
    assert line.new > 3 * line.old
    assert line.change is Change.UNKNOWN


@pytest.mark.parametrize(
    ("failing", "change"), [(0.001, {Change.UNKNOWN, Change.NONE}), (0.03, {Change.WORSE})]
)
def test_failures_are_held_against_a_tenth_of_a_point(failing: float, change: set[Change]) -> None:
    bad = Endpoint(200, FAST.serve_s, fail=failing)
    assert changes(compared(of(FAST, 1), of(bad, 2)))["error_rate"] in change


def test_no_failure_in_many_requests_is_no_change() -> None:
    found = compared(of(FAST, 1, rate=200.0), of(FAST, 2, rate=200.0))
    assert changes(found)["error_rate"] is Change.NONE


def test_what_matters_is_the_callers_to_say() -> None:
    fast, slow = of(FAST, 1), of(SLOW, 2)
    assert changes(compared(fast, slow, matters=0.6))["latency.p50"] is Change.NONE
    assert changes(compared(fast, slow, matters=0.1))["latency.p50"] is Change.WORSE


@pytest.mark.parametrize("verdict", ["CLIENT-LIMITED", "INVALID"])
@pytest.mark.parametrize("side", [0, 1])
def test_nothing_is_concluded_from_a_test_that_is_not_valid(verdict: str, side: int) -> None:
    sides = [of(FAST, 1), of(SLOW, 2)]
    sides[side] |= {"verdict": verdict, "reasons": ["It was late.\x1b[2J"]}
    found = compared(*sides)
    assert not found.is_concluded and not found.is_worse
    assert set(changes(found).values()) == {Change.UNKNOWN}
    assert f"is {verdict} (It was late." in found.conclusion() and "\x1b" not in found.conclusion()


def test_a_streamed_and_a_plain_test_are_compared_by_what_both_have() -> None:
    found = compared(of(FAST, 1, streamed=True), of(FAST, 2))
    assert not [name for name in changes(found) if name.startswith(("ttft", "tpot", "output"))]
    assert "latency.p99" in changes(found)
    assert any("was not streamed" in note for note in found.notes)


def test_throughput_that_was_asked_for_differently_is_not_compared() -> None:
    found = compared(of(FAST, 1), of(FAST, 2, rate=30.0))
    assert not {"achieved_rate", "goodput"} & changes(found).keys()
    assert any("60/s and 30/s" in note for note in found.notes)
    closed = compared(of(FAST, 1), {**of(FAST, 2), "asked_rate": None})
    assert any("a closed loop" in note for note in closed.notes)
    both = compared(*({**of(FAST, seed), "asked_rate": None} for seed in (1, 2)))
    assert "achieved_rate" in changes(both)


def test_a_closed_loop_that_gets_less_done_is_worse() -> None:
    old, new = ({**of(FAST, seed, rate=rate), "asked_rate": None} for seed, rate in ((1, 60.0), (2, 40.0)))
    assert changes(compared(old, new))["achieved_rate"] is Change.WORSE
    assert changes(compared(new, old))["goodput"] is Change.BETTER


def test_attainment_of_other_objectives_is_not_compared() -> None:
    old, new = of(FAST, 1), run(FAST, 60.0, 60.0, 2, (parse_slo("latency.p90<1s"),)).results()
    found = compared(old, new)
    assert not {"attainment", "goodput"} & changes(found).keys()
    assert any("objectives differ" in note for note in found.notes)


def test_without_histograms_the_intervals_of_the_file_are_used() -> None:
    old, new = of(FAST, 1), of(SLOW, 2)
    for side in (old, new):
        side["histograms"] = {}
        value = side["latency_ms"]["p50"]
        side["latency_ms"]["ci"] = {"p50": [value * 0.99, value * 1.01], "p99": [value, None]}
    found = changes(compared(old, new))
    assert found["latency.p50"] is Change.WORSE
    assert found["latency.p99"] is found["latency.p95"] is Change.UNKNOWN
    assert "latency.mean" not in found


def test_gaps_within_an_answer_are_not_counted_as_independent() -> None:
    def gaps(seed: int, scale: float, times: int) -> dict[str, Any]:
        test = run(FAST, 10.0, 60.0, seed, streamed=True)
        found = test.results()
        draw, pooled = Random(seed), Histogram()
        for _ in test.sent:
            gap_us = int(scale * draw.lognormvariate(9.0, 1.0))
            for _ in range(times):
                pooled.record(gap_us)
        found["histograms"]["chunk_gap"] = encoded(pooled)
        found["chunk_gap_ms"] = pooled.figures_ms()
        return found

    widths = []
    for times in (1, 100):
        found = compared(gaps(1, 1.0, times), gaps(2, 1.0, times))
        (line,) = (line for line in found.lines if line.name == "chunk_gap.p99")
        widths.append(line.found.high - line.found.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.35) or widths == [float("inf")] * 2


def test_searches_are_compared_by_what_lies_between_the_rates_that_held_and_failed() -> None:
    def search(held: float, failed: float, is_sure: bool = True) -> dict[str, Any]:
        return {**of(FAST, 1), "find_max": {"rate": held, "failed_rate": failed, "sure": is_sure}}

    assert changes(compared(search(100, 104), search(50, 52)))["highest_rate"] is Change.WORSE
    assert changes(compared(search(100, 104), search(200, 208)))["highest_rate"] is Change.BETTER
    assert changes(compared(search(100, 104), search(50, 52, False)))["highest_rate"] is Change.UNKNOWN


def test_what_was_asked_for_and_differs_is_named() -> None:
    old, new = of(FAST, 1), of(FAST, 2)
    old["test"]["url"], new["test"]["url\x1b"] = "http://a", "http://b"
    notes = " ".join(compared(old, new).notes)
    assert "differs in url, url" in notes and "\x1b" not in notes


def test_as_json_it_has_no_number_that_json_has_not() -> None:
    found = compared(of(FAST, 1, duration_s=1.0), of(FAST, 2, duration_s=1.0)).plain()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["metrics"][0]["metric"] == "latency.p50"
    assert any(line["high"] is None for line in found["metrics"])
