"""The quota of one endpoint, for whoever sends to it from this machine: a run, or a load test.

Rules of this file:
1. Who declares no limits is not refused because limiters cannot be kept here: it takes a place that no other run finds.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config import Job, jobs_of, rates_of
from engine.coordinator.limiting import Declared, Limiting
from engine.coordinator.supervise import backoff_s
from engine.core.errors import CannotStart
from engine.core.quota import Rates
from engine.credentials import Auth, Secret, all_secrets
from engine.limiter.registry import Registry, default_folder
from engine.providers import make_provider


def quota_of(job: Job, auth: Auth) -> tuple[str, str, tuple[Secret, ...]]:
    """What a limit is of: an address, a model and a key. ``job`` has one endpoint; a step that sends nothing has a quota
    that nobody shares."""
    if job.step.kind == "call":
        return f"call:{os.getpid()}", job.step.function, ()
    # Where rows name their hosts the limits are the step's own, whichever hosts it meets.
    origin = str(make_provider(job.target).origin) or f"rows {job.step.url}"
    return origin, job.target.model, all_secrets(auth)


def limitings_of(
    job: Job, auth: tuple[Auth, ...], make: Callable[[Job, Auth, str], Limiting]
) -> list[Limiting]:
    """One for each of ``jobs_of(job)``; steps of one quota have one together, with the lowest of their limits."""
    parts = list(zip(jobs_of(job), auth, job.places, strict=True))
    if not job.steps:
        return [make(*part) for part in parts]
    groups: dict[object, list[int]] = {}
    for at, (one, headers, _) in enumerate(parts):
        groups.setdefault(quota_of(one, headers), []).append(at)
    found: dict[int, Limiting] = {}
    for places in groups.values():
        jobs = [parts[at][0] for at in places]
        lowest: dict[str, Any] = {
            name: min((value for one in jobs if (value := getattr(one, name)) is not None), default=None)
            for name in Rates._fields
        }
        learns = any(one.learn_limits for one in jobs)
        together = replace(jobs[0], **lowest, learn_limits=learns)
        limiting = make(together, parts[places[0]][1], ", ".join(parts[at][2] for at in places))
        found.update(dict.fromkeys(places, limiting))
    return [found[at] for at in range(len(parts))]


def limiting_of(
    job: Job,
    auth: Auth,
    *,
    label: str,
    spare: Path,
    hide: list[str],
    note: Callable[[str], None],
    on_change: Callable[[], None],
) -> Limiting:
    """The place of ``job``, which has one endpoint, at its quota. ``label`` names who asks to others.

    ``spare``: a private folder for the place that no other run finds. Raises CannotStart where limits are declared and
    limiters cannot be kept.
    """
    origin, model, secrets = quota = quota_of(job, auth)
    declared = Declared(rates_of(job), job.share, job.learn_limits)
    try:
        entry = Registry(job.limiter_dir or default_folder()).entry(*quota)
    except CannotStart:
        if declared.needs_limiter:
            raise
        entry = Registry(str(spare)).entry(*quota)
    return Limiting(
        entry,
        declared,
        pid=os.getpid(),
        label=f"{label} (process {os.getpid()})",
        origin=origin,
        model=model,
        hide=hide,
        backoff_s=backoff_s,
        note=note,
        on_change=on_change,
    )
