"""Rows through several steps: what is called next, what is told, what the record holds. Nothing is sent here."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from engine.config import jobs_of
from engine.core.errors import ErrorKind
from engine.core.model import Failure
from engine.providers import make_provider
from engine.settings import load
from engine.wire.messages import OutcomeLine, RowLine, StepLine
from engine.worker.chains import Chains, RowChain, StepExecutor
from engine.worker.execute import RowRun, StepEnd

DRAFT = {"name": "draft", "prompt": "draft {{ text }}"}
FINAL = {"name": "final", "prompt": "final {{ draft }}"}
TONE = {"name": "tone", "prompt": "tone {{ text }}"}


def chains(tmp_path: Path, *steps: dict[str, Any], **flags: Any) -> Chains:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    given = {
        "input": str(tmp_path / "in.jsonl"),
        "output": str(tmp_path / "o.jsonl"),
        "provider": "mock",
        **flags,
    }
    job = load({**given, "base_url": "http://127.0.0.1:9/v1", "steps": list(steps)}, {}).job
    rng = random.Random(1)
    executors = [
        StepExecutor(
            one, None if one.step.kind == "call" else make_provider(one.target), "run", rng, place=place
        )
        for place, one in enumerate(jobs_of(job))
    ]
    return Chains(job, executors)


def row(text: str = "hello", number: int = 3) -> RowLine:
    return RowLine(number, number + 1, json.dumps({"id": number, "text": text}).encode())


def prompt(run: RowRun) -> str:
    assert run.call.body is not None
    found: str = json.loads(run.call.body)["messages"][-1]["content"]
    return found


def ok(run: RowRun, **fields: Any) -> StepEnd:
    run.sent += 1
    run.tokens_in += 10
    return StepEnd(run, fields, None)


def bad(run: RowRun, kind: ErrorKind = ErrorKind.TIMEOUT, trace: str = "") -> StepEnd:
    run.sent += 1
    return StepEnd(run, None, Failure(kind, "too late", trace=trace))


def record(outcome: OutcomeLine | None) -> dict[str, Any]:
    assert outcome is not None
    found: dict[str, Any] = json.loads(outcome.record)
    return found


def test_a_step_sees_what_the_one_before_gave(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT, FINAL)
    (draft,), none = rows.begin(1, row())
    assert (prompt(draft), draft.lane, none) == ("draft hello", 0, None)
    (final,), none = rows.ended(ok(draft, draft="a draft"))
    assert (prompt(final), final.lane, none) == ("final a draft", 1, None)
    runs, outcome = rows.ended(ok(final, final="done"))
    assert runs == [] and rows.open == {}
    assert record(outcome) == {
        "id": 3, "text": "hello", "draft": "a draft", "final": "done", "_status": "ok", "_error": "",
    }  # fmt: skip
    # Each step was told with what it took: it is counted once, however often its row is run.
    assert outcome is not None and (outcome.attempts, outcome.tokens_in) == (0, 0)
    assert sum(line.attempts for line in rows.take_lines()) == 2


def test_each_step_is_told_when_it_ends_and_once(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT, FINAL)
    (draft,), _ = rows.begin(1, row())
    rows.ended(ok(draft, draft="a draft"))
    assert rows.take_lines() == [StepLine(3, 1, 0, True, b'{"draft":"a draft"}', 1, 10, 0)]
    assert rows.take_lines() == []


def test_what_was_finished_before_is_not_called_again_and_counts(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT, FINAL)
    done = [StepLine(3, 0, 0, True, b'{"draft":"an old one"}', 2, 50, 5)]
    (final,), _ = rows.begin(9, row(), done)
    assert prompt(final) == "final an old one"
    _, outcome = rows.ended(ok(final, final="done"))
    assert record(outcome)["draft"] == "an old one"
    assert outcome is not None and (outcome.lease, outcome.attempts, outcome.tokens_in) == (9, 0, 0)
    (told,) = rows.take_lines()
    assert (told.attempts, told.tokens_in) == (1, 10), "what was done before is not counted again"


def measured(run: RowRun, latency_ms: float, model: str) -> RowRun:
    run.latency_ms, run.sent_s, run.model = latency_ms, latency_ms, model
    return run


def test_a_rows_figures_are_those_of_its_steps_together_and_its_model_the_last_steps(tmp_path: Path) -> None:
    """In the job's order: which of two side by side ends last is chance."""
    rows = chains(tmp_path, DRAFT, TONE, meta=True)
    (draft, tone), _ = rows.begin(1, row())
    rows.ended(ok(measured(tone, 20.5, "large"), tone="calm"))
    _, outcome = rows.ended(ok(measured(draft, 400.25, "small"), draft="d"))
    found = record(outcome)
    assert (found["_attempts"], found["_latency_ms"], found["_model"]) == (2, 420.75, "large")
    assert outcome is not None and outcome.latency_ms == 400.25, "of the latest call"


