"""The steps of a job together: what each takes and waits for, and what is refused before a row is read."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import job

from engine.config import CALL, Job, StepPlan, StepSettings
from engine.core.errors import UsageError
from engine.steps.chain import chain_of, refuse_unknown_names


def with_steps(*plans: StepPlan) -> Job:
    return replace(job(), steps=plans)


def asks(name: str, prompt: str, take: tuple[tuple[str, str], ...] = (), when: str = "") -> StepPlan:
    step = StepSettings(prompt=prompt, into=name, into_given=True)
    return StepPlan(name=name, step=step, target=job().target, take=take, when=when)


def into(plan: StepPlan, column: str) -> StepPlan:
    return replace(plan, step=replace(plan.step, into=column))


def calls(function: str) -> StepPlan:
    return StepPlan(name="f", step=StepSettings(kind="call", function=function), target=CALL)


def test_all_that_a_step_takes_is_needed_whether_or_not_its_templates_name_it() -> None:
    chain = chain_of(
        with_steps(asks("a", "{{ text }}"), asks("b", "{{ body }}", (("body", "a"), ("c", "nothing"))))
    )
    assert chain.shape.links[1].takes == {"a", "nothing"}
    assert chain.shape.columns == {"text", "nothing"}
    assert chain.shape.waits == [0, 1]


def test_what_a_template_asks_for_first_is_waited_for_and_not_needed() -> None:
    chain = chain_of(
        with_steps(
            asks("a", "{{ text }}", when="text"),
            asks("b", "{{ body or text }}", (("body", "a"),)),
            asks("c", "{{ a or text }} {{ a }}"),
        )
    )
    assert [link.takes for link in chain.shape.links] == [{"text"}, {"text"}, {"text", "a"}]
    assert [link.tests for link in chain.shape.links] == [{"text"}, {"a"}, frozenset()]
    assert chain.shape.waits == [0, 1, 1]


A, OTHER = asks("a", "{{ text }}"), asks("other", "{{ text }}")


@pytest.mark.parametrize(
    ("plans", "names"),
    [
        ([A, into(asks("b", "{{ text }}"), "a")], ("b", "a")),
        ([asks("a", "{{ text }}", when="text"), into(asks("b", "{{ text }}"), "a")], ("b", "a")),
        ([A, OTHER, into(asks("b", "{{ other }}"), "a")], ("b", "a")),
        ([A, asks("c", "{{ a }}"), into(asks("d", "{{ text }}"), "a"), into(asks("e", "{{ c }}"), "a")], ("e", "d")),
    ],
)  # fmt: skip
def test_a_result_that_is_always_written_over_unseen_is_refused(
    plans: list[StepPlan], names: tuple[str, str]
) -> None:
    with pytest.raises(
        UsageError, match=f"Step {names[0]} would write its result over that of step {names[1]}"
    ):
        chain_of(with_steps(*plans))


@pytest.mark.parametrize(
    "plans",
    [
        [A, into(asks("b", "{{ text }}", when="text"), "a")],  # the later one only sometimes
        [A, into(asks("b", "better: {{ a }}"), "a")],  # taken
        [A, into(asks("b", "{{ a or text }}"), "a")],
        [A, asks("c", "{{ a }}"), into(asks("b", "{{ text }}"), "a")],
        [A, asks("c", "{{ text }}", when="text"), into(asks("b", "{{ c }}"), "a")],  # spared where c is
    ],
)
def test_a_result_may_be_written_over_where_something_took_it_or_it_stays_for_some_rows(
    plans: list[StepPlan],
) -> None:
    assert "a" in chain_of(with_steps(*plans)).answers


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("json:dump_all", "The module json has no function dump_all. Did you mean dump"),
        ("json", "Write module:function"),
        ("", "Write module:function"),
        ("no_such_module:f", "There is no module no_such_module."),
        ("json:decoder", "is no function, but of type module"),
        ("script:/nowhere/gone.py:f", "is not there any more"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_by_its_steps_name(function: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        chain_of(with_steps(calls(function)))
    assert str(caught.value).startswith("Step f: ") and says in str(caught.value)


def test_what_was_pickled_is_left_to_the_workers() -> None:
    assert chain_of(with_steps(calls("pickled:f-0123"))).answers == ("response",)


def test_functions_are_found_in_the_folder_that_the_job_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, here = tmp_path / "kept", tmp_path / "here"
    kept.mkdir()
    here.mkdir()
    (kept / "kept_functions.py").write_text("def f(row): ...\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = with_steps(calls("kept_functions:f"))
    with pytest.raises(UsageError, match="no module kept_functions"):
        chain_of(made)
    assert chain_of(replace(made, folder=str(kept))).answers == ("response",)
    sys.modules.pop("kept_functions")


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (
            asks("b", "{{ frist }} {{ txt }}"),
            "Step b: the template names 'frist', 'txt', which the header lacks and no earlier step gives. "
            "Known columns: id, text. Earlier steps give: first. Nothing was sent.",
        ),
        (asks("b", "{{ text }}", when="odd is none"), "Step b: when names 'odd', which"),
        (asks("b", "{{ x }}", take=(("x", "pge"),)), "Step b: take names 'pge', which"),
        (
            asks("b", "{{ last }}"),
            "last is what the later step last gives: a step can name what steps before",
        ),
        (asks("b", "{{ b }}"), "b is what this step itself gives"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_its_step_its_place_and_what_there_is(
    plan: StepPlan, says: str
) -> None:
    chain = chain_of(with_steps(asks("first", "{{ text }}"), plan, asks("last", "{{ first }}")))
    with pytest.raises(UsageError) as caught:
        refuse_unknown_names(chain, {"id", "text"}, "the header lacks")
    assert says in str(caught.value)


def test_a_name_that_is_no_plain_word_is_told_as_templates_write_it() -> None:
    chain = chain_of(with_steps(asks("my-step", "{{ text }}"), asks("b", "{{ my-step }}")))
    with pytest.raises(UsageError, match=r"the name my-step is written row\['my-step'\]"):
        refuse_unknown_names(chain, {"text"}, "the header lacks")
    told = chain_of(with_steps(asks("my-step", "{{ text }}"), asks("b", "{{ row['my-step'] }}")))
    refuse_unknown_names(told, {"text"}, "the header lacks")
