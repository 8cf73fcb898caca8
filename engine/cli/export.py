"""``engine export``: write what a run has so far, at any time.

Rules of this file:
1. Reads the run; writes only the file it is given, atomically, or standard output.
"""

import json
from itertools import islice
from typing import Annotated

import typer

_EXAMPLES = """Examples:

\b
  engine export labelled.jsonl -o so-far.csv
  engine export labelled.jsonl -o - | head"""


def export_command(
    run: Annotated[str, typer.Argument(help="The output's path, or the state folder.")],
    output: Annotated[str, typer.Option("--output", "-o", help="File to write; - is standard output.")],
    output_format: Annotated[
        str | None, typer.Option(help="jsonl, csv, tsv, parquet or openai-batch.")
    ] = None,
) -> int:
    """Write the finished rows of a run, in input order."""
    import sys

    from engine.cli.folders import state_folder
    from engine.formats.detect import detect
    from engine.sink import StreamOut, check_output, publish
    from engine.store import Store

    folder = state_folder(run)
    with Store.view(folder) as store:
        job = json.loads(store.get_meta("job") or "{}")
        columns = tuple(json.loads(store.get_meta("columns") or "[]"))
        notes = json.loads(store.get_meta("notes") or "{}")
        if output == "-":
            kept_name = job.get("output_format")
            name = output_format or ("openai-batch" if kept_name == "openai-batch" else "jsonl")
            escapes = bool(job.get("escape_cells", True))
            out = StreamOut(format_name=name, columns=columns, escape_cells=escapes)
            records, count = store.records(), 0
            while batch := list(islice(records, 256)):
                out.write(batch)
                count += len(batch)
        else:
            check_output(output, str(folder), "")
            batch_run = job.get("output_format") == "openai-batch"
            name = output_format or ("openai-batch" if batch_run else detect(output, content=False)[0])
            count = publish(
                store.records,
                output,
                name,
                columns=columns,
                notes=notes,
                escape_cells=bool(job.get("escape_cells", True)),
            )
    print(f"{count:,} rows exported", file=sys.stderr)
    return 0


export_command.__doc__ = f"{export_command.__doc__}\n\n{_EXAMPLES}"