def test_a_rows_figures_are_the_same_when_a_step_was_finished_by_an_earlier_run(tmp_path: Path) -> None:
    steps = ({"name": "count", "function": "builtins:len", "into": "n"}, DRAFT, {**FINAL, "when": "false"})
    whole, later = chains(tmp_path, *steps, meta=True), chains(tmp_path, *steps, meta=True)
    (count, draft), _ = whole.begin(1, row())
    count.tokens_in = -10
    whole.ended(ok(measured(count, 0.125, ""), n=5))
    _, outcome = whole.ended(ok(measured(draft, 31.5, "small"), draft="d"))
    done = whole.take_lines()
    assert [(line.attempts, line.calls, line.latency_ms, line.model) for line in done] == [
        (0, 1, 0.125, ""), (1, 0, 31.5, "small"),
    ]  # fmt: skip
    assert record(outcome)["_attempts"] == 2 and record(outcome)["_model"] == "small"
    for known in (done, done[::-1]):
        assert record(later.begin(1, row(), known)[1]) == record(outcome)
    (again,), _ = later.begin(1, row(), done[1:])
    again.tokens_in = -10
    assert record(later.ended(ok(measured(again, 0.125, ""), n=5))[1]) == record(outcome)


def test_a_row_of_which_all_was_finished_before_is_an_outcome_at_once(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT)
    runs, outcome = rows.begin(1, row(), [StepLine(3, 0, 0, True, b'{"draft":"d"}', 1, 1, 1)])
    assert runs == [] and record(outcome)["draft"] == "d"


def test_the_first_failed_step_in_the_jobs_order_is_what_failed_the_row(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT, TONE, FINAL)
    (draft, tone), _ = rows.begin(1, row())
    assert rows.ended(bad(tone, ErrorKind.BAD_REQUEST)) == ([], None)
    runs, outcome = rows.ended(bad(draft))
    assert runs == [] and outcome is not None
    assert (outcome.ok, outcome.kind, outcome.attempts) == (False, "timeout", 2)
    assert record(outcome)["_error"] == "timeout: step draft: too late"


def test_a_row_that_failed_has_what_its_other_steps_gave(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT, TONE)
    (draft, tone), _ = rows.begin(1, row())
    rows.ended(bad(draft))
    _, outcome = rows.ended(ok(tone, tone="calm"))
    assert (record(outcome)["tone"], record(outcome)["draft"]) == ("calm", None)


def test_a_call_that_cannot_be_made_fails_its_step_alone(tmp_path: Path) -> None:
    rows = chains(tmp_path, {"name": "odd", "prompt": "{{ 1 // (id - 3) }}"}, TONE)
    (tone,), _ = rows.begin(1, row())
    assert tone.lane == 1
    _, outcome = rows.ended(ok(tone, tone="calm"))
    assert record(outcome)["_error"].startswith("template_error: step odd: the prompt could not be made")


def test_a_row_that_cannot_be_read_is_an_outcome_at_once(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT)
    runs, outcome = rows.begin(1, RowLine(4, 5, b"[1]"))
    assert runs == [] and outcome is not None and outcome.kind == "bad_input"
    assert record(outcome)["_error"].startswith("bad_input: line 5: ")


