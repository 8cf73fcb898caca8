"""Progress of programs: where it is shown, and where notes go otherwise."""

import io
import logging
import sys
import types

import pytest

from engine.api import showing
from engine.api.showing import Logged, in_notebook, way_of_showing
from engine.observe.progress import MAY_COST_TWICE, LiveView, PlainLines, Silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_progress_by_itself_and_a_file_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert [way_of_showing(asked) for asked in (None, True, False)] == [Logged, PlainLines, Logged]
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert [way_of_showing(asked) for asked in (None, True, False)] == [LiveView, LiveView, Logged]
    monkeypatch.setattr(sys, "stderr", None)
    assert way_of_showing(None) is Logged


def test_a_notebook_shows_progress_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class ZMQInteractiveShell:
        pass

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shell = types.SimpleNamespace(get_ipython=lambda: None)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert not in_notebook()
    shell.get_ipython = ZMQInteractiveShell
    for has_widgets, way in ((True, LiveView), (False, PlainLines)):
        monkeypatch.setattr(showing, "find_spec", lambda name, found=has_widgets: found)
        assert in_notebook() and way_of_showing(None) is way
    assert way_of_showing(False) is Logged


def test_notes_are_logged_where_nothing_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="engine"):
        Logged().note("a worker died")
        Logged().note(f"3 rows {MAY_COST_TWICE}")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "a worker died"),
        ("WARNING", "3 rows may be billed twice"),
    ]


def test_what_functions_print_goes_to_standard_error_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    for view in (Logged(), PlainLines(), Silent(quiet=False), Silent()):
        view.said("printed \x1b[2J")
    shown = capsys.readouterr()
    assert shown.out == "" and "\x1b" not in shown.err
    assert [line[:7] for line in shown.err.splitlines()] == ["printed"] * 3
