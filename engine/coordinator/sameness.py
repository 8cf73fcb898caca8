"""Whether a job is the one that its state was begun with, and if not, which of its steps are others.

Rules of this file:
1. Settings that change no answer (see ``Job.identity``) make no other job, nor do the speeds of the embedded mock.
2. A refusal says what differs, that nothing was sent, and the whole command that goes on from there.
"""

import json
from collections.abc import Iterable
from typing import Any

from engine.config import Job
from engine.core.errors import UsageError
from engine.steps.chain import chain_of
from engine.store import Store


def check_same(job: Job, store: Store) -> None:
    """Keep the job's identity in a new store. Raises UsageError for one that another job was begun in."""
    different = differences(job, store)
    known = store.identity()
    if known is None:
        store.set_identity(json.loads(json.dumps(job.identity())))
    elif different:
        are_steps = all(path.startswith("steps.") for path in different)
        again = first_of(job, changed_steps(known, job)) if are_steps else None
        ways = _ways_of_a_program(job) if job.input == "-" else _ways_of_a_file(again)
        raise UsageError(
            f"An earlier run in {job.state} {'had other steps' if are_steps else 'was another job'}; what differs: "
            f"{', '.join(different)}{_of_a_function(different)}. Nothing was sent. Give the same "
            f"{'steps' if are_steps else 'settings'} to go on with it, {ways}"
        )


def differences(job: Job, store: Store) -> list[str]:
    """The settings, as dotted names, that make the job another than the store's; none for a new store."""
    known = store.identity()
    return [] if known is None else _different(known, job)


def _of_a_function(different: list[str]) -> str:
    """What a changed function may come from."""
    if not any(path.endswith(".step.function") for path in different):
        return ""
    return " (its code, what it closes over, or a number or text that it reads from its script)"


def _ways_of_a_file(again: list[str] | None) -> str:
    """``again``: the steps to begin again from, where nothing but steps differs."""
    if again == []:
        return (
            "--on-change redo to make every record anew of what its steps came to (nothing is sent), or --fresh to start over "
            "(the earlier results are moved aside)."
        )
    if again is not None:
        return (
            f"engine retry RUN {' '.join(f'--from {name}' for name in again)} to run what changed and what needs it again for "
            "all rows, or --fresh to start over (the earlier results are moved aside)."
        )
    return (
        "--fresh to start over (the earlier results are moved aside), or correct a setting for the failed rows only with: "
        "engine retry RUN --set NAME=VALUE"
    )


def _ways_of_a_program(job: Job) -> str:
    """Where only the caller can give the rows once more."""
    what = "what changed and what needs it" if job.steps else "all rows"
    return (
        f"--on-change redo to run {what} again, --retry-failed to run the failed rows only as they are told now, or --fresh to "
        "start over (the earlier results are moved aside)."
    )


def changed_steps(known: dict[str, Any], job: Job) -> list[str]:
    """The job's steps that are not what they were, in its order. ``known``: the identity its state was begun with.

    A step whose result is only kept or left out from now on has not changed: what it came to can be used.
    """
    paths = [path.split(".") for path in _different(known, job)]
    changed = {path[1] for path in paths if path[0] == "steps" and path[1:] and path[2:] != ["keep"]}
    return [name for name in job.places if name in changed]


def first_of(job: Job, changed: Iterable[str]) -> list[str]:
    """The fewest steps to begin again from so that all of ``changed`` run again; none for none."""
    shape = chain_of(job).shape
    first: list[str] = []
    covered: set[str] = set()
    for name in changed:
        if name not in covered:
            first.append(name)
            covered.update(shape.names_from(name))
    return first


def _different(known: dict[str, Any], job: Job) -> list[str]:
    mine = json.loads(json.dumps(job.identity()))
    return [path for path in _differences(known, mine) if not _harmless(path, job)]


def _harmless(path: str, job: Job) -> bool:
    """The embedded mock is set up by its address; other speeds do not make it another job."""
    targets = {"target": job.target} | {f"steps.{plan.name}.target": plan.target for plan in job.steps}
    place, _, name = path.rpartition(".")
    return name == "base_url" and place in targets and targets[place].provider == "mock"


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Dotted names of what differs between two JSON values."""
    if isinstance(one, dict) and isinstance(other, dict):
        found: list[str] = []
        for name in sorted(one.keys() | other.keys()):
            found += _differences(one.get(name), other.get(name), f"{path}.{name}" if path else name)
        return found
    return [] if one == other else [path]
