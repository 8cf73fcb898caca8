"""Everything about a run that is decided, and everything that is refused, before anything is sent.

Rules of this file:
1. Raises UsageError (exit 2) with a sentence for whatever cannot work; what passes here is not checked again.
2. Sends nothing, starts nothing, and writes only the state folder.
"""

import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from engine.config import Job, jobs_of, rates_of
from engine.coordinator.again import reopen
from engine.coordinator.caller import Caller, Out
from engine.coordinator.embedded import is_embedded, settings_of
from engine.core.errors import RowError, UsageError
from engine.core.quota import Rates
from engine.formats import format_named
from engine.formats.record import META_COLUMNS
from engine.providers import make_provider
from engine.sink import StreamOut, check_output
from engine.source import Rows, Source
from engine.steps import make_step
from engine.steps.base import Step
from engine.steps.chain import Chain, chain_of, refuse_unknown_names
from engine.store import Store, move_aside
from engine.vocabulary import exact_measure

PEEK_ROWS = 100  # records of an input without a header that are asked for their columns


@dataclass(frozen=True, slots=True)
class Plan:
    """A job that can run."""

    job: Job
    source: Rows
    columns: tuple[str, ...]  # of the output, in order; () where only the records tell
    answers: tuple[str, ...]
    notes: dict[str, Any]
    out: Out | None  # where records go as they become durable: for -o -, and to a caller


def check(job: Job, caller: Caller | None = None) -> Plan:
    """Open the input, or take the caller's, and try every part of the job. Raises UsageError."""
    chain, steps = check_steps(job)
    format_named(job.output_format)
    if job.output_format == "openai-batch" and job.input_format != "openai-batch":
        raise UsageError(
            "openai-batch output needs openai-batch input: its records answer the input's custom_ids."
        )
    if job.output != "-":
        check_output(job.output, job.state, job.input)
    source: Rows
    if caller is not None:
        source = caller.source
    else:
        source = Source(job.input, job.input_format, row_bytes_max=job.limits.row_bytes_max)
    try:
        used = (
            chain.shape.columns if chain is not None else frozenset().union(*(one.columns for one in steps))
        )
        _check_columns(used, source, chain)
    except UsageError:
        source.close()
        raise
    answers = chain.answers if chain is not None else steps[0].answer_columns
    columns: tuple[str, ...] = ()
    if source.columns is not None:
        tail = ("_status", "_error", *(META_COLUMNS if job.meta else ()))
        new = (*answers, *tail)
        columns = (*(name for name in source.columns if name not in new), *new)
    try:
        out = caller.hand if caller is not None else _stream_out(job, columns)
    except UsageError:
        source.close()
        raise
    return Plan(job, source, columns, answers, dict(source.notes), out)


def check_steps(job: Job) -> tuple[Chain | None, list[Step]]:
    """What can be tried of a job without its input: its steps, as a chain or as that of each endpoint. Raises UsageError."""
    check_ca_file(job.ca_file)
    return (_chain(job), []) if job.steps else (None, _steps(job))


def _steps(job: Job) -> list[Step]:
    """The job's step at each of its endpoints, tried."""
    steps = []
    names = [f"Endpoint {endpoint.name}: " for endpoint in job.endpoints] or [""]
    for name, one in zip(names, jobs_of(job), strict=True):
        try:
            _check_mock(one)
            steps.append(make_step(one.step.kind, one.step, one.target, make_provider(one.target)))
            _check_possible(one, steps[-1])
        except UsageError as error:
            raise UsageError(f"{name}{error}") from None
    return steps


def _chain(job: Job) -> Chain:
    """The job's steps, tried."""
    chain = chain_of(job)
    for stage, one in zip(chain.stages, jobs_of(job), strict=True):
        try:
            _check_mock(one)
            if not stage.is_call:
                _check_possible(one, stage.step)
        except UsageError as error:
            raise UsageError(f"Step {stage.name}: {error}") from None
    return chain


def _check_mock(job: Job) -> None:
    if job.target.provider == "mock" and is_embedded(job.target.base_url):
        settings_of(job.target.base_url)
    if job.vocabularies:
        exact_measure(job.target.model, job.vocabularies)


def _stream_out(job: Job, columns: tuple[str, ...]) -> Out | None:
    if job.output != "-":
        return None
    out = StreamOut(format_name=job.output_format, columns=columns, escape_cells=job.escape_cells)
    return lambda records: out.write([record for _, record in records])


def check_ca_file(path: str) -> None:
    """Raises UsageError for certificates that cannot be used."""
    if not path:
        return
    import ssl  # most runs need none of it here

    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"The certificates in {path} (--ca-file) cannot be used: {error}. A PEM file is needed. Nothing was sent."
        ) from None


def _check_possible(job: Job, step: Step) -> None:
    """Refuse limits that not even the cheapest call could keep: the fixed part of the prompt and the longest answer."""
    try:
        charge = step.start(dict.fromkeys(step.columns, "")).call.charge
    except RowError:
        return  # without a row there is no call to be had: rows will tell
    costs = (0, charge.tokens, charge.tokens_in, charge.tokens_out)
    for name, limit, cost in zip(Rates._fields, rates_of(job), costs, strict=True):
        if 0 < limit < cost:
            raise UsageError(
                f"Every call of this job costs at least {cost:,} tokens (the prompt's fixed part and --max-tokens), more "
                f"than --{name.replace('_', '-')} {limit:,} allows in a minute: none could ever be sent. "
                "Nothing was sent; raise the limit or lower --max-tokens."
            )


def _check_columns(used: frozenset[str], source: Rows, chain: Chain | None) -> None:
    known = source.column_names(PEEK_ROWS, enough=used)
    missing = sorted(used - known)
    if missing and (known or source.columns is not None):
        lack = (
            "the input's header does not have"
            if source.columns is not None
            else f"the input's first {PEEK_ROWS} records do not have"
        )
        if chain is not None:
            refuse_unknown_names(chain, known, lack)
        raise UsageError(
            f"The template names {', '.join(map(repr, missing))}, which {lack}. Known columns: {', '.join(sorted(known))}. "
            "Nothing was sent."
        )


def open_store(plan: Plan, note: Any) -> Store:
    """The run's store, new or to be resumed. Raises UsageError when it belongs to another job, or is in use."""
    job = plan.job
    folder = Path(job.state)
    if job.fresh:
        aside = move_aside(folder)
        if aside is not None:
            note(f"the state of the earlier run was moved to {aside}")
    store = Store.open(folder, durability=job.durability)
    try:
        reopen(job, store, note, plan.source)
        if store.get_meta("run_id") is None:
            store.set_meta("run_id", secrets.token_hex(8))
        store.set_meta("job", msgspec.json.encode(_found_from_anywhere(job)).decode())
        store.set_meta("columns", json.dumps(plan.columns))
        store.set_meta("notes", json.dumps(plan.notes))
    except BaseException:
        store.close()
        raise
    return store


def _found_from_anywhere(job: Job) -> Job:
    """The job as it is kept: ``engine retry`` may be given in another folder than ``engine run`` was."""
    return replace(
        job,
        input=_absolute(job.input),
        output=_absolute(job.output),
        ca_file=_absolute(job.ca_file),
        folder=job.folder or os.getcwd(),
    )


def _absolute(path: str) -> str:
    return path if path in ("", "-") else os.path.abspath(path)
