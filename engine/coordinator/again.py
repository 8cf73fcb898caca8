"""What of an earlier run is done again: failed rows, the steps that changed, or a step and what needs it.

Rules of this file:
1. Nothing is forgotten but what is to be made again, and what it cost stays counted.
2. Rows that are opened again and the identity of the job that is to run change in one transaction.
"""

import json
from collections.abc import Callable

from engine.config import Job
from engine.coordinator.feed import changed_input
from engine.coordinator.sameness import changed_steps, check_same, differences, first_of
from engine.core.errors import UsageError
from engine.source import Rows
from engine.steps.chain import chain_of
from engine.store import Store

_OF_ANSWERS = ("steps", "step", "target")  # settings that rows may be asked anew with


def reopen(job: Job, store: Store, note: Callable[[str], None], source: Rows) -> None:
    """Open of an earlier run what the job asks to be done again. Raises UsageError for a state of another job, or other rows.

    ``source``: the rows, which are not read here; where they can be read twice, they are compared before anything is forgotten.
    """
    other = differences(job, store)
    only_answers = all(path.partition(".")[0] in _OF_ANSWERS for path in other)
    is_alike = not set(other) & set(_OF_ANSWERS)  # both have steps, or neither has
    if other and only_answers and job.on_change == "redo":
        refuse_other_rows(source, store)
        steps = first_of(job, changed_steps(store.identity() or {}, job)) if job.steps else []
        again_from(store, job, steps)
        what = f"{' and '.join(steps)} and what needs it runs again" if steps else "every row runs again"
        if job.steps and is_alike and not steps:
            what = "every record is made anew of what its steps came to"
        note(f"not as in the earlier run: {', '.join(other)}; {what}")
    elif not (other and only_answers and is_alike and job.retry_failed):
        check_same(job, store)
    if job.retry_failed:
        note(f"{again_failed(store, job, None)} failed rows are open again")
    elif job.opens_failed and (opened := store.forget_failed()):
        note(f"{opened} failed rows are open again")


def refuse_other_rows(source: Rows, store: Store) -> None:
    """Raise UsageError where a row that was finished is another one now; nothing is looked at that can be read only once."""
    again = source.again()
    if again is None:
        return
    try:
        rows = iter(again)
        for number, digest, _ in store.finished():
            row = next((one for one in rows if one.row == number), None)
            if row is None or row.digest != digest:
                raise changed_input(number, number + 1 if row is None else row.line)
    finally:
        again.close()


def again_failed(store: Store, job: Job, kind: str | None) -> int:
    """Open failed rows again, and make ``job`` the run's own: steps that were corrected are forgotten where they failed.

    How many rows.
    """
    changed = changed_steps(store.identity() or {}, job) if job.steps else []
    identity = json.loads(json.dumps(job.identity()))
    return store.forget_failed(kind, steps=all_from(job, changed), identity=identity)


def again_from(store: Store, job: Job, steps: list[str]) -> bool:
    """Forget what steps and those that need them came to, in all rows, and make ``job`` the run's own.

    False, and nothing is forgotten, where the same was begun before and was stopped: then it goes on.
    Raises UsageError where a step changed that would not run again.
    """
    again = all_from(job, steps)
    known = store.identity() or {}
    changed = [name for name in changed_steps(known, job) if name not in again] if job.steps else []
    if changed:
        given = " ".join(f"--from {name}" for name in first_of(job, [*changed, *steps]))
        raise UsageError(
            f"Not what they were either: {', '.join(changed)}; --from {' --from '.join(steps)} would keep what they came to. "
            f"Give {given}, or change them back. Nothing was sent."
        )
    return store.forget_from(again, json.loads(json.dumps(job.identity())))


def all_from(job: Job, steps: list[str]) -> list[str]:
    """These steps and all that need them, in the job's order. Raises UsageError where there is no such step."""
    if not steps:
        return []
    shape = chain_of(job).shape
    again = {name for step in steps for name in shape.names_from(step)}
    return [name for name in job.places if name in again]
