"""Correcting a kept job, and what ``engine retry`` refuses before it opens a single row again."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import job

from engine.cli.again import correct
from engine.cli.main import main
from engine.config import Endpoint, Job, StepPlan
from engine.coordinator.plan import check, open_store
from engine.core.commit import Commit, OutcomeRow
from engine.core.errors import UsageError
from engine.store import Store


def kept_run(folder: Path, **changes: object) -> Job:
    """A run with one failed row, ended."""
    source = folder / "in.jsonl"
    source.write_text('{"text": "a"}\n')
    made = job(
        input=str(source), output=str(folder / "out.jsonl"), state=str(folder / "out.jsonl.run"), **changes
    )
    plan = check(made)
    plan.source.close()
    with open_store(plan, print) as store:
        store.apply([Commit(outcomes=[OutcomeRow(0, False, "timeout", 0, b"{}", 1, 1.0, 0, 0)])])
        store.finish()
    return made


@pytest.mark.parametrize(
    "change",
    ["rpm=-5", "rpm=x", "timeout=nan", "timeout=-1", "procs=0", "nonsense=1", "model", "max-tokens=0"],
)
def test_a_correction_is_read_as_strictly_as_its_flag(change: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        correct(job(), [change])


def test_corrections_reach_the_target_the_step_the_limits_and_the_time_outs(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Say {{ text }}")
    made = correct(
        job(),
        ["model=n", "max_tokens=9", "rpm=60", "timeout=7", f"prompt-file={tmp_path / 'p.txt'}", "retries=0"],
    )
    assert (made.target.model, made.target.max_tokens, made.rpm, made.retries) == ("n", 9, 60, 0)
    assert (made.timeouts.total_s, made.timeouts.first_byte_s, made.step.prompt) == (
        7.0,
        7.0,
        "Say {{ text }}",
    )


def test_a_correction_that_cannot_work_leaves_the_failed_rows_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = kept_run(tmp_path)
    for change in ("prompt={{ txet }}", "base-url=nowhere", "rpm=0"):
        assert main(["retry", made.output, "--set", change, "--quiet"]) == 2
        assert capsys.readouterr().err.startswith("engine: ")
    with Store.view(Path(made.state)) as store:
        assert store.counts().failed == {"timeout": 1}
        assert store.is_finished()


def test_a_missing_key_leaves_the_failed_rows_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = kept_run(tmp_path, api_key_env="ENGINE_TEST_NO_SUCH_KEY")
    monkeypatch.delenv("ENGINE_TEST_NO_SUCH_KEY", raising=False)
    assert main(["retry", made.output, "--quiet"]) == 2
    assert "ENGINE_TEST_NO_SUCH_KEY" in capsys.readouterr().err
    with Store.view(Path(made.state)) as store:
        assert store.counts().failed == {"timeout": 1}


def test_a_run_that_was_started_with_relative_paths_is_retried_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('{"text": "a"}\n')
    plan = check(job())
    plan.source.close()
    with open_store(plan, print) as store:
        kept = store.get_meta("job") or ""
    assert f'"input":"{tmp_path}/in.jsonl"' in kept
    assert f'"output":"{tmp_path}/out.jsonl"' in kept
    shutil.rmtree("out.jsonl.run")


def test_corrections_reach_every_endpoint_and_what_is_each_ones_own_is_left_to_the_job_file() -> None:
    places = tuple(Endpoint(name, job().target) for name in ("east", "west"))
    made = correct(job(endpoints=places), ["model=n", "max-tokens=5", "retries=1"])
    assert [(one.target.model, one.target.max_tokens) for one in made.endpoints] == [("n", 5), ("n", 5)]
    for change in ("rpm=5", "base-url=http://127.0.0.1:2", "api-key-env=X"):
        with pytest.raises(UsageError, match="several endpoints"):
            correct(job(endpoints=places), [change])


def test_a_correction_that_makes_two_endpoints_one_is_refused_before_a_row_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = job().target
    places = tuple(Endpoint(name, replace(target, model=name)) for name in ("east", "west"))
    made = kept_run(tmp_path, endpoints=places)
    assert main(["retry", made.output, "--set", "model=n", "--quiet"]) == 2
    assert "one and the same" in capsys.readouterr().err
    with Store.view(Path(made.state)) as store:
        assert store.counts().failed == {"timeout": 1}


def test_what_concerns_all_steps_of_a_job_is_corrected_without_a_steps_name() -> None:
    plan = StepPlan("a", job().step, job().target)
    made = correct(
        job(steps=(plan,)), ["in-flight=7", "procs=3", "share=2", "max-failures=5%", "a.retries=1"]
    )
    assert (made.in_flight, made.in_flight_auto, made.procs, made.share) == (7, False, 3, 2.0)
    assert (made.max_failures, made.steps[0].retries) == ("5%", 1)
    assert correct(made, ["in-flight=auto"]).in_flight_auto
    for change in ("model=n", "rpm=5", "retries=2", "b.model=n", "a.in-flight=9"):
        with pytest.raises(
            UsageError, match="say which one, like a.model=.*without a step's name: .*in-flight"
        ):
            correct(made, [change])
