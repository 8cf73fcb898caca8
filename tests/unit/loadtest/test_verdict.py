"""The verdict on the client: each reason alone, where it begins, and what it does to the exit code."""

from dataclasses import replace
from typing import Any

import pytest
from loadtests import calm, notes, outcome, plan, timing

from engine.core.errors import ExitCode
from engine.core.measuring import Measures
from engine.loadtest import model
from engine.loadtest.model import LoadPlan
from engine.loadtest.results import results_of
from engine.loadtest.verdict import exit_code_of


def judged(found: model.Tested, asked: LoadPlan | None = None) -> tuple[str, list[str]]:
    results = results_of(asked or plan(), found)
    return results["verdict"], results["reasons"]


def of_lag(lag_s: float, latency_s: float, late: int = 20) -> model.Tested:
    """A thousand requests of which so many were sent late."""
    measures = Measures()
    for index in range(1_000):
        at_s = index / 100
        measures.ended(timing(at_s, lag_s=lag_s if index < late else 0.0, latency_s=latency_s), at_s, "")
    return outcome(measures)


def lagging(lag_us: int) -> Any:
    worker = notes(1)
    for _ in range(400):
        worker.loop_lag.record(lag_us)
    return worker


def test_a_client_that_kept_up_is_valid_without_a_word() -> None:
    assert judged(outcome(calm(plan()))) == ("VALID", [])


def test_an_endpoint_that_fails_every_request_leaves_the_test_valid() -> None:
    assert judged(outcome(calm(plan(), 200, failed=200))) == ("VALID", [])


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (outcome(calm(plan()), notes(last_sent_s=10.2)), "Only 98.04% of the asked rate was achieved: 98.0 of 100.0"),
        (of_lag(0.05, 0.01), "One request in a hundred was sent 50.0 ms or more after its time"),
        (outcome(calm(plan()), notes(), lagging(30_000)), "Worker 1 noticed replies late: its loop lagged by 30.0 ms"),
        (outcome(calm(plan()), notes(2, cpu_s=9.1)), "Worker 2 used 91% of a core"),
        (outcome(calm(plan()), notes(held_back=1)), "1 request waited for another one's end"),
        (outcome(calm(plan()), notes(quota_waited=11)), "11 requests waited for permits of --rpm or --tpm"),
        (outcome(calm(plan(), failed=1, error="client_internal")), "1 request failed inside the client"),
    ],
)  # fmt: skip
def test_each_limit_of_the_client_is_told_alone(found: model.Tested, says: str) -> None:
    verdict, reasons = judged(found)
    assert verdict == "CLIENT-LIMITED"
    assert len(reasons) == 1 and says in reasons[0]


@pytest.mark.parametrize(
    "found",
    [
        outcome(calm(plan()), notes(last_sent_s=10.1)),  # 99.01 % achieved
        of_lag(0.0099, 0.01),
        of_lag(0.05, 0.01, late=9),  # fewer than one in a hundred
        of_lag(0.05, 0.55),  # less than a tenth of the median latency
        outcome(calm(plan()), lagging(9_900)),
        outcome(calm(plan()), notes(cpu_s=9.0)),
        outcome(calm(plan()), notes(quota_waited=10)),
    ],
)
def test_what_is_within_the_bounds_is_not_told(found: model.Tested) -> None:
    assert judged(found) == ("VALID", [])


@pytest.mark.parametrize(("dropped", "verdict"), [(1, "VALID"), (2, "CLIENT-LIMITED")])
def test_more_drops_than_the_last_percentile_leaves_out_are_told(dropped: int, verdict: str) -> None:
    measures = calm(plan(), 1_000)
    measures.dropped(1.0, dropped)
    found, reasons = judged(outcome(measures))
    assert found == verdict
    assert [reason for reason in reasons if "2 requests of 1,002 (0.20%) were dropped" in reason] == reasons


def test_a_test_of_milliseconds_is_not_judged_by_its_timers() -> None:
    measures = Measures()
    for at_s in (0.0, 0.001):
        measures.ended(timing(at_s), at_s, "")
    short = outcome(measures, notes(last_sent_s=0.0025), window_s=0.002)
    assert results_of(plan(1_000.0), short)["achieved"] == 0.8
    assert judged(short, plan(1_000.0)) == ("VALID", [])


