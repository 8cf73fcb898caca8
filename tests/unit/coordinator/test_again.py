"""What of an earlier run is opened again when a job goes on with it."""

from dataclasses import replace
from pathlib import Path

import pytest
from jobs import job

from engine.config import Job, StepPlan, StepSettings
from engine.coordinator.again import reopen
from engine.core.commit import Commit, OutcomeRow
from engine.core.errors import UsageError
from engine.core.model import Target
from engine.rows import RowsSource
from engine.store import Store

NO_ROWS = RowsSource((), ahead_max=1, row_bytes_max=1000)  # and they can be read only once


def asking(second: str = "B {{ a }}", **settings: str) -> Job:
    target = Target(provider="openai", base_url="http://127.0.0.1:9/v1", model="m")
    plans = [
        StepPlan(name, StepSettings(prompt=prompt, into=name), target)
        for name, prompt in (("a", "A {{ text }}"), ("b", second))
    ]
    return replace(job(target=target, steps=tuple(plans)), input="-", **settings)  # type: ignore[arg-type]


def test_steps_that_changed_are_told_and_run_again_where_the_job_asks_for_it(tmp_path: Path) -> None:
    notes: list[str] = []
    with Store.open(tmp_path / "run", durability="os") as store:
        reopen(asking(), store, notes.append, NO_ROWS)
        with pytest.raises(UsageError, match="steps.b.step.prompt.*--on-change redo to run what changed"):
            reopen(asking("Other {{ a }}"), store, notes.append, NO_ROWS)
        reopen(asking("Other {{ a }}", on_change="redo"), store, notes.append, NO_ROWS)
        assert notes == ["not as in the earlier run: steps.b.step.prompt; b and what needs it runs again"]
        reopen(asking("Other {{ a }}"), store, notes.append, NO_ROWS)  # it is the run's own now


def test_no_wish_to_do_again_makes_another_input_format_the_same_job(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", durability="os") as store:
        reopen(asking(), store, lambda note: None, NO_ROWS)
        for wish in ({"on_change": "redo"}, {"retry_failed": True}):
            other = replace(asking(), meta=True, **wish)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="another job; what differs: meta"):
                reopen(other, store, lambda note: None, NO_ROWS)


def test_a_run_that_opens_failed_rows_says_so_only_where_there_were_some_and_stays_the_same_job(
    tmp_path: Path,
) -> None:
    notes: list[str] = []
    goes_on = replace(asking(), opens_failed=True)
    with Store.open(tmp_path / "run", durability="os") as store:
        reopen(goes_on, store, notes.append, NO_ROWS)
        reopen(goes_on, store, notes.append, NO_ROWS)
        assert notes == []
        store.apply([Commit([OutcomeRow(0, False, "timeout", 1, b"{}", 1, 1.0, 1, 1)])])
        reopen(goes_on, store, notes.append, NO_ROWS)
        assert notes == ["1 failed rows are open again"] and list(store.finished()) == []
        with pytest.raises(UsageError, match="steps.b.step.prompt"):
            reopen(replace(asking("Other {{ a }}"), opens_failed=True), store, notes.append, NO_ROWS)
