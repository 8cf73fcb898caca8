"""What of an earlier run is opened again when a job goes on with it."""

from dataclasses import replace
from pathlib import Path

import pytest
from jobs import job

from engine.config import Job, StepPlan, StepSettings
from engine.coordinator.again import reopen
from engine.core.errors import UsageError
from engine.core.model import Target
from engine.store import Store


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
        reopen(asking(), store, notes.append)
        with pytest.raises(UsageError, match="steps.b.step.prompt.*--on-change redo to run what changed"):
            reopen(asking("Other {{ a }}"), store, notes.append)
        reopen(asking("Other {{ a }}", on_change="redo"), store, notes.append)
        assert notes == ["not as in the earlier run: steps.b.step.prompt; b and what needs it runs again"]
        reopen(asking("Other {{ a }}"), store, notes.append)  # it is the run's own now


def test_no_wish_to_do_again_makes_another_input_format_the_same_job(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", durability="os") as store:
        reopen(asking(), store, lambda note: None)
        for wish in ({"on_change": "redo"}, {"retry_failed": True}):
            other = replace(asking(), meta=True, **wish)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="another job; what differs: meta"):
                reopen(other, store, lambda note: None)
