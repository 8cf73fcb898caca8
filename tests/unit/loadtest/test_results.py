"""The results of a load test: every figure by its definition, none that was not measured, the same from any shards."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadtests import STARTED_AT, calm, notes, outcome, plan, timing

import engine
from engine.core.measuring import PLAIN, STREAMED, Measures
from engine.loadtest.model import LoadPlan
from engine.loadtest.results import results_of
from engine.observe import hlog
from engine.schedules import Schedule
from engine.schedules.profile import Piece

FIGURES = {"p50", "p90", "p95", "p99", "p99_9", "max", "mean", "count", "ci"}
REQUESTS = st.tuples(
    st.floats(0, 9.99), st.floats(0.001, 4), st.floats(0, 0.02), st.sampled_from(["", "", "", "reset", "dropped"])
)  # fmt: skip


def counted(asked: LoadPlan, requests: list[tuple[float, float, float, str]]) -> Measures:
    measures = Measures(asked.objectives, is_streamed=asked.is_streamed)
    for at_s, latency_s, lag_s, end in requests:
        if end == "dropped":
            measures.dropped(at_s)
        else:
            first_s = latency_s / 3 if asked.is_streamed else 0.0
            measures.ended(
                timing(at_s, lag_s=lag_s, latency_s=latency_s, first_s=first_s, tokens_out=5), at_s, end
            )
    return measures


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [one for part in value.values() for one in numbers_in(part)]
    if isinstance(value, list):
        return [one for part in value for one in numbers_in(part)]
    return [value] if isinstance(value, float) else []


def test_they_hold_what_was_promised() -> None:
    asked = plan(is_streamed=True, slos=("ttft.p99<800ms",), fail_if=("error_rate>1%",))
    found = results_of(asked, outcome(calm(asked)))
    assert set(found) >= {
        "engine", "verdict", "reasons", "started_at", "lasted_s", "window_s", "interrupted", "test", "asked_rate",
        "achieved_rate", "achieved", "intended", "sent", "completed", "failed", "late", "dropped", "warm_up", "errors",
        "error_rate", "tokens_in", "tokens_out", "output_tokens_per_s", "tokens_source", "goodput", "attainment",
        "attainment_ci", "slo", "thresholds", "series", "workers", "histograms",
    }  # fmt: skip
    for name in (*PLAIN, *STREAMED):
        assert set(found[f"{name}_ms"]) == FIGURES, name
    assert found["engine"] == engine.__version__
    assert (found["started_at"], found["test"]) == (STARTED_AT, asked.asked)
    assert found["verdict"] == "VALID" and found["reasons"] == []


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUESTS, max_size=60), st.booleans(), st.sampled_from([None, 10.0]))
def test_whatever_happened_they_are_plain_finite_and_add_up(
    requests: list[tuple[float, float, float, str]], is_streamed: bool, rate: float | None
) -> None:
    asked = plan(rate, is_streamed=is_streamed, slos=("latency.p90<1s",), fail_if=("response_time.p99>2s",))
    found = results_of(asked, outcome(counted(asked, requests)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(map(math.isfinite, numbers_in(found)))
    assert found["intended"] == found["completed"] + found["failed"] + found["dropped"] == len(requests)
    assert sum(found["errors"].values()) == found["failed"]
    for key in ("intended", "sent", "completed", "failed", "dropped"):
        assert sum(entry[key] for entry in found["series"]) == found[key]
    assert [entry["second"] for entry in found["series"]] == list(range(10))
    for name in asked_names(is_streamed):
        figures = found[f"{name}_ms"]
        for key, (low, high) in figures["ci"].items():
            if figures["count"]:
                assert (low is None or low <= figures[key]) and (high is None or figures[key] <= high)
            else:
                assert figures[key] is low is high is None
    assert found["achieved"] is None or 0 <= found["achieved"] <= 1


def asked_names(is_streamed: bool) -> tuple[str, ...]:
    return PLAIN + STREAMED if is_streamed else PLAIN


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(REQUESTS, st.integers(0, 2)), max_size=60))
def test_they_are_the_same_however_many_workers_counted(
    requests: list[tuple[tuple[float, float, float, str], int]],
) -> None:
    asked = plan(slos=("latency.p90<1s",), is_streamed=True)
    together = Measures(asked.objectives, is_streamed=True)
    for worker in range(3):
        together.add(counted(asked, [one for one, owner in requests if owner == worker]).take())
    alone = counted(asked, [one for one, _ in requests])
    assert results_of(asked, outcome(together)) == results_of(asked, outcome(alone))


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_test_in_which_nothing_happened_has_results_too(is_streamed: bool) -> None:
    for rate in (None, 5.0):
        asked = plan(rate, is_streamed=is_streamed, fail_if=("error_rate>1%",), slos=("latency<1s",))
        nothing = outcome(Measures(asked.objectives, is_streamed=is_streamed), lasted_s=0.0, window_s=0.0)
        nothing.notes.clear()
        found = results_of(asked, nothing)
        assert found["verdict"] == "INVALID"
        assert (found["achieved_rate"], found["achieved"], found["error_rate"], found["series"]) == (
            0,
            None,
            None,
            [],
        )
        assert found["thresholds"][0]["broken"] and not found["slo"][0]["holds"]
        assert found["attainment_ci"] == [0, 1]


def test_the_asked_rate_is_that_of_the_schedule_in_the_window_and_not_of_the_warm_up() -> None:
    ramp = Schedule("constant", (Piece(0.0, 100.0, 10.0),), duration_s=20.0)
    asked = plan(schedule=ramp, warmup_s=5.0)
    found = results_of(asked, outcome(Measures(), window_s=10.0))
    assert found["asked_rate"] == pytest.approx((375 + 500) / 10)  # from 5 s on the ramp rises from 50 to 100


def test_a_random_schedule_is_asked_for_its_mean_and_achieves_what_it_intended() -> None:
    asked = plan(schedule=Schedule("poisson", (Piece(95.0, 95.0, 1.0),), duration_s=10.0))
    found = results_of(asked, outcome(calm(asked, 1_000)))
    assert (found["asked_rate"], found["achieved_rate"], found["achieved"]) == (95.0, 100.0, 1.0)


@pytest.mark.parametrize("arrival", ["poisson", "gamma"])
def test_a_random_schedule_that_came_to_fewer_requests_was_kept_when_all_of_them_were_sent(
    arrival: str,
) -> None:
    asked = plan(
        schedule=Schedule(arrival, (Piece(110.0, 110.0, 1.0),), duration_s=10.0), fail_if=("achieved<99%",)
    )
    found = results_of(asked, outcome(calm(asked, 1_000)))
    assert (found["asked_rate"], found["achieved_rate"], found["achieved"]) == (110.0, 100.0, 1.0)
    assert (found["verdict"], found["thresholds"][0]["broken"]) == ("VALID", False)
    measures = calm(asked, 950)
    measures.dropped(9.0, 50)
    assert results_of(asked, outcome(measures))["achieved"] == pytest.approx(0.95)


def test_a_replayed_trace_asks_for_what_it_holds() -> None:
    asked = plan(schedule=Schedule("trace", offsets_s=tuple(index / 20 for index in range(200))))
    assert results_of(asked, outcome(calm(asked, 200)))["asked_rate"] == 20.0


def test_a_closed_loop_asks_for_no_rate() -> None:
    asked = plan(None)
    found = results_of(asked, outcome(calm(asked)))
    assert (found["asked_rate"], found["achieved"], found["achieved_rate"]) == (None, None, 100.0)


def test_sending_for_longer_than_the_window_lowers_the_achieved_rate() -> None:
    asked = plan(warmup_s=2.0)
    behind = outcome(calm(asked), notes(last_sent_s=9.0), notes(1, last_sent_s=14.5), lasted_s=15.0)
    found = results_of(asked, behind)
    assert found["achieved_rate"] == pytest.approx(1_000 / 12.5)
    assert found["achieved"] == pytest.approx(0.8)
    assert found["verdict"] == "CLIENT-LIMITED"


def test_errors_are_of_what_was_attempted_and_attainment_of_what_was_intended() -> None:
    asked = plan(slos=("latency.p90<10s",))
    measures = calm(asked, 800, failed=80)
    measures.dropped(4.0, 200)
    found = results_of(asked, outcome(measures))
    assert found["error_rate"] == 0.1
    assert found["attainment"] == found["slo"][0]["attainment"] == 0.72
    low, high = found["attainment_ci"]
    assert low < 0.72 < high
    assert found["slo"][0] | {"low": 0, "high": 0} == {
        "text": "latency.p90<10s", "metric": "latency", "bound_ms": 10_000.0, "share": 0.9, "met": 720, "of": 1_000,
        "attainment": 0.72, "low": 0, "high": 0, "holds": False,
    }  # fmt: skip


@pytest.mark.parametrize(("failed", "holds"), [(1, True), (2, False)])
def test_an_objective_holds_up_to_the_last_request_that_its_share_allows(failed: int, holds: bool) -> None:
    asked = plan(slos=("latency.p99_9<10s",))
    assert results_of(asked, outcome(calm(asked, 1_000, failed=failed)))["slo"][0]["holds"] is holds


def test_an_endpoint_that_answers_at_its_leisure_is_not_credited_with_the_rate_of_sending() -> None:
    asked = plan(is_streamed=True)
    measures = Measures(is_streamed=True)
    for index in range(1_000):  # 100 requests/s for ten seconds, served at 25/s
        measures.ended(
            timing(index / 100, latency_s=0.03 * index + 0.01, first_s=0.001, tokens_out=10), index / 100, ""
        )
    found = results_of(asked, outcome(measures, lasted_s=40.0))
    assert found["achieved_rate"] == 100.0
    assert found["goodput"] == pytest.approx(25, rel=0.02)
    assert found["output_tokens_per_s"] == pytest.approx(250, rel=0.02)


def test_one_reply_that_hangs_does_not_spread_the_others_over_its_time() -> None:
    asked = plan()
    measures = calm(asked, 1_000)
    measures.ended(timing(9.9, latency_s=60.0), 9.9, "timeout_total")
    assert results_of(asked, outcome(measures, lasted_s=70.0))["goodput"] == pytest.approx(100, rel=0.02)


def test_tokens_are_unknown_where_no_reply_counted_them() -> None:
    asked = plan()
    found = results_of(asked, outcome(calm(asked)))
    assert [found[key] for key in ("tokens_in", "tokens_out", "output_tokens_per_s", "tokens_source")] == [
        None
    ] * 4
    streamed = plan(is_streamed=True)
    found = results_of(streamed, outcome(calm(streamed)))
    assert (found["tokens_in"], found["tokens_out"], found["tokens_source"]) == (7_000, 20_000, "usage")
    assert found["output_tokens_per_s"] == pytest.approx(2_000, rel=0.02)


def test_thresholds_are_held_against_the_results_themselves() -> None:
    asked = plan(fail_if=("response_time.p99>1ms", "achieved<99%", "dropped>0"))
    found = results_of(asked, outcome(calm(asked)))
    assert [one["broken"] for one in found["thresholds"]] == [True, False, False]
    assert found["thresholds"][0]["value"] == found["response_time_ms"]["p99"]
    assert "broken at" in found["thresholds"][0]["says"]


def test_the_series_has_every_second_of_the_window_and_first_tokens_only_in_streams() -> None:
    asked = plan(warmup_s=3.0)
    measures = Measures()
    measures.ended(timing(5.5, latency_s=0.2), 5.5, "")
    series = results_of(asked, outcome(measures, window_s=4.2))["series"]
    assert [entry["second"] for entry in series] == [3, 4, 5, 6, 7]
    assert [entry["completed"] for entry in series] == [0, 0, 1, 0, 0]
    assert series[2]["latency_p50_ms"] == pytest.approx(200, rel=0.01)
    assert series[0]["latency_p99_ms"] is None and "ttft_p50_ms" not in series[0]
    streamed = plan(is_streamed=True)
    assert results_of(streamed, outcome(calm(streamed)))["series"][0]["ttft_p99_ms"] > 0


def test_pieces_of_one_answer_are_no_independent_samples() -> None:
    asked = plan(is_streamed=True)
    many = results_of(asked, outcome(calm(asked, 1_000)))
    low, high = many["chunk_gap_ms"]["ci"]["p50"]
    first_low, first_high = many["ttft_ms"]["ci"]["p50"]
    middle, first = many["chunk_gap_ms"]["p50"], many["ttft_ms"]["p50"]
    assert many["chunk_gap_ms"]["count"] == 19 * many["completed"]
    assert (high - low) / middle == pytest.approx((first_high - first_low) / first, rel=0.15)


def test_each_worker_says_how_hard_it_worked() -> None:
    busy = notes(3, cpu_s=9.0, sending_s=10.0, held_back=2, in_flight_peak=17)
    idle = notes(4, cpu_s=0.0, sending_s=0.0)
    asked = plan()
    found = results_of(asked, outcome(calm(asked), busy, idle))["workers"]
    assert (found[0]["slot"], found[0]["cpu_share"], found[0]["held_back"]) == (3, 0.9, 2)
    assert found[0]["in_flight_peak"] == 17
    assert found[0]["loop_lag_p99_ms"] == pytest.approx(0.15)
    assert found[1]["cpu_share"] == 0


def test_the_histograms_can_be_read_again() -> None:
    asked = plan()
    measures = calm(asked)
    found = results_of(asked, outcome(measures))["histograms"]
    assert set(found) == set(PLAIN)
    assert list(hlog.decoded(found["latency"]).buckets()) == list(measures.histograms["latency"].buckets())
