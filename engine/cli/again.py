"""What ``engine retry`` changes of a job before its rows are sent again.

Rules of this file:
1. Every refusal is a UsageError, made before a row is opened again.
"""

import json
from dataclasses import replace
from typing import Any

from engine.config import Job, StepPlan
from engine.coordinator.again import all_from
from engine.core.errors import UsageError
from engine.core.quota import Rates
from engine.settings import flag_name, in_flight_of, load, read_prompt_file, timeouts_of
from engine.settingtable import SETTINGS, limits_of

_TARGET = ("model", "base_url", "max_tokens", "temperature")
_OF_ENDPOINTS = ("base_url", "api_key_env")
_STEP = ("prompt", "system")
_JOB = ("retries", "max_failures", "share", "procs", "api_key_env", "ca_file")
_OTHERS = ("prompt_file", "timeout", "in_flight", "rpm", "tpm", "input_tpm", "output_tpm")


def correct(job: Job, changes: list[str]) -> Job:
    """``job`` with ``NAME=VALUE`` settings replaced, each read as the flag of that name. Raises UsageError."""

    for change in changes:
        raw_name, equals, text = change.partition("=")
        name = raw_name.strip().lstrip("-").replace("-", "_")
        if not equals:
            raise UsageError(f"--set {change} is not like NAME=VALUE.")
        if job.steps and name not in _WHOLE_JOB:
            job = _corrected_step(job, change, name, text)
            continue
        if name not in (*_TARGET, *_STEP, *_JOB, *_OTHERS):
            known = ", ".join(flag_name(one)[2:] for one in (*_TARGET, *_STEP, *_JOB, *_OTHERS))
            raise UsageError(f"--set {change}: {raw_name!r} cannot be corrected; these can: {known}.")
        if job.endpoints and name in (*Rates._fields, *_OF_ENDPOINTS):
            raise UsageError(
                f"--set {change}: this run has several endpoints. Correct the job file, and give engine run --job FILE "
                "--retry-failed."
            )
        try:
            value = SETTINGS[name].read(text)
        except (ValueError, TypeError) as error:
            raise UsageError(f"--set {change} cannot be used: {error}.") from None
        if name in _TARGET:
            job = replace(job, target=replace(job.target, **{name: value}))
            places = (replace(one, target=replace(one.target, **{name: value})) for one in job.endpoints)
            job = replace(job, endpoints=tuple(places))
        elif name in _STEP:
            job = replace(job, step=replace(job.step, **{name: value}))
        elif name == "prompt_file":
            job = replace(job, step=replace(job.step, prompt=read_prompt_file(value)))
        elif name in Rates._fields:
            fields = limits_of({name: value})
            job = replace(job, **{**fields, "learn_limits": job.learn_limits or fields["learn_limits"]})
        elif name == "in_flight":
            job = replace(job, **in_flight_of(value))
        elif name == "timeout":
            job = replace(job, timeouts=timeouts_of(value))
        else:
            job = replace(job, **{name: value})
    return job


_OF_STEPS = ("retries", "api_key_env")
_WHOLE_JOB = (*(name for name in _JOB if name not in _OF_STEPS), "in_flight")  # of a job with steps
_STEP_SETTINGS = (*_TARGET, *_STEP, *_OF_STEPS, "prompt_file", "timeout", "when", *Rates._fields)


def _corrected_step(job: Job, change: str, dotted: str, text: str) -> Job:
    """``summary.model=...``: a setting of one step."""
    step, dot, name = dotted.partition(".")
    names = [plan.name for plan in job.steps]
    place = next((at for at, one in enumerate(names) if one.replace("-", "_") == step), None)
    if not dot or place is None or name not in _STEP_SETTINGS:
        known = ", ".join(flag_name(one)[2:] for one in _STEP_SETTINGS)
        whole = ", ".join(flag_name(one)[2:] for one in _WHOLE_JOB)
        raise UsageError(
            f"--set {change}: this run has steps; say which one, like {names[-1]}.model=NAME. Its steps: {', '.join(names)}. "
            f"What can be corrected of a step: {known}; of the whole job, without a step's name: {whole}."
        )
    try:
        value = text if name == "when" else SETTINGS[name].read(text)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--set {change} cannot be used: {error}.") from None
    plans = list(job.steps)
    plans[place] = _with(plans[place], name, value)
    return replace(job, steps=tuple(plans), target=plans[0].target, step=plans[0].step)


def _with(plan: StepPlan, name: str, value: Any) -> StepPlan:
    if name in _TARGET:
        return replace(plan, target=replace(plan.target, **{name: value}))
    if name in _STEP:
        return replace(plan, step=replace(plan.step, **{name: value}))
    if name == "prompt_file":
        return replace(plan, step=replace(plan.step, prompt=read_prompt_file(value)))
    if name in Rates._fields:
        fields = limits_of({name: value})
        return replace(plan, **{**fields, "learn_limits": plan.learn_limits or fields["learn_limits"]})
    if name == "timeout":
        return replace(plan, timeouts=timeouts_of(value))
    return replace(plan, **{name: value})


def reread(job: Job, steps: list[str]) -> Job:
    """The job as its files tell it now. Raises UsageError where it has no steps, or none of these names."""
    if not job.steps:
        raise UsageError("--from names a step, and this run has none: every row is one call.")
    if job.told:
        # Where it is read from and written to stays: the command may be given in another folder.
        fresh = load({**json.loads(job.told), "input": job.input, "output": job.output}).job
        job = replace(
            fresh, input_format=job.input_format, output_format=job.output_format, folder=job.folder
        )
    all_from(job, steps)
    return job
