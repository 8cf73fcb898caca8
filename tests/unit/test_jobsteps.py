"""A job's table of steps: what each says, what it has from the job, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from engine.config import Job, jobs_of
from engine.core.errors import UsageError
from engine.providers import make_provider
from engine.settings import Loaded, load

KEY = {"OPENAI_API_KEY": "sk-test-0123456789"}


def loaded(tmp_path: Path, *steps: dict[str, Any], environment: dict[str, str] = KEY, **flags: Any) -> Loaded:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a", "url": "b"}\n')
    given = {
        "input": str(source),
        "output": str(tmp_path / "out.jsonl"),
        "model": "m",
        "steps": list(steps),
        **flags,
    }
    return load(given, environment)


def job(tmp_path: Path, *steps: dict[str, Any], **flags: Any) -> Job:
    return loaded(tmp_path, *steps, **flags).job


def test_what_a_step_does_not_say_it_has_from_the_job(tmp_path: Path) -> None:
    one, other = job(
        tmp_path,
        {"name": "kind", "prompt": "a {{ text }}"},
        {
            "name": "tone",
            "prompt": "b",
            "model": "large",
            "retries": 1,
            "timeout": 7,
            "rpm": 60,
            "max_tokens": 9,
        },
        system="be short",
        rpm=600,
        retries=3,
        temperature=0.5,
    ).steps
    assert (one.target.model, one.step.system, one.rpm, one.retries, one.target.temperature) == (
        "m",
        "be short",
        600,
        3,
        0.5,
    )
    assert (other.target.model, other.rpm, other.retries, other.target.max_tokens) == ("large", 60, 1, 9)
    assert (other.timeouts.total_s, one.timeouts.total_s) == (7.0, 300.0)
    assert (one.step.into, other.step.into) == ("kind", "tone")


def test_each_step_is_a_job_of_its_own(tmp_path: Path) -> None:
    both = jobs_of(job(tmp_path, {"name": "a", "prompt": "x"}, {"name": "b", "prompt": "y", "model": "n"}))
    assert [(one.step.prompt, one.target.model, one.steps) for one in both] == [
        ("x", "m", ()),
        ("y", "n", ()),
    ]


def test_a_step_with_a_url_is_a_request_and_gets_unless_it_has_a_body(tmp_path: Path) -> None:
    page, post = job(
        tmp_path,
        {"name": "page", "url": "http://127.0.0.1:9/{{ text }}"},
        {"name": "post", "url": "http://127.0.0.1:9/", "body": '{"a": "{{ text }}"}'},
    ).steps
    assert (page.step.kind, page.target.provider, page.target.method) == ("request", "http", "GET")
    assert post.target.method == "POST"


def test_a_prompt_of_its_own_wins_over_any_of_the_jobs(tmp_path: Path) -> None:
    inherited, own = job(
        tmp_path, {"name": "a"}, {"name": "b", "messages": "text"}, prompt="the job's {{ text }}"
    ).steps
    assert (inherited.step.prompt, inherited.step.messages) == ("the job's {{ text }}", None)
    assert (own.step.prompt, own.step.messages) == (None, "text")


def test_a_step_with_an_address_of_its_own_has_neither_the_jobs_key_nor_its_limits(tmp_path: Path) -> None:
    steps = [{"name": "a", "prompt": "x"}, {"name": "b", "prompt": "y", "base_url": "http://127.0.0.1:9/v1"}]
    found = loaded(tmp_path, *steps, rpm=600)
    assert (found.job.steps[0].rpm, found.job.steps[1].rpm) == (600, None)
    assert found.auth[0] and not found.auth[1]
    with pytest.raises(UsageError, match="There is no key for https://api.example.com"):
        loaded(tmp_path, {"name": "b", "prompt": "y", "base_url": "https://api.example.com/v1"})


def test_a_step_of_another_provider_sends_its_key_to_that_providers_address_and_not_to_the_jobs(
    tmp_path: Path,
) -> None:
    keys = {**KEY, "ANTHROPIC_API_KEY": "sk-ant-0123456789"}
    other = {"name": "b", "prompt": "y", "provider": "anthropic", "max_tokens": 9}
    flags = {"base_url": "https://gateway.example.com/v1", "api_version": "2", "endpoint": "responses"}
    found = loaded(tmp_path, {"name": "a", "prompt": "x"}, other, environment=keys, **flags)
    mine, its = found.job.steps
    assert (mine.target.base_url, mine.target.endpoint) == ("https://gateway.example.com/v1", "responses")
    assert (its.target.base_url, its.target.api_version, its.target.endpoint) == ("", "", "chat")
    assert make_provider(its.target).origin == "https://api.anthropic.com"
    assert len(found.auth[1]) == 1
    told = {**other, "base_url": "https://other.example.com"}
    (named,) = loaded(tmp_path, told, environment=keys, **flags).job.steps
    assert named.target.base_url == "https://other.example.com"


@pytest.mark.parametrize(
    ("own", "base_url"),
    [
        ({"provider": "openai"}, ""),
        ({"base_url": "https://api.openai.com/v1/"}, ""),
        ({"base_url": "http://127.0.0.1:9/v1"}, "http://127.0.0.1:9/v1"),
    ],
)
def test_a_step_that_names_the_jobs_own_provider_or_address_keeps_its_key_and_limits(
    tmp_path: Path, own: dict[str, Any], base_url: str
) -> None:
    keys = {"OWN_KEY": "sk-own-0123456789"}
    found = loaded(
        tmp_path, {"name": "a", "prompt": "x", **own}, environment=keys, base_url=base_url, rpm=600, tpm=9000,
        api_key_env="OWN_KEY",
    )  # fmt: skip
    (step,) = found.job.steps
    assert (step.rpm, step.tpm, step.api_key_env) == (600, 9000, "OWN_KEY")
    assert found.auth[0]


def test_limits_of_the_job_that_would_hold_for_no_step_are_refused(tmp_path: Path) -> None:
    away = {"name": "a", "prompt": "x", "base_url": "http://127.0.0.1:9/v1"}
    page = {"name": "page", "url": "http://127.0.0.1:9/{{ text }}"}
    with pytest.raises(UsageError, match="rpm and tpm would hold for no step.*rpm = 60 under"):
        job(tmp_path, away, page, rpm=60, tpm=9000)
    assert [step.rpm for step in job(tmp_path, away, page, {"name": "b", "prompt": "y"}, rpm=60).steps] == [
        None,
        None,
        60,
    ]


def test_files_that_steps_of_a_job_file_name_are_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "prompt.txt").write_text("from a file: {{ text }}")
    (folder / "job.toml").write_text('model = "m"\n[[steps]]\nname = "a"\nprompt_file = "prompt.txt"\n')
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    flags = {
        "input": str(tmp_path / "in.jsonl"),
        "output": str(tmp_path / "o.jsonl"),
        "job": str(folder / "job.toml"),
    }
    assert load(flags, KEY).job.steps[0].step.prompt == "from a file: {{ text }}"


def test_the_identity_of_a_job_tells_its_steps_apart_and_leaves_out_limits(tmp_path: Path) -> None:
    steps = ({"name": "a", "prompt": "x"}, {"name": "b", "prompt": "y"})
    identity = job(tmp_path, *steps).identity()
    assert job(tmp_path, *steps, rpm=60, retries=9).identity() == identity
    changed = job(tmp_path, steps[0], {**steps[1], "prompt": "z"}).identity()
    assert changed["steps"]["a"] == identity["steps"]["a"] and changed["steps"]["b"] != identity["steps"]["b"]


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"name": "9", "prompt": "x"}, "A step's name begins with a letter"),
        ({"name": "b", "prompt": "x", "promt": "y"}, "Step b: there is no setting 'promt'"),
        (
            {"name": "b", "kind": "asks"},
            "Step b: there is no kind of step named 'asks'. Known: ask, request, call",
        ),
        ({"name": "b", "prompt": "x", "url": "http://a/"}, "Step b: prompt is not for steps of kind request"),
        ({"name": "b", "function": "json:dumps", "rpm": 10}, "Step b: rpm is for steps that send requests"),
        ({"name": "b", "kind": "call"}, "Step b: it needs a function"),
        (
            {"name": "b", "kind": "ask", "prompt": "x", "function": "a:b"},
            "Step b: a function is for steps of kind call",
        ),
        ({"name": "b", "function": "a:b", "mode": "fast"}, "Step b: there is no mode 'fast'"),
        ({"name": "b", "prompt": "x", "take": "text"}, "Step b: take is a table"),
        ({"name": "b", "prompt": "x", "when": 3}, "Step b: when is a text, not 3"),
        ({"name": "b", "prompt": "x", "keep": "no"}, "Step b: keep is true or false"),
        ({"name": "b", "prompt": "x", "retries": -1}, "Step b: retries -1 cannot be used"),
        ({"name": "a", "prompt": "x"}, "Two steps have the name 'a'"),
    ],
)
def test_what_no_step_can_be_is_refused_by_name(tmp_path: Path, step: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        job(tmp_path, {"name": "a", "prompt": "x"}, step)


def test_steps_and_endpoints_and_batch_lines_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="endpoints or steps, not both"):
        job(tmp_path, {"name": "a", "prompt": "x"}, endpoints=[{"name": "e"}])
    with pytest.raises(UsageError, match="not openai-batch lines"):
        job(tmp_path, {"name": "a", "prompt": "x"}, input_format="openai-batch")
