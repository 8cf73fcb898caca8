"""The files of a load test: each has its own name, and one that cannot be written costs no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from loadtests import calm, outcome, plan

from engine.core.errors import InternalFault, StoreFailure, UsageError
from engine.loadtest import command
from engine.loadtest.command import Outputs, run_load
from engine.loadtest.live import SilentView
from engine.loadtest.plan import Planned
from engine.loadtest.results import results_of


def test_two_outputs_of_the_same_name_are_refused_before_the_test(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "r.json")
    for html in (tmp_path / "r.json", tmp_path / "link"):
        with pytest.raises(UsageError, match="the same file"):
            Outputs(out=str(tmp_path / "r.json"), html=str(html)).check()


def test_a_file_that_cannot_be_written_is_told_and_the_others_are_there(tmp_path: Path) -> None:
    asked = plan()
    tested = outcome(calm(asked))
    outputs = Outputs(
        out=str(tmp_path / "gone" / "r.json"), html=str(tmp_path / "r.html"), hlog=str(tmp_path / "r.hlog")
    )
    with pytest.raises(StoreFailure, match="--out"):
        outputs.write(results_of(asked, tested), asked, tested)
    assert "<svg" in (tmp_path / "r.html").read_text()
    assert (tmp_path / "r.hlog").read_text().count("Tag=") >= 2


def test_a_file_that_our_own_fault_keeps_from_being_made_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plan()
    tested = outcome(calm(asked))

    def broken(results: dict[str, Any]) -> str:
        raise ValueError("surprise")

    monkeypatch.setattr(command, "page", broken)
    outputs = Outputs(
        out=str(tmp_path / "r.json"), html=str(tmp_path / "r.html"), hlog=str(tmp_path / "r.hlog")
    )
    with pytest.raises(InternalFault, match="making the file of --html failed.*That file was not written"):
        outputs.write(results_of(asked, tested), asked, tested)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.hlog", "r.json"]


def test_a_report_that_cannot_be_shown_costs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = plan()

    class Lead:
        async def test(self, plan: object) -> object:
            return outcome(calm(asked))

    @asynccontextmanager
    async def conductor(*arguments: object) -> AsyncIterator[Lead]:
        yield Lead()

    def show(results: dict[str, Any]) -> None:
        raise StoreFailure("The report could not be printed.")

    monkeypatch.setattr(command, "conductor", conductor)
    with pytest.raises(StoreFailure, match="printed"):
        run_load(Planned(asked, ()), Outputs(out=str(tmp_path / "r.json")), SilentView(quiet=True), show)
    assert (tmp_path / "r.json").exists()
