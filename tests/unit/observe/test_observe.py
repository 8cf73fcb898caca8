"""Figures, the summary, and what reaches a terminal."""

import io
import json
import stat
from pathlib import Path

import pytest

from engine.core.commit import OutcomeRow
from engine.core.quota import NO_RATES, Rates
from engine.observe.live import LiveFile, read_live
from engine.observe.log import RunLog
from engine.observe.metrics import Metrics
from engine.observe.progress import PlainLines, duration, one_line
from engine.observe.sanitise import sanitise
from engine.observe.snapshot import Snapshot
from engine.observe.summary import Summary
from engine.wire.messages import Tally

KEYS = [
    "rows",
    "ok",
    "failed",
    "resumed",
    "in_doubt",
    "requests",
    "attempts",
    "retries",
    "throttled",
    "tokens_in",
    "tokens_out",
    "seconds",
    "rows_per_s",
    "latency_ms",
    "quota",
    "failures",
]


def row(number: int, kind: str = "") -> OutcomeRow:
    return OutcomeRow(number, not kind, kind, 0, b"{}", 1, 1.0, 0, 0)


def test_percentiles_are_those_of_all_workers_together() -> None:
    metrics = Metrics(0.0, [NO_RATES])
    metrics.add(Tally(requests=90, latencies=[(100.0, 90)]), 1.0)
    metrics.add(Tally(requests=10, latencies=[(900.0, 10)]), 1.0)
    assert metrics.percentile_ms(50) == pytest.approx(100, rel=0.002)
    assert metrics.percentile_ms(95) == pytest.approx(900, rel=0.002)


def test_the_rate_is_over_the_last_ten_seconds_and_the_quota_over_the_whole_run() -> None:
    metrics = Metrics(0.0, [Rates(600)])
    for second in range(1, 61):
        metrics.add(Tally(requests=5), float(second))
        metrics.finished([row(second * 10 + i) for i in range(5)])
        view = metrics.snapshot(
            float(second),
            in_flight=0,
            waiting=0,
            sleeping=0,
            starved_s=0,
            paused_s=0,
            workers=[],
            rows_guess=600,
        )
    assert view.rows_per_s == pytest.approx(5.0, rel=0.01)
    assert view.rpm_used == pytest.approx(0.5, rel=0.01)
    assert view.eta_s == pytest.approx(60.0, rel=0.02)
    used, none = metrics.used(60.0)
    assert used == pytest.approx(0.5, rel=0.05)
    assert none is None


def test_the_summary_has_every_promised_key_and_fits_a_terminal() -> None:
    summary = Summary(rows=10, ok=8, failed=2, failures={"timeout": 2}, latency_ms={"p50": 1.0}, in_doubt=3)
    assert set(KEYS) <= json.loads(summary.json()).keys()
    assert max(map(len, summary.text().split("\n"))) <= 100
    assert "2 × timeout" in summary.text()


@pytest.mark.parametrize("text", ["\x1b]52;c;aGk=\x07", "a\rb", "\u202eevil", "\x9b31m", "\ud800", "a\x00b"])
def test_nothing_that_moves_a_terminal_gets_through(text: str) -> None:
    assert sanitise(text).isprintable()


def test_notes_are_sanitised_on_their_way_out() -> None:
    stream = io.StringIO()
    PlainLines(stream).note("server said \x1b[2J")
    assert "\x1b" not in stream.getvalue()


def test_a_plain_line_says_how_far_it_is() -> None:
    line = one_line(Snapshot(rows_total=100, ok=40, failed=1, resumed=9, rpm_used=0.987, eta_s=75))
    assert "50/100 rows" in line
    assert "rpm 99%" in line
    assert "eta 1:15" in line
    assert duration(3675) == "1:01:15"


def two_endpoints() -> Metrics:
    metrics = Metrics(0.0, [Rates(600), Rates(300)], ["east", "west"])
    for second in range(1, 31):
        metrics.heard(
            0, 0, Tally(requests=9, ok_replies=9, latencies=[(100.0, 9)], in_flight=2), float(second)
        )
        west = Tally(requests=2, throttled=1, ok_replies=1, in_flight=1, cooldowns=1, trouble="it failed")
        metrics.heard(1, 1, west, float(second))
        metrics.snapshot(
            float(second), in_flight=3, waiting=0, sleeping=0, starved_s=0, paused_s=0, workers=[]
        )
    return metrics


def test_each_of_several_endpoints_has_its_figures_and_the_quota_of_all_is_their_sum() -> None:
    metrics = two_endpoints()
    view = metrics.snapshot(30.5, in_flight=3, waiting=0, sleeping=0, starved_s=0, paused_s=0, workers=[])
    east, west = view.endpoints
    assert (east.name, east.requests, east.in_flight, east.trouble) == ("east", 270, 2, "")
    assert (west.throttled, west.cooldowns, west.trouble) == (30, 30, "it failed")
    assert east.rpm_used == pytest.approx(0.9, rel=0.06)
    assert view.rpm_used == pytest.approx((9 + 2) * 60 / 900, rel=0.06)
    line = one_line(view)
    assert "east: 9/s rpm 86%" in line
    assert "left alone: it failed" in line
    metrics.worker_gone(1)
    assert metrics.endpoints[1].view(31.0).trouble == ""


def test_the_quota_of_all_is_not_known_where_one_has_no_limit() -> None:
    metrics = Metrics(0.0, [Rates(600), Rates(600)], ["east", "west"])
    metrics.limit([Rates(600), NO_RATES])
    metrics.heard(0, 0, Tally(requests=5), 1.0)
    assert metrics.used(60.0) == (None, None)
    assert metrics.endpoints[0].used(60.0)[0] is not None


def test_the_summary_names_each_of_several_endpoints() -> None:
    quota = {"rpm_used": 0.985, "tpm_used": None}
    east = {
        "name": "east",
        "requests": 10,
        "ok": 9,
        "throttled": 1,
        "cooldowns": 2,
        "quota": quota,
        "latency_ms": {},
    }
    text = Summary(endpoints=[east]).text()
    assert "east: 10 requests, 9 ok, 1 throttled, left alone 2 times, quota used: RPM 98.5%" in text


def test_the_log_takes_only_known_events_and_is_private(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write("note", text="a\nb" + "x" * 9000)
    with pytest.raises(ValueError):
        log.write("surprise")
    log.close()
    data = (tmp_path / "engine.log").read_bytes()
    assert len(data) < 4096
    assert data.count(b"\n") == 1
    assert json.loads(data)["event"] == "note"
    assert stat.S_IMODE((tmp_path / "engine.log").stat().st_mode) == 0o600


def test_the_live_view_is_there_while_the_run_is_and_gone_after_it(tmp_path: Path) -> None:
    live = LiveFile(tmp_path)
    live.write(Snapshot(ok=5))
    view = read_live(tmp_path)
    assert view is not None
    assert view["ok"] == 5
    live.remove()
    assert read_live(tmp_path) is None
