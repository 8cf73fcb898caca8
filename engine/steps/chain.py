"""The steps of a job together: each of them made, what waits for what, and the columns that they give.

Rules of this file:
1. Whatever cannot work is refused here, with the step's name, before anything is sent.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.config import Job, jobs_of
from engine.core.chain import Link, Shape
from engine.core.errors import UsageError
from engine.formats.record import TAIL_COLUMNS
from engine.providers import make_provider
from engine.steps import make_step
from engine.steps.base import Step
from engine.steps.finding import check
from engine.steps.template import Template


class Condition:
    """``when``: an expression over a row and what earlier steps gave; null stands for what a spared step would have given."""

    def __init__(self, text: str) -> None:
        """Raises UsageError for an expression that does not parse."""
        self._template = Template(f"{{% if {text} %}}1{{% endif %}}", what="when")
        self.columns = self._template.columns

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the step is for this row. Raises RowError where the expression fails."""
        return bool(self._template.render(values))


class Stage(NamedTuple):
    """One step of a job, ready for rows."""

    name: str
    step: Step
    take: tuple[tuple[str, str], ...]
    condition: Condition | None
    is_call: bool
    keep: bool


class Chain(NamedTuple):
    """All of them."""

    stages: tuple[Stage, ...]
    shape: Shape
    answers: tuple[str, ...]  # columns of the output, of steps whose results are kept


def chain_of(job: Job) -> Chain:
    """The steps of a job that has several. Raises UsageError."""
    stages: list[Stage] = []
    links: list[Link] = []
    for plan, one in zip(job.steps, jobs_of(job), strict=True):
        try:
            is_call = one.step.kind == "call"
            if is_call:
                check(one.step.function, job.folder or os.getcwd())
            provider = None if is_call else make_provider(one.target)
            step = make_step(one.step.kind, one.step, one.target, provider)
            condition = Condition(plan.when) if plan.when else None
            for column in step.answer_columns:
                if column in TAIL_COLUMNS:
                    raise UsageError(
                        f"its result would go into {column}, a column that the engine writes itself."
                    )
            takes, tests = _taken(step, dict(plan.take), is_call, links)
        except UsageError as error:
            raise UsageError(f"Step {plan.name}: {error}") from None
        if condition is not None:
            tests |= condition.columns
        stages.append(Stage(plan.name, step, plan.take, condition, is_call, plan.keep))
        links.append(Link(plan.name, takes, step.answer_columns, tests))
    kept = [column for stage in stages if stage.keep for column in stage.step.answer_columns]
    return Chain(tuple(stages), Shape(links), tuple(dict.fromkeys(kept)))


def _taken(
    step: Step, take: dict[str, str], is_call: bool, earlier: list[Link]
) -> tuple[frozenset[str], frozenset[str]]:
    """The columns a step needs, and those that it would look at: a function without ``take`` is given the whole row."""
    if is_call and not take:
        return frozenset(), frozenset(column for link in earlier for column in link.gives)
    if is_call:
        return frozenset(take.values()), frozenset()
    # A source that no template names is still looked up for every row.
    return frozenset(take.values()).union(take.get(name, name) for name in step.columns), frozenset()
