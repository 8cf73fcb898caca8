"""The steps of a job together: each of them made, what waits for what, and the columns that they give.

Rules of this file:
1. Whatever cannot work is refused here, with the step's name, before anything is sent.
"""

import os
import re
from collections.abc import Collection, Mapping
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
    """``when``: an expression over a row and what earlier steps gave; what a spared step would have given is none, and false."""

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
    chain = Chain(tuple(stages), Shape(links), tuple(dict.fromkeys(kept)))
    _refuse_results_that_nothing_sees(chain)
    return chain


def _refuse_results_that_nothing_sees(chain: Chain) -> None:
    """Raise UsageError where a step would always write over what an earlier one gave, with nothing that takes it before."""
    shape = chain.shape
    always = 0  # the steps that run for every row
    for at, (stage, link) in enumerate(zip(chain.stages, shape.links, strict=True)):
        if stage.condition is None and all(givers & always for _, givers in shape.givers[at]):
            always |= 1 << at
        for before, other in enumerate(shape.links[:at]):
            seen = [one.takes | one.tests for one in shape.links[before + 1 : at + 1]]
            lost = [
                column
                for column in other.gives
                if column in link.gives and not any(column in names for names in seen)
            ]
            if always >> at & 1 and lost:
                raise UsageError(
                    f"Step {link.name} would write its result over that of step {other.name}, for every row and before anything "
                    f"takes it: both go into {lost[0]}. Give one of them another into, like into = "
                    f'"{link.name}_{lost[0]}". Nothing was sent.'
                )


def _taken(
    step: Step, take: dict[str, str], is_call: bool, earlier: list[Link]
) -> tuple[frozenset[str], frozenset[str]]:
    """The columns a step needs, and those that it would look at: a function without ``take`` is given the whole row.

    A template would look at what it can do without.
    """
    if is_call and not take:
        return frozenset(), frozenset(column for link in earlier for column in link.gives)
    if is_call:
        return frozenset(take.values()), frozenset()
    optional = frozenset(take.get(name, name) for name in step.columns - step.needed)
    # A source that no template names is still looked up for every row.
    needed = frozenset(source for name, source in take.items() if name not in step.columns)
    needed = needed.union(take.get(name, name) for name in step.needed)
    return needed, optional - needed


def refuse_unknown_names(chain: Chain, columns: Collection[str], lack: str) -> None:
    """Raise UsageError for the first step that names neither a column of the input nor what an earlier step gives.

    ``lack``: how the sentence goes on that says which columns the input has not.
    """
    given: list[str] = []
    for stage, link in zip(chain.stages, chain.shape.links, strict=True):
        missing = sorted((link.takes | link.tests) - {*columns, *given})
        if missing:
            part, names = _part(stage, missing)
            earlier = f" Earlier steps give: {', '.join(given)}." if given else ""
            raise UsageError(
                f"Step {stage.name}: {part} names {', '.join(map(repr, names))}, which {lack} and no earlier step gives. "
                f"Known columns: {', '.join(sorted(columns))}.{earlier}{_hint(chain, stage, names, [*columns, *given])} "
                "Nothing was sent."
            )
        given += [name for name in link.gives if name not in given]


def _part(stage: Stage, missing: list[str]) -> tuple[str, list[str]]:
    """Where a step names the first of these, and those that are named there."""
    taken = set(dict(stage.take).values())
    tested = stage.condition.columns if stage.condition is not None else frozenset()
    parts = {"take": taken, "when": tested - stage.step.columns}
    for part, names in parts.items():
        if missing[0] in names:
            return part, [name for name in missing if name in names]
    return "the template", [name for name in missing if not any(name in names for names in parts.values())]


def _hint(chain: Chain, stage: Stage, names: list[str], known: list[str]) -> str:
    """What was probably meant: a step that comes too late, or a name that is no plain word."""
    for other in chain.stages:  # no earlier one gives any of them
        for name in names:
            if name in other.step.answer_columns:
                what = "this step itself" if other is stage else f"the later step {other.name}"
                return f" {name} is what {what} gives: a step can name what steps before it give."
    for one in known:
        words = re.findall(r"\w+", one)
        if len(words) > 1 and set(names) <= set(words):
            return f" In a template the name {one} is written row[{one!r}]."
    return ""
