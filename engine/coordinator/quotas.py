"""The quota of one endpoint, for whoever sends to it from this machine: a run, or a load test.

Rules of this file:
1. Who declares no limits is not refused because limiters cannot be kept here: it takes a place that no other run finds.
"""

import os
from collections.abc import Callable
from pathlib import Path

from engine.config import Job, rates_of
from engine.coordinator.limiting import Declared, Limiting
from engine.coordinator.supervise import backoff_s
from engine.core.errors import CannotStart
from engine.credentials import Auth, all_secrets
from engine.limiter.registry import Registry, default_folder
from engine.providers import make_provider


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
    # Where rows name their hosts the limits are the step's own, whichever hosts it meets.
    origin = str(make_provider(job.target).origin) or f"rows {job.step.url}"
    model = job.target.model
    declared = Declared(rates_of(job), job.share, job.learn_limits)
    quota = (origin, model, all_secrets(auth))
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