@pytest.mark.parametrize(
    "busy", [{"last_sent_s": 12.0}, {"cpu_s": 9.9}, {"loop_lag": lagging(30_000).loop_lag}, {}]
)
def test_a_client_that_read_streams_without_an_end_is_not_told_to_use_more_processes(
    busy: dict[str, Any],
) -> None:
    found = of_lag(0.0 if busy else 0.05, 0.01)
    for many, is_said in ((2 * 10**8, True), (2**20, False)):
        found.notes[:] = [notes(cut_off_bytes=many, lasted_s=10.0, **busy), notes(1)]
        verdict, reasons = judged(found)
        assert (verdict, len(reasons)) == ("CLIENT-LIMITED", 1)
        assert ("reading streams without an end (19 MB/s" in reasons[0]) is is_said
        assert ("--procs" in reasons[0]) is not is_said


def test_streams_without_an_end_that_did_not_keep_the_client_busy_leave_the_test_valid() -> None:
    found = outcome(calm(plan()), notes(cut_off_bytes=10**9))
    assert judged(found) == ("VALID", [])


def test_a_closed_loop_owes_no_rate() -> None:
    assert judged(outcome(calm(plan(None)), notes(last_sent_s=20.0)), plan(None)) == ("VALID", [])


def test_connections_that_the_endpoint_refuses_are_not_the_clients_fault() -> None:
    measures = calm(plan(), 900)
    for index in range(100):
        stamps = timing(index / 10)
        stamps.sent = 0.0
        measures.ended(stamps, index / 10, "connect_refused")
    results = results_of(plan(), outcome(measures))
    assert results["achieved"] == 0.9
    assert (results["verdict"], results["reasons"]) == ("VALID", [])


def test_a_worker_that_died_makes_the_test_invalid_whatever_the_figures() -> None:
    verdict, reasons = judged(outcome(calm(plan()), faults=["Worker 1 died."]))
    assert (verdict, reasons) == ("INVALID", ["Worker 1 died."])


def test_nothing_due_nothing_sent_and_nothing_ended_are_told_apart() -> None:
    measures = Measures()
    for _ in range(7):
        measures.warmed_up()
    verdict, reasons = judged(outcome(measures))
    assert verdict == "INVALID" and "No request was due after the warm-up's 7" in reasons[0]

    measures = Measures()
    stamps = timing(0.0)
    stamps.sent = 0.0
    measures.ended(stamps, 0.0, "dns")
    verdict, reasons = judged(outcome(measures))
    assert verdict == "INVALID" and "None of 1 requests could be sent (dns 1)" in reasons[0]

    measures = Measures()
    measures.counts = replace(measures.counts, intended=3, sent=3)
    verdict, reasons = judged(outcome(measures))
    assert verdict == "INVALID" and "Of 3 requests sent none came to an end" in reasons[0]


def test_an_interruption_is_told_and_leaves_the_verdict() -> None:
    found = outcome(calm(plan(), failed=3, error="cancelled"), is_interrupted=True)
    assert judged(found) == (
        "VALID",
        [
            "The test was interrupted: the figures are of 10.0 s, and 3 requests cancelled then count as failed."
        ],
    )


@pytest.mark.parametrize(
    ("fail_if", "found", "code"),
    [
        ((), outcome(calm(plan())), ExitCode.OK),
        ((), outcome(Measures()), ExitCode.OK),
        (("error_rate>1%",), outcome(calm(plan())), ExitCode.OK),
        (("error_rate>1%",), outcome(calm(plan(), failed=20)), ExitCode.THRESHOLD),
        (("error_rate>1%",), outcome(calm(plan()), notes(held_back=1)), ExitCode.THRESHOLD),
        (("error_rate>1%",), outcome(calm(plan()), faults=["Worker 0 died."]), ExitCode.THRESHOLD),
        (("error_rate>1%",), outcome(calm(plan(), failed=20), is_interrupted=True), ExitCode.INTERRUPTED),
        ((), outcome(calm(plan()), is_interrupted=True), ExitCode.INTERRUPTED),
    ],
)
def test_the_exit_code_follows_from_the_results(
    fail_if: tuple[str, ...], found: model.Tested, code: ExitCode
) -> None:
    assert exit_code_of(results_of(plan(fail_if=fail_if), found)) is code
