"""When a run stops by itself, and which rows stay open then."""

from dataclasses import replace

import pytest
from jobs import job

from engine.config import StepPlan, StepSettings
from engine.coordinator.stops import Stops, message_of
from engine.core.commit import OutcomeRow
from engine.core.errors import ErrorKind, ExitCode
from engine.core.model import Target
from engine.settingtable import parse_max_failures
from engine.wire.messages import Tally


def outcome(row: int, kind: str = "", says: str = "why") -> OutcomeRow:
    record = b'{"_status":"failed","_error":"%b: %b"}' % (kind.encode(), says.encode())
    return OutcomeRow(row, not kind, kind, 0, record, 1, 1.0, 0, 0)


def test_one_spent_quota_stops_the_run_and_its_row_stays_open() -> None:
    stops = Stops(job(), 0.0)
    assert stops.judge(outcome(0, ErrorKind.QUOTA_EXHAUSTED, "no money"), 0.0) == []
    assert stops.exit_code is ExitCode.STOPPED
    assert "no money" in stops.reason


@pytest.mark.parametrize("kind", [ErrorKind.UNAUTHORISED, ErrorKind.NOT_FOUND])
def test_five_refusals_in_a_row_stop_the_run_and_none_of_their_rows_is_finished(kind: ErrorKind) -> None:
    stops = Stops(job(), 0.0)
    for row in range(4):
        assert stops.judge(outcome(row, kind), 0.0) == []
        assert not stops.reason
    assert stops.judge(outcome(4, kind), 0.0) == []
    assert stops.reason


def test_a_success_shows_that_earlier_refusals_concerned_their_rows_alone() -> None:
    stops = Stops(job(), 0.0)
    refused = [outcome(row, ErrorKind.NOT_FOUND) for row in range(4)]
    for one in refused:
        stops.judge(one, 0.0)
    good = outcome(9)
    assert stops.judge(good, 1.0) == [*refused, good]
    assert stops.judge(outcome(10, ErrorKind.NOT_FOUND), 1.0) == []
    assert not stops.reason


def test_a_success_that_was_under_way_already_ends_a_streak_and_finishes_none_of_its_rows() -> None:
    stops = Stops(job(), 0.0)
    refused = [outcome(row, ErrorKind.UNAUTHORISED) for row in range(4)]
    for one in refused:
        stops.judge(one, 10.0)
    early = outcome(9)._replace(latency_ms=1000.0)
    assert stops.judge(early, 10.9) == [early]
    for row in range(10, 14):
        assert stops.judge(outcome(row, ErrorKind.UNAUTHORISED), 11.0) == []
    assert not stops.reason
    later = outcome(20)._replace(latency_ms=100.0)
    assert stops.judge(later, 11.0) == [*refused, later]  # the four since then are not decided yet
    assert len(stops.give_up()) == 4


def test_where_rows_name_their_hosts_no_host_stops_the_run_however_many_are_dead() -> None:
    target = Target(provider="http", base_url="{{ url }}")
    stops = Stops(job(target=target, step=StepSettings(kind="request", url="{{ url }}")), 0.0)
    stops.unreachable("nothing there", 1.0)
    kinds = (
        ErrorKind.DNS,
        ErrorKind.CONNECT_REFUSED,
        ErrorKind.UNAUTHORISED,
        ErrorKind.NOT_FOUND,
        ErrorKind.TLS,
    )
    for row in range(50):
        failed = outcome(row, kinds[row % 5])
        assert stops.judge(failed, 2.0) == [failed]
    stops.tick(10_000.0)
    assert not stops.reason
    written = Stops(job(), 0.0)
    written.unreachable("nothing there", 1.0)
    written.tick(10_000.0)
    assert "has not answered once" in written.reason


def test_a_late_success_does_not_finish_the_rows_that_a_stop_leaves_open() -> None:
    stops = Stops(job(), 0.0)
    for row in range(5):
        stops.judge(outcome(row, ErrorKind.UNAUTHORISED), 0.0)
    assert stops.reason
    late = outcome(9)
    assert stops.judge(late, 0.0) == [late]


@pytest.mark.parametrize(("url", "stops_run"), [("http://h/{{ page }}", False), ("http://h/score", True)])
def test_pages_that_are_missing_stop_a_run_only_if_all_rows_ask_for_the_same_one(
    url: str, stops_run: bool
) -> None:
    stops = Stops(job(step=StepSettings(kind="request", url=url)), 0.0)
    for row in range(5):
        missing = outcome(row, ErrorKind.NOT_FOUND)
        assert stops.judge(missing, 0.0) == ([] if stops_run else [missing])
    assert bool(stops.reason) == stops_run


def test_of_several_steps_only_those_about_the_rows_own_pages_may_miss_them() -> None:
    plain = job()
    page = replace(plain.step, kind="request", url="http://127.0.0.1:9/{{ id }}")
    steps = (StepPlan("page", page, plain.target), StepPlan("summary", plain.step, plain.target))
    stops = Stops(replace(plain, steps=steps), 0.0)
    for row in range(10):
        missing = outcome(row, ErrorKind.NOT_FOUND)
        assert stops.judge(missing, 0.0, 0) == [missing]
    for row in range(10, 15):
        assert not stops.reason
        assert stops.judge(outcome(row, ErrorKind.UNAUTHORISED), 0.0, 1) == []
    assert stops.reason


