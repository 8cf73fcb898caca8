"""Progress of programs: where it is shown, and where notes go otherwise."""

import io
import logging
import sys
import types
from typing import Any

import pytest

from engine.api.showing import NOTES_MAX, Logged, NotebookView, in_notebook, way_of_showing
from engine.observe.progress import MAY_COST_TWICE, LiveView, PlainLines, Silent
from engine.observe.snapshot import Snapshot


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


class Jupyter:
    """What ``IPython.display`` is asked to show, as the front end has it: each output's last text."""

    def __init__(self) -> None:
        self.outputs: list[str] = []
        self.fails = False

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        self.outputs.append("")
        at = len(self.outputs) - 1

        def update(data: dict[str, str], *, raw: bool) -> None:
            if self.fails:
                raise OSError("the kernel is going down")
            assert raw
            self.outputs[at] = data["text/plain"]

        update(data, raw=True)
        return types.SimpleNamespace(update=update)


@pytest.fixture
def jupyter(monkeypatch: pytest.MonkeyPatch) -> Jupyter:
    class ZMQInteractiveShell:
        pass

    made = Jupyter()
    display = types.SimpleNamespace(display=made.display)
    shell = types.SimpleNamespace(get_ipython=ZMQInteractiveShell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    return made


def test_a_notebook_shows_progress_by_itself(monkeypatch: pytest.MonkeyPatch, jupyter: Jupyter) -> None:
    assert in_notebook()
    assert [way_of_showing(asked) for asked in (None, True, False)] == [NotebookView, NotebookView, Logged]
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert not in_notebook() and way_of_showing(None) is Logged


def test_a_notebooks_figures_and_last_notes_are_one_output(jupyter: Jupyter) -> None:
    view = NotebookView()
    assert jupyter.outputs == []
    view.update(Snapshot(rows_total=9, ok=1))
    view.update(Snapshot(rows_total=9, ok=7, failed=2))
    for number in range(NOTES_MAX + 1):
        view.note(f"note {number}")
    view.end()
    (shown,) = jupyter.outputs
    first, *_, last = shown.splitlines()
    assert (first, last) == ("rows     9 of 9   2 failed", f"engine: note {NOTES_MAX}")
    assert shown.count("rows  ") == 1 and shown.count("engine: note") == NOTES_MAX
    assert "note 0" not in shown


def test_a_notebook_that_cannot_show_it_any_more_does_not_end_the_run(jupyter: Jupyter) -> None:
    view = NotebookView()
    view.note("one")
    jupyter.fails = True
    view.note("two")
    jupyter.fails = False
    view.note("three")
    assert jupyter.outputs == ["engine: one\nengine: two\nengine: three"]


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
