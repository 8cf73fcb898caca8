"""A pool's steps, settings and rows as a job: what is the same as the command line's, and what is refused."""

from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from engine import Pool, UsageError, ask, request
from engine.api.plans import PoolSettings, is_single, job_of, rows_given
from engine.api.steps import StepSettings
from engine.settingtable import SETTINGS

MOCK = {"provider": "mock"}


def test_one_question_is_the_job_that_the_command_line_makes() -> None:
    step = ask("{{ text }}", model="m", max_tokens=5, into="answer", params={"seed": 1}, timeout=9)
    job = job_of((step,), {**MOCK, "in_flight": 10, "procs": 3, "rpm": 60}).job
    assert (job.step.prompt, job.step.into, job.target.model) == ("{{ text }}", "answer", "m")
    assert (job.target.max_tokens, job.target.params) == (5, {"seed": 1})
    assert (job.in_flight, job.in_flight_auto, job.procs, job.rpm) == (10, False, 3, 60)
    assert (job.timeouts.total_s, job.meta, job.input_format) == (9, True, "jsonl")


def test_a_request_brings_its_provider_along() -> None:
    job = job_of((request("http://127.0.0.1:1/{{ id }}", header={"A": "b"}),), {}).job
    assert (job.step.kind, job.target.provider, job.step.headers) == ("request", "http", (("A", "b"),))


def test_a_schema_is_given_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert job_of((ask("x", schema=schema),), MOCK).job.target.schema == schema
    with pytest.raises(UsageError, match="The schema given"):
        job_of((ask("x", schema={"type": 3}),), MOCK)


@pytest.mark.parametrize("step", [ask("x", when="a"), ask("x", take={"a": "b"}), ask("x", name="n")])
def test_what_only_a_list_of_steps_can_say_makes_one(step: Any) -> None:
    assert not is_single((step,))
    assert is_single((ask("x"),)) and not is_single((ask("x"), ask("y")))


@pytest.mark.parametrize(
    ("name", "says"),
    [("max_flow", "max_flows"), ("modle", "model"), ("zzz", "It knows")],
)
def test_a_setting_that_no_pool_has_is_refused_by_its_name(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=f"no setting '{name}'.*{says}"):
        Pool(ask("x"), [], provider="mock", **{name: 1})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"on_error": "ignore"}, "on_error"),
        ({"read_ahead": 0}, "read_ahead"),
        ({"max_flows": 0}, "^max_flows"),
        ({"on_change": "again"}, "^on_change 'again' is not known"),
        ({"provider": "openai", "model": ""}, "no model"),
        ({"rpm": "many"}, "rpm"),
    ],
)
def test_a_value_that_cannot_work_is_refused_at_once(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Pool(ask("x"), [], **{**MOCK, **settings})


def test_rows_are_any_iterable_but_what_is_one_row_or_a_frame() -> None:
    assert rows_given([1, 2]).total == 2
    assert rows_given(range(5)).again is not None
    once = rows_given(iter([1]))
    assert (once.again, once.total) == (None, None)
    for wrong, says in (("text", "a text"), ({"a": 1}, "one mapping"), (3, "no iterable")):
        with pytest.raises(UsageError, match=says):
            rows_given(wrong)


def test_rows_by_their_numbers_come_in_order_and_no_more_is_read_than_needed() -> None:
    assert list(rows_given(["abcdef"]).numbered({0})) == [(0, "abcdef")]
    assert list(rows_given(list("abc")).numbered({2, 0})) == [(0, "a"), (2, "c")]

    class Counted:
        read = 0

        def __iter__(self) -> Any:
            for number in range(100):
                self.read = number
                yield number

    rows = Counted()
    assert list(rows_given(rows).numbered({3, 5})) == [(3, 3), (5, 5)]
    assert rows.read == 5


def test_a_pool_that_never_runs_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pool = Pool(ask("x"), [], provider="mock")
    assert pool.status == {"total": 0, "completed": 0, "failed": 0, "running": 0, "pending": 0}
    assert len(list(tmp_path.iterdir())) == 1
    del pool
    assert list(tmp_path.iterdir()) == []
    with Pool(ask("x"), [], provider="mock", state=tmp_path / "state"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_every_setting_of_the_command_line_has_its_place() -> None:
    of_a_pool = {*PoolSettings.__annotations__, *signature(Pool).parameters}
    of_a_step = {*signature(ask).parameters, *signature(request).parameters, *StepSettings.__annotations__}
    made_by_the_pool = {"input", "output", "input_format", "output_format", "retry_failed", "meta"}
    otherwise = {"in_flight", "rows", "escape_cells", "steps"}  # max_flows; a slice; no cells; the steps
    assert set(SETTINGS) <= of_a_pool | of_a_step | made_by_the_pool | otherwise
    assert set(PoolSettings.__annotations__) <= set(SETTINGS)
