"""What is refused before anything is sent."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import job

from engine.config import Endpoint, Job, StepPlan, StepSettings
from engine.coordinator.plan import check, open_store
from engine.core.errors import UsageError
from engine.core.model import Target
from engine.store import Store


def opened(made: Job, note: Callable[[str], None] = print) -> Store:
    """The store of a job, its input closed again."""
    plan = check(made)
    plan.source.close()
    return open_store(plan, note)


def files(folder: Path, rows: str = '{"text": "a"}\n{"text": "b"}\n') -> Job:
    source = folder / "in.jsonl"
    source.write_text(rows)
    return job(input=str(source), output=str(folder / "out.jsonl"), state=str(folder / "out.jsonl.run"))


def test_a_template_that_names_an_unknown_column_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    made = files(tmp_path)
    with pytest.raises(UsageError, match="'txet'.*Known columns: text"):
        check(replace(made, step=StepSettings(prompt="{{ txet }}")))


def test_a_name_that_is_not_there_is_refused_with_the_step_that_has_it(tmp_path: Path) -> None:
    made = files(tmp_path)
    plans = [
        StepPlan(name, StepSettings(prompt=prompt, into=name), made.target)
        for name, prompt in (("a", "{{ text }}"), ("b", "{{ a }} {{ txet }}"))
    ]
    with pytest.raises(
        UsageError, match="Step b: the template names 'txet', which the input's first 100 records do not"
    ):
        check(replace(made, steps=tuple(plans)))


def test_a_template_with_a_mistake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check(replace(files(tmp_path), step=StepSettings(prompt="{{ text ")))


def test_a_missing_input_and_a_missing_folder_of_the_output_are_refused(tmp_path: Path) -> None:
    made = files(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        check(replace(made, input=str(tmp_path / "none.jsonl")))
    with pytest.raises(UsageError, match="does not exist"):
        check(replace(made, output=str(tmp_path / "none" / "out.jsonl")))
    assert not (tmp_path / "none").exists()


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    made = files(tmp_path)
    with pytest.raises(UsageError, match="is the input"):
        check(replace(made, output=made.input))


def test_batch_output_needs_batch_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="openai-batch"):
        check(replace(files(tmp_path), output_format="openai-batch"))


def test_an_empty_input_is_a_run_of_no_rows(tmp_path: Path) -> None:
    plan = check(files(tmp_path, ""))
    plan.source.close()
    assert plan.answers == ("response",)


def test_another_prompt_or_model_is_another_job_and_the_refusal_names_what_differs(tmp_path: Path) -> None:
    made = files(tmp_path)
    opened(made).close()
    changed = replace(
        made,
        step=StepSettings(prompt="other {{ text }}"),
        target=Target("openai", made.target.base_url, model="n"),
    )
    with pytest.raises(UsageError, match=r"step\.prompt, target\.model") as caught:
        opened(changed)
    assert "--fresh" in str(caught.value)


def test_processes_limits_and_concurrency_may_change_between_runs(tmp_path: Path) -> None:
    made = files(tmp_path)
    opened(made).close()
    opened(replace(made, procs=7, rpm=60, tpm=600, in_flight=3, retries=1)).close()


def test_a_fresh_run_moves_the_old_state_aside(tmp_path: Path) -> None:
    made = files(tmp_path)
    opened(made).close()
    notes: list[str] = []
    opened(replace(made, fresh=True, step=StepSettings(prompt="new {{ text }}")), notes.append).close()
    assert any("moved" in note for note in notes)
    assert len(list(tmp_path.glob("out.jsonl.run*"))) == 2


def test_the_run_remembers_its_job_without_secrets(tmp_path: Path) -> None:
    with opened(files(tmp_path)) as store:
        kept = json.loads(store.get_meta("job") or "")
    assert kept["target"]["model"] == "m"
    assert "auth" not in kept


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_certificates_that_cannot_be_used_are_refused_before_any_worker_starts(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="--ca-file"):
        check(replace(files(tmp_path), ca_file=str(path)))


def test_a_format_that_cannot_be_streamed_is_refused_for_standard_output(tmp_path: Path) -> None:
    made = replace(files(tmp_path), output="-", state="")
    with pytest.raises(UsageError, match="cannot be streamed as parquet"):
        check(replace(made, output_format="parquet"))
    # JSON lines do not tell their columns before the last one; a CSV file's header does.
    with pytest.raises(UsageError, match="cannot be streamed as csv"):
        check(replace(made, output_format="csv"))
    (tmp_path / "in.csv").write_text("text\na\n")
    plan = check(replace(made, input=str(tmp_path / "in.csv"), input_format="csv", output_format="csv"))
    plan.source.close()
    assert plan.out is not None


def planned(folder: Path, *, max_tokens: int, prompt: str, **limits: int) -> Job:
    made = files(folder)
    target = replace(made.target, max_tokens=max_tokens)
    return replace(made, target=target, step=StepSettings(prompt=prompt), **limits)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"tpm": 99}, "--tpm 99"),
        ({"output_tpm": 99}, "--output-tpm 99"),
        ({"input_tpm": 9}, "--input-tpm 9"),
    ],
)
def test_limits_that_no_call_could_keep_are_refused_before_anything_is_sent(
    tmp_path: Path, limits: dict[str, int], says: str
) -> None:
    """A fixed part of 48 characters, and answers of up to 100 tokens."""
    made = planned(tmp_path, max_tokens=100, prompt="x" * 48 + "{{ text }}", **limits)
    with pytest.raises(UsageError, match=says):
        check(made)


def test_limits_that_the_cheapest_call_can_keep_are_not_refused(tmp_path: Path) -> None:
    check(planned(tmp_path, max_tokens=100, prompt="{{ text }}", tpm=100, output_tpm=100)).source.close()


def test_impossible_limits_of_one_of_several_endpoints_are_refused_by_its_name(tmp_path: Path) -> None:
    made = planned(tmp_path, max_tokens=100, prompt="{{ text }}")
    places = (Endpoint("east", made.target), Endpoint("west", made.target, tpm=99))
    with pytest.raises(UsageError, match="Endpoint west: Every call of this job costs"):
        check(replace(made, endpoints=places))
