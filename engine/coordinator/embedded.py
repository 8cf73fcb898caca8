"""The mock provider inside a run: started as a process, told what to be by the base URL, gone with the run.

Rules of this file:
1. ``mock:`` and nothing else is an address of its own: ``mock:latency=200ms&rpm=6000`` sets it up. An ordinary
   http address with ``--provider mock`` is a mock that somebody else runs.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec

from engine.config import Job
from engine.core.errors import CannotStart, UsageError
from engine.core.model import Target
from engine.launchers.local import LocalLauncher, Process
from engine.mock.settings import MockSettings, QuotaSettings

DEFAULT_LATENCY = "lognormal:200:0.3"
START_MAX_S = 15.0
_SCHEME = "mock:"


def is_embedded(base_url: str) -> bool:
    """Whether a mock provider with this base URL is to be started by the run itself."""
    return not base_url or base_url.startswith(_SCHEME)


def with_mocks(job: Job, start: Callable[[str], str]) -> Job:
    """The job with the addresses of the mocks it asks for; ``start`` starts one. Endpoints have one each, steps share."""

    def placed(target: Target, start: Callable[[str], str]) -> Target:
        is_asked_for = target.provider == "mock" and is_embedded(target.base_url)
        return replace(target, base_url=start(target.base_url)) if is_asked_for else target

    if job.steps:
        once = cache(start)
        steps = tuple(replace(one, target=placed(one.target, once)) for one in job.steps)
        return replace(job, steps=steps, target=steps[0].target)
    if job.endpoints:
        places = tuple(replace(one, target=placed(one.target, start)) for one in job.endpoints)
        return replace(job, endpoints=places)
    return replace(job, target=placed(job.target, start))


def settings_of(base_url: str) -> MockSettings:
    """The mock that a base URL asks for. Raises UsageError with a sentence for what no mock can be."""
    text = base_url.removeprefix(_SCHEME).lstrip("/?")
    given = dict(parse_qsl(text, keep_blank_values=True))
    if text and not given:
        raise UsageError(f"The mock's address {base_url!r} is not like mock:latency=200ms&rpm=6000.")
    values: dict[str, object] = {"latency": given.pop("latency", DEFAULT_LATENCY)}
    try:
        limits = {name: int(given.pop(name)) for name in ("rpm", "tpm") if name in given}
        if limits:
            kind = given.pop("quota", "sliding")
            values["quota"] = (QuotaSettings(kind=kind, rpm=limits.get("rpm"), tpm=limits.get("tpm")),)
        for name in ("capacity", "seed"):
            if name in given:
                values[name] = int(given.pop(name))
        if given:
            known = "latency, rpm, tpm, quota, capacity, seed"
            raise UsageError(f"The mock's address knows {known}, not {', '.join(given)}.")
        return MockSettings(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(f"The mock's address {base_url!r} cannot be used: {error}.") from None


def start_mock(base_url: str, folder: Path) -> tuple[Process, str]:
    """Start the mock; its process and the base URL it listens at. Raises CannotStart."""
    process = LocalLauncher(folder).start(
        "engine.mock", msgspec.json.encode(settings_of(base_url)) + b"\n", capture=True
    )
    ready = process.stdout.readline()
    try:
        port = int(json.loads(ready)["port"])
    except (ValueError, KeyError, TypeError):
        words = process.last_words()
        process.kill()
        process.wait(START_MAX_S)
        process.close()
        raise CannotStart(
            f"The embedded mock provider did not start: {words or 'it said nothing'}."
        ) from None
    return process, f"http://127.0.0.1:{port}/v1"
