"""``engine retry``: run the failed rows of a run again, with corrected settings if need be.

Rules of this file:
1. Only failed rows are opened; what is ok stays as it is. The corrected settings become the run's own.
2. With ``--from`` all rows are opened, and what the steps before that one came to is used again.
"""

from contextlib import closing
from dataclasses import replace
from typing import Annotated

import typer

_EXAMPLES = """Examples:

\b
  engine retry labelled.jsonl
  engine retry labelled.jsonl --kind timeout
  engine retry labelled.jsonl --set model=gpt-4.1 --set max-tokens=200
  engine retry pages.jsonl --from summary --set summary.model=gpt-4.1"""


def retry_command(
    run: Annotated[str, typer.Argument(help="The output's path, or the state folder.")],
    kind: Annotated[str | None, typer.Option(help="Only rows that failed with this kind.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE: correct a setting first.")
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="Of a job with steps: run this step and what needs it again, for all rows. May be repeated.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The summary as one JSON object on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no notes, no summary.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress.")] = False,
) -> int:
    """Send the failed rows of a finished or stopped run again."""
    import msgspec

    from engine.cli.again import correct, reread
    from engine.cli.folders import state_folder
    from engine.cli.run import show
    from engine.config import Job
    from engine.coordinator.again import again_failed, again_from, refuse_other_rows
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
    if from_ and kind is not None:
        raise UsageError("--from is about all rows and --kind about some: give one of them.")
    if kept is None:
        raise UsageError(f"The run in {folder} has not begun; start it with engine run.")
    job = msgspec.json.decode(kept, type=Job)
    if job.input == "-":
        raise UsageError(
            "This run read standard input, or the rows of a Python program: pipe the same rows into engine run "
            "--retry-failed, or call retry_failed() of the program's Pool."
        )
    if from_:
        job = reread(job, from_)
    job = replace(correct(job, set_ or []), state=str(folder), fresh=False, retry_failed=False)
    # Whatever can be refused is refused before a single row is opened again.
    auth = auth_for(job)
    check_different(job, auth)
    source = check(job).source
    progress = choose_progress(quiet=quiet, no_progress=no_progress)
    with Store.open(folder, durability=job.durability) as store:
        with closing(source):
            if from_:
                refuse_other_rows(source, store)
        if not from_:
            again_failed(store, job, kind)
        elif not again_from(store, job, from_):
            progress.note(
                f"the same --from {' --from '.join(from_)} was stopped before its end: it goes on from there"
            )
    summary = run_job(job, auth, progress)
    show(summary, as_json=as_json, quiet=quiet, to_stderr=job.output == "-")
    return summary.exit_code


retry_command.__doc__ = f"{retry_command.__doc__}\n\n{_EXAMPLES}"
