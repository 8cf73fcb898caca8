"""``engine retry``: run the failed rows of a run again, with corrected settings if need be.

Rules of this file:
1. Only failed rows are opened; what is ok stays as it is. The corrected settings become the run's own.
"""

import json
from dataclasses import replace
from typing import Annotated, Any

import typer

_EXAMPLES = """Examples:

\b
  engine retry labelled.jsonl
  engine retry labelled.jsonl --kind timeout
  engine retry labelled.jsonl --set model=gpt-4.1 --set max-tokens=200"""


def retry_command(
    run: Annotated[str, typer.Argument(help="The output's path, or the state folder.")],
    kind: Annotated[str | None, typer.Option(help="Only rows that failed with this kind.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE: correct a setting first.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The summary as one JSON object on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no notes, no summary.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress.")] = False,
) -> int:
    """Send the failed rows of a finished or stopped run again."""
    import msgspec

    from engine.cli.folders import state_folder
    from engine.cli.run import show
    from engine.config import Job
    from engine.coordinator.plan import check
    from engine.coordinator.run import run_job
    from engine.core.errors import ErrorKind, UsageError
    from engine.endpoints import check_different
    from engine.keys import auth_for
    from engine.observe.progress import choose_progress
    from engine.store import Store

    folder = state_folder(run)
    if kind is not None and kind not in set(ErrorKind):
        raise UsageError(f"There is no failure kind {kind!r}. Known: {', '.join(ErrorKind)}.")
    with Store.view(folder) as store:
        kept = store.get_meta("job")
    if kept is None:
        raise UsageError(f"The run in {folder} has not begun; start it with engine run.")
    job = msgspec.json.decode(kept, type=Job)
    if job.input == "-":
        raise UsageError("This run read standard input: pipe the same rows into engine run --retry-failed.")
    job = replace(correct(job, set_ or []), state=str(folder), fresh=False, retry_failed=False)
    # Whatever can be refused is refused before a single row is opened again.
    auth = auth_for(job)
    check_different(job, auth)
    check(job).source.close()
    with Store.open(folder, durability=job.durability) as store:
        store.forget_failed(kind)
        store.set_identity(json.loads(json.dumps(job.identity())))
    summary = run_job(job, auth, choose_progress(quiet=quiet, no_progress=no_progress))
    show(summary, as_json=as_json, quiet=quiet, to_stderr=job.output == "-")
    return summary.exit_code


retry_command.__doc__ = f"{retry_command.__doc__}\n\n{_EXAMPLES}"

_TARGET = ("model", "base_url", "max_tokens", "temperature")
_OF_ENDPOINTS = ("base_url", "api_key_env")
_STEP = ("prompt", "system")
_JOB = ("retries", "max_failures", "share", "procs", "api_key_env", "ca_file")
_OTHERS = ("prompt_file", "timeout", "in_flight", "rpm", "tpm", "input_tpm", "output_tpm")


def correct(job: Any, changes: list[str]) -> Any:
    """``job`` with ``NAME=VALUE`` settings replaced, each read as the flag of that name. Raises UsageError."""
    from engine.core.errors import UsageError
    from engine.core.quota import Rates
    from engine.endpoints import limits_of
    from engine.settings import flag_name, in_flight_of, read_prompt_file, timeouts_of
    from engine.settingtable import SETTINGS

    for change in changes:
        raw_name, equals, text = change.partition("=")
        name = raw_name.strip().lstrip("-").replace("-", "_")
        if not equals:
            raise UsageError(f"--set {change} is not like NAME=VALUE.")
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
