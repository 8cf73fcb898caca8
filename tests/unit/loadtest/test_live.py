"""What is shown of a load test while it goes on: figures of whole seconds, one line now and then, nothing foreign raw."""

import io

import pytest
from loadtests import plan, timing

from engine.core.measuring import Measures
from engine.loadtest import live
from engine.loadtest.live import Moment, PlainView, SilentView, figures


def moment(since_s: float = 5.4, **changes: object) -> Moment:
    measures = Measures()
    for number in range(40):
        at_s = number / 8
        measures.ended(timing(at_s), at_s, "http_5xx" if number % 10 == 9 else "")
    return Moment(plan(8.0, **changes), since_s, 3, measures)  # type: ignore[arg-type]


def test_the_rate_shown_is_that_of_the_last_second_all_workers_have_told_of() -> None:
    shown = figures(moment())
    assert shown["rate"] == "8/s asked, 8/s sent, 7/s completed"
    assert shown["time"] == "0:05 of 0:10"
    assert shown["requests"].startswith("36 completed, 4 failed")
    assert shown["errors"] == "http_5xx 4"
    assert shown["latency"].startswith("p50 50.")


def test_a_closed_loop_asks_for_nothing() -> None:
    assert "asked" not in figures(moment(schedule=None))["rate"]


def test_before_the_first_figures_nothing_is_made_up() -> None:
    shown = figures(Moment(plan(8.0), 0.0, 0, Measures()))
    assert "latency" not in shown and "errors" not in shown
    assert shown["rate"].startswith("0/s")


def test_lines_come_every_few_seconds_and_notes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    view = PlainView(stream)
    for _ in range(100):
        clock[0] += 0.25
        view.update(moment())
    assert len(stream.getvalue().splitlines()) == 5
    view.note("a word\x1b[2J of somebody else")
    assert stream.getvalue().splitlines()[-1] == "engine: a word [2J of somebody else"


def test_quiet_keeps_notes_back_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (True, False):
        view = SilentView(quiet=quiet)
        view.update(moment())
        view.note("a word")
    assert capsys.readouterr().err == "engine: a word\n"


def test_a_terminal_sees_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    view = live.TerminalView()
    view.update(moment())
    view.note("a word")
    view.end()
    assert "a word" in stream.getvalue()
