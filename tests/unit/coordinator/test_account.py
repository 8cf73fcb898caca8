"""The summary's figures: measured, or not there."""

from pathlib import Path

from jobs import job

from engine.coordinator.account import summary_of
from engine.coordinator.ended import Ended
from engine.coordinator.plan import Plan, check
from engine.core.commit import OutcomeRow
from engine.core.errors import ExitCode
from engine.core.quota import NO_RATES
from engine.observe.metrics import Metrics
from engine.observe.summary import Summary
from engine.wire.messages import Tally


def plan_of(folder: Path, in_file: int = 10, rows: int | None = None) -> Plan:
    source = folder / "in.jsonl"
    source.write_text('{"text": "a"}\n' * in_file)
    return check(job(input=str(source), output="-", state="", rows=rows))


def summary(plan: Plan, metrics: Metrics, ended: Ended, now: float) -> Summary:
    found = summary_of(plan, None, metrics, ended, began=0.0, now=now)
    plan.source.close()
    return found


def outcome(row: int, kind: str = "") -> OutcomeRow:
    return OutcomeRow(row, not kind, kind, 0, b"{}", 1, 1.0, 0, 0)


def test_latencies_are_left_out_where_nothing_has_succeeded(tmp_path: Path) -> None:
    metrics = Metrics(0.0, [NO_RATES])
    metrics.add(Tally(requests=3), 1.0)
    metrics.finished([outcome(row, "timeout") for row in range(3)])
    found = summary(plan_of(tmp_path), metrics, Ended(rows_read=3, whole=True), 2.0)
    assert found.latency_ms == {}
    assert (found.failures, found.exit_code) == ({"timeout": 3}, ExitCode.SOME_FAILED)


def test_no_rate_is_made_of_one_instant(tmp_path: Path) -> None:
    metrics = Metrics(0.0, [NO_RATES])
    metrics.add(Tally(requests=3, ok_replies=3, latencies=[(200.0, 3)]), 1.0)
    metrics.finished([outcome(row) for row in range(3)])
    found = summary(plan_of(tmp_path), metrics, Ended(rows_read=3, whole=True), 1.1)
    assert found.rows_per_s == 3.0
    assert found.latency_ms["p50"] > 199.0


def test_a_run_that_was_stopped_keeps_its_reason_and_counts_its_open_rows(tmp_path: Path) -> None:
    metrics = Metrics(0.0, [NO_RATES])
    metrics.finished([outcome(0)])
    ended = Ended(exit_code=ExitCode.STOPPED, reason="the key was refused", rows_read=10, in_doubt=2)
    found = summary(plan_of(tmp_path), metrics, ended, 5.0)
    assert (found.ok, found.open, found.in_doubt, found.exit_code) == (1, 9, 2, ExitCode.STOPPED)
    assert found.stopped == "the key was refused"


def test_the_first_rows_are_extrapolated_to_the_whole_input(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, in_file=1000, rows=10)
    rows = iter(plan.source)
    for _ in range(10):
        next(rows)
    metrics = Metrics(0.0, [NO_RATES])
    metrics.add(Tally(requests=10, tokens_in=50, tokens_out=20), 1.0)
    metrics.finished([outcome(row) for row in range(10)])
    found = summary(plan, metrics, Ended(rows_read=10, whole=True), 2.0)
    assert found.extrapolation == {"rows": 1000, "seconds": 200.0, "tokens_in": 5000, "tokens_out": 2000}
