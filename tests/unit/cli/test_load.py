"""How ``engine load`` ends when something other than a load test happens: the sentence fits the figures, not rows."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from loadtests import calm, outcome, plan

from engine.cli.load import show
from engine.cli.main import main
from engine.core.errors import StoreFailure
from engine.loadtest import command, selftest
from engine.loadtest import plan as plan_module
from engine.loadtest.results import results_of

URL = ["load", "http://127.0.0.1:9/", "--rate", "10", "--quiet"]


class Full(io.StringIO):
    """A standard output on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _broken(*arguments: Any, **flags: Any) -> Any:
    raise RuntimeError("surprise")


def _interrupted(*arguments: Any, **flags: Any) -> Any:
    raise KeyboardInterrupt


def test_a_fault_while_it_measures_says_that_there_are_no_figures_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "conductor", _broken)
    assert main([*URL, "--out", str(tmp_path / "r.json")]) == 6
    said = capsys.readouterr().err
    assert "the load test failed: RuntimeError: surprise" in said
    assert "what was measured is lost, and no results file was written" in said
    assert "Traceback" in said, "whoever reports it has to quote it"
    assert "ows" not in said.splitlines()[-1] and list(tmp_path.iterdir()) == []


def test_a_fault_before_the_test_speaks_of_no_rows_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_module, "plan_of", _broken)
    assert main(URL) == 6
    assert "engine load failed: RuntimeError: surprise" in (said := capsys.readouterr().err)
    assert "No figures came of it" in said and "ommitted" not in said


def test_an_interruption_before_the_first_figure_is_exit_4_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "conductor", _interrupted)
    assert main(URL) == 4
    assert capsys.readouterr().err == (
        "engine: interrupted before the test was under way: nothing was measured.\n"
    )


@pytest.mark.parametrize(("as_json", "what"), [(True, "results"), (False, "report")])
def test_a_standard_output_that_takes_nothing_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, as_json: bool, what: str
) -> None:
    asked = plan()
    results = results_of(asked, outcome(calm(asked)))
    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(StoreFailure, match=rf"The {what} could not be printed: No space left on device\."):
        show(results, as_json=as_json, quiet=False)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["http://127.0.0.1:9/"], "a URL"), (["--rate", "10"], "--rate"), (["--out", "r.json"], "--out"),
        (["--fail-if", "error_rate>1%"], "--fail-if"), (["--procs", "8"], "--procs"), (["--stream"], "--stream"),
        (["--concurrency", "1", "--json"], "--concurrency"),
    ],
)  # fmt: skip
def test_a_self_test_refuses_flags_that_it_would_pass_over(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", "--selftest", *flags]) == 2
    assert f"--selftest does not go with {named}: " in capsys.readouterr().err


def test_a_quiet_self_test_says_nothing_but_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("_arrivals", "_latency", "_freeze", "_throughput"):
        monkeypatch.setattr(selftest, part, lambda: [selftest.Check("one", "3", "below 2", False)])
    assert main(["load", "--selftest", "--quiet"]) == 99
    assert capsys.readouterr() == ("", "")
    assert main(["load", "--selftest", "--quiet", "--no-progress", "--json"]) == 99
    assert capsys.readouterr().out.count('"holds": false') == 4


@pytest.mark.parametrize(
    ("is_terminal", "columns", "widest"), [(True, 132, 132), (True, 0, 80), (False, 132, 80)]
)
def test_the_report_is_as_wide_as_the_terminal_and_80_columns_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_terminal: bool,
    columns: int,
    widest: int,
) -> None:
    asked = plan()
    results = results_of(asked, outcome(calm(asked)))
    results["reasons"] = ["word " * 100]
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1)
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((columns, 24)))
    show(results, as_json=False, quiet=False)
    shown = max(map(len, capsys.readouterr().out.splitlines()))
    assert widest - 5 <= shown <= widest


def test_the_help_says_what_becomes_of_a_429(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "A 429 of the endpoint's is a failure (http_429), never sent again." in shown
