"""A job that is another than the one its state was begun with is refused, with the command that goes on from there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs import job

from engine.config import Job, StepPlan, StepSettings
from engine.coordinator.sameness import check_same, first_of
from engine.core.errors import UsageError
from engine.core.model import Target
from engine.store import Store

PLACES = {"a": "A {{ text }}", "b": "B {{ text }}", "c": "C {{ b }}"}


def steps_job(**changed: dict[str, Any]) -> Job:
    """Three steps, of which only the last needs another one; with changes of their plans."""
    target = Target(provider="mock", base_url="mock:latency=1ms", model="m")
    plans = []
    for name, prompt in PLACES.items():
        plan = StepPlan(name, StepSettings(prompt=prompt, into=name), target)
        plans.append(replace(plan, **changed.get(name, {})))
    return job(target=target, steps=tuple(plans))


def prompt_of(name: str) -> dict[str, Any]:
    return {"step": StepSettings(prompt=f"new {PLACES[name]}", into=name)}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(tmp_path / "run", durability="os") as opened:
        check_same(steps_job(), opened)
        yield opened


@pytest.mark.parametrize(
    ("changed", "command"),
    [
        (("a", "b"), "engine retry RUN --from a --from b to run"),
        (("b", "c"), "engine retry RUN --from b to run"),
        (("c",), "engine retry RUN --from c to run"),
    ],
)
def test_the_command_that_is_proposed_names_every_step_to_begin_from(
    store: Store, changed: tuple[str, ...], command: str
) -> None:
    with pytest.raises(UsageError, match=command):
        check_same(steps_job(**{name: prompt_of(name) for name in changed}), store)


def test_where_only_what_is_kept_differs_it_is_proposed_to_make_the_records_anew(store: Store) -> None:
    with pytest.raises(UsageError, match="steps.a.keep.* --on-change redo to make every record anew"):
        check_same(steps_job(a={"keep": False}), store)
    assert first_of(steps_job(), []) == []


def test_another_speed_of_a_steps_mock_is_no_other_job_and_another_address_is(store: Store) -> None:
    quick = Target(provider="mock", base_url="mock:latency=9ms", model="m")
    check_same(steps_job(b={"target": quick}), store)
    with pytest.raises(UsageError, match="steps.b.target.base_url"):
        check_same(
            steps_job(b={"target": Target(provider="openai", base_url="http://127.0.0.1:9/v1", model="m")}),
            store,
        )


def test_a_job_with_other_formats_is_another_job(store: Store) -> None:
    with pytest.raises(UsageError, match="was another job; what differs: meta"):
        check_same(replace(steps_job(), meta=True), store)
