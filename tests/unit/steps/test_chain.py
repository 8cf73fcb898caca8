"""The steps of a job together: what each takes and waits for, and what is refused before a row is read."""

from dataclasses import replace

from jobs import job

from engine.config import Job, StepPlan, StepSettings
from engine.steps.chain import chain_of


def with_steps(*plans: StepPlan) -> Job:
    return replace(job(), steps=plans)


def asks(name: str, prompt: str, take: tuple[tuple[str, str], ...] = (), when: str = "") -> StepPlan:
    step = StepSettings(prompt=prompt, into=name, into_given=True)
    return StepPlan(name=name, step=step, target=job().target, take=take, when=when)


def test_all_that_a_step_takes_is_needed_whether_or_not_its_templates_name_it() -> None:
    chain = chain_of(
        with_steps(asks("a", "{{ text }}"), asks("b", "{{ body }}", (("body", "a"), ("c", "nothing"))))
    )
    assert chain.shape.links[1].takes == {"a", "nothing"}
    assert chain.shape.columns == {"text", "nothing"}
    assert chain.shape.waits == [0, 1]