def test_what_a_function_raised_is_kept_with_its_traceback(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT)
    (draft,), _ = rows.begin(1, row())
    _, outcome = rows.ended(bad(draft, ErrorKind.FUNCTION_ERROR, "Traceback: here"))
    (line,) = rows.take_lines()
    assert (line.ok, json.loads(line.data)["traceback"]) == (False, "Traceback: here")
    assert "Traceback" not in str(record(outcome))


def test_a_call_that_is_taken_back_leaves_its_row_to_be_given_back(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT, TONE)
    (draft, tone), _ = rows.begin(1, row())
    chain = rows.take_back(draft)
    assert isinstance(chain, RowChain) and chain.progress.running == 0b10
    assert rows.take_back(tone).progress.running == 0
    rows.forget(3)
    assert rows.open == {}


def test_a_later_step_of_the_same_name_is_not_seen_by_an_earlier_one(tmp_path: Path) -> None:
    again = {"name": "again", "prompt": "again {{ text }}", "into": "text"}
    rows = chains(tmp_path, DRAFT, again, {"name": "last", "prompt": "last {{ text }}"})
    (draft, second), _ = rows.begin(1, row())
    (last,), _ = rows.ended(ok(second, text="new"))
    assert (prompt(draft), prompt(last)) == ("draft hello", "last new")


def test_text_that_is_half_a_character_is_replaced_and_kept(tmp_path: Path) -> None:
    rows = chains(tmp_path, DRAFT)
    (draft,), _ = rows.begin(1, row())
    _, outcome = rows.ended(ok(draft, draft="a\ud800b"))
    assert record(outcome)["draft"] == "a?b"
    assert rows.take_lines()[0].data == b'{"draft":"a?b"}'


@pytest.mark.parametrize("text", ["id > 2", "text == 'hello'", "id in [3, 4]"])
def test_a_condition_is_an_expression_over_the_row(tmp_path: Path, text: str) -> None:
    rows = chains(tmp_path, {**DRAFT, "when": text})
    assert len(rows.begin(1, row())[0]) == 1
    runs, outcome = rows.begin(2, row("bye", 1))
    assert runs == [] and record(outcome)["draft"] is None and record(outcome)["_status"] == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "{{ draft or text }}",
        "{{ draft | default(text) }}",
        "{% if draft %}{{ draft }}{% else %}{{ text }}{% endif %}",
        "{{ draft if draft is defined else text }}",
        "{{ text if draft is none else draft }}",
        "{{ row.draft or row['text'] }}",
    ],
)
def test_a_template_may_do_without_the_result_of_a_spared_step(tmp_path: Path, text: str) -> None:
    rows = chains(tmp_path, {**DRAFT, "when": "id > 2"}, {"name": "final", "prompt": f"final {text}"})
    (draft,), _ = rows.begin(1, row())
    (final,), _ = rows.ended(ok(draft, draft="short"))
    assert prompt(final) == "final short"
    (final,), _ = rows.begin(2, row("bye", 1))
    assert prompt(final) == "final bye"
    _, outcome = rows.ended(ok(final, final="done"))
    assert (record(outcome)["draft"], record(outcome)["final"]) == (None, "done")


def test_a_renamed_result_may_be_done_without(tmp_path: Path) -> None:
    final = {"name": "final", "prompt": "final {{ body or text }}", "take": {"body": "draft"}}
    rows = chains(tmp_path, {**DRAFT, "when": "id > 2"}, final)
    ((last,), _) = rows.begin(2, row("bye", 1))
    assert prompt(last) == "final bye"


def test_a_function_that_is_given_the_whole_row_finds_null_where_a_step_was_spared(tmp_path: Path) -> None:
    function = {"name": "f", "function": "json:dumps", "when": "draft is not defined"}
    rows = chains(tmp_path, {**DRAFT, "when": "id > 2"}, function)
    ((call,), _) = rows.begin(2, row("bye", 1))
    assert call.values == {"id": 1, "text": "bye", "draft": None}


def test_a_condition_that_fails_on_a_row_fails_the_step(tmp_path: Path) -> None:
    rows = chains(tmp_path, {**DRAFT, "when": "missing > 2"})
    _, outcome = rows.begin(1, row())
    assert record(outcome)["_error"].startswith("template_error: step draft: when could not be made")