def test_a_step_whose_endpoint_never_answered_stops_the_run_though_others_are_well() -> None:
    plain = job()
    steps = (StepPlan("page", plain.step, plain.target), StepPlan("summary", plain.step, plain.target))
    stops = Stops(replace(plain, steps=steps), 0.0)
    for now in range(1, 17):
        stops.heard(Tally(requests=5, replies=5, ok_replies=5), float(now), 0)
        stops.unreachable("refused", float(now), 1)
        assert not stops.reason
        stops.tick(float(now))
    stops.tick(17.0)
    assert stops.reason.startswith("step summary: the endpoint has not answered once")


def test_a_step_that_few_rows_come_to_is_not_given_up_for_having_nothing_to_do() -> None:
    plain = job()
    steps = (StepPlan("page", plain.step, plain.target), StepPlan("rare", plain.step, plain.target))
    stops = Stops(replace(plain, steps=steps), 0.0)
    stops.heard(Tally(requests=1, replies=1), 1.0, 1)
    for now in range(0, 3_000, 100):
        stops.heard(Tally(requests=5, replies=5, ok_replies=5), float(now), 0)
        stops.tick(float(now))
    assert not stops.reason
    for now in range(3_000, 3_700, 100):
        stops.heard(Tally(requests=1, replies=1), float(now), 1)
        stops.heard(Tally(requests=5, replies=5, ok_replies=5), float(now), 0)
        stops.tick(float(now))
    assert stops.reason.startswith("step rare: no request has succeeded for 10 minutes")


def test_what_is_held_back_at_the_end_of_the_input_fails_its_rows() -> None:
    stops = Stops(job(), 0.0)
    refused = outcome(0, ErrorKind.UNAUTHORISED)
    stops.judge(refused, 0.0)
    assert stops.give_up() == [refused]
    assert stops.give_up() == []


def test_an_endpoint_that_never_answered_stops_the_run_after_fifteen_seconds() -> None:
    stops = Stops(job(), 100.0)
    stops.unreachable("nothing listens there", 101.0)
    stops.tick(115.9)
    assert not stops.reason
    stops.tick(116.1)
    assert "nothing listens there" in stops.reason


def test_an_endpoint_that_answered_once_is_waited_for() -> None:
    stops = Stops(job(), 0.0)
    stops.heard(Tally(requests=1, replies=1, ok_replies=1), 1.0)
    stops.unreachable("gone", 2.0)
    stops.tick(100.0)
    assert not stops.reason


def test_ten_minutes_without_any_success_stop_the_run() -> None:
    stops = Stops(job(), 0.0)
    stops.heard(Tally(requests=5, replies=5, ok_replies=1), 10.0)
    stops.heard(Tally(requests=5, replies=5), 500.0)
    stops.tick(609.0)
    assert not stops.reason
    stops.tick(611.0)
    assert "10 minutes" in stops.reason


def test_no_success_is_expected_while_no_row_is_under_way() -> None:
    stops = Stops(job(), 0.0)
    stops.heard(Tally(requests=1, replies=1, ok_replies=1), 10.0)
    for minute in range(30):
        stops.tick(60.0 * minute, is_idle=True)
    stops.tick(1800.0)
    assert not stops.reason
    stops.tick(2500.0)
    assert "10 minutes" in stops.reason


def test_no_success_is_expected_before_anything_was_sent() -> None:
    stops = Stops(job(), 0.0)
    stops.tick(10_000.0)
    assert not stops.reason


def test_more_failed_rows_than_allowed_stop_the_run() -> None:
    stops = Stops(job(max_failures="2"), 0.0)
    for row in range(2):
        assert stops.judge(outcome(row, ErrorKind.BAD_REQUEST), 0.0)
    assert not stops.reason
    stops.judge(outcome(2, ErrorKind.BAD_REQUEST), 0.0)
    assert "--max-failures" in stops.reason


def test_a_share_of_failures_counts_only_once_there_are_enough_rows() -> None:
    stops = Stops(job(max_failures="10%"), 0.0)
    for row in range(19):
        stops.judge(outcome(row, ErrorKind.BAD_REQUEST if row < 5 else ""), 0.0)
    assert not stops.reason
    stops.judge(outcome(19, ErrorKind.BAD_REQUEST), 0.0)
    assert stops.reason


@pytest.mark.parametrize("text", ["-1", "x", "101%", "-2%", "1.5"])
def test_a_bound_on_failures_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_max_failures(text)


def test_the_words_of_a_failure_are_found_in_both_kinds_of_record() -> None:
    assert message_of(b'{"_error":"timeout: too late"}') == "too late"
    assert message_of(b'{"custom_id":"a","error":{"code":"x","message":"too late"}}') == "too late"
    assert message_of(b"garbage") == ""
