"""``engine run``: enrich every row of an input.

Rules of this file:
1. Flags only: what they mean is decided in ``engine.settings``.
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from engine.config import Endpoint, StepPlan
    from engine.core.model import Target

_EXAMPLES = """Examples:

\b
  engine run reviews.jsonl -o labelled.jsonl --model gpt-4.1-mini --rpm 5000 --tpm 2000000 \\
      --prompt 'Positive or negative? {{ text }}' --max-tokens 5
\b
  engine run docs.csv -o facts.csv --base-url http://127.0.0.1:8000/v1 --model my-model \\
      --prompt-file prompt.txt --schema facts.json --in-flight 128
\b
  engine run rows.parquet -o scored.parquet --provider http --url 'http://127.0.0.1:9000/score' \\
      --body '{"text": "{{ text }}"}' --select result.score --into score
\b
  engine run in.jsonl -o out.jsonl --provider mock --prompt '{{ text }}' --procs 8 --rpm 60000

The same command again goes on where it was stopped. Exit codes: 0 all rows ok, 1 some failed, 2 usage,
3 stopped by the endpoint, 4 interrupted, 5 disk, 6 internal fault."""


def run_command(
    context: typer.Context,
    input: Annotated[
        str | None, typer.Argument(help="JSONL, CSV, Parquet or openai-batch file (.gz too); - is stdin.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Output file; - streams records as they complete.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="TOML file with the same settings as these flags.")] = None,
    procs: Annotated[str | None, typer.Option(help="Worker processes (default: processors).")] = None,
    provider: Annotated[
        str | None, typer.Option(help="openai, azure, anthropic, ollama, http or mock.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="The endpoint, e.g. http://127.0.0.1:8000/v1.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="chat, responses, embeddings or completions.")] = None,
    api_version: Annotated[str | None, typer.Option(help="Azure's; without it the v1 URLs are used.")] = None,
    model: Annotated[str | None, typer.Option(help="Model or deployment.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Jinja2 template over the row's columns.")] = None,
    prompt_file: Annotated[str | None, typer.Option(help="File with that template.")] = None,
    messages: Annotated[str | None, typer.Option(help="Column that holds a list of messages.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt, a template too.")] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Provider http: URL template; fixed host, or all of it the row's: {{ url }}."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Provider http: method.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Provider http: 'K: V'; ${NAME} is a secret variable.")
    ] = None,
    body: Annotated[str | None, typer.Option(help="Provider http: JSON body template.")] = None,
    select: Annotated[
        str | None, typer.Option(help="Provider http: path into the reply, like a.0.b.")
    ] = None,
    max_tokens: Annotated[str | None, typer.Option(help="Longest answer, in tokens.")] = None,
    temperature: Annotated[str | None, typer.Option(help="Sampling temperature.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="Further body field, name=json.")] = None,
    into: Annotated[str | None, typer.Option(help="Column for the answer (default: response).")] = None,
    schema: Annotated[
        str | None, typer.Option(help="JSON schema file of the answer; its properties become columns.")
    ] = None,
    rpm: Annotated[str | None, typer.Option(help="Requests per minute; auto learns it from replies.")] = None,
    tpm: Annotated[str | None, typer.Option(help="Tokens per minute; auto learns it from replies.")] = None,
    input_tpm: Annotated[str | None, typer.Option(help="Of them in prompts, where counted apart.")] = None,
    output_tpm: Annotated[str | None, typer.Option(help="Of them in answers, where counted apart.")] = None,
    share: Annotated[
        str | None, typer.Option(help="Weight among runs that share a quota on this machine (1).")
    ] = None,
    limiter_dir: Annotated[
        str | None, typer.Option(help="Where this machine's limiters are found (/tmp/engine-limiters-UID).")
    ] = None,
    count_tokens: Annotated[
        bool | None,
        typer.Option("--count-tokens", help="Count prompts with tiktoken, whose vocabulary is on disk."),
    ] = None,
    in_flight: Annotated[
        str | None, typer.Option(help="Requests under way at once, over all workers (auto).")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Seconds a request may take (300).")] = None,
    retries: Annotated[str | None, typer.Option(help="Repeats per row, re-asks included (5).")] = None,
    max_failures: Annotated[str | None, typer.Option(help="N or P%: stop when more rows fail.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the key.")] = None,
    input_format: Annotated[
        str | None, typer.Option(help="jsonl, csv, tsv, parquet or openai-batch.")
    ] = None,
    output_format: Annotated[
        str | None, typer.Option(help="jsonl, csv, tsv, parquet or openai-batch.")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Only the first N rows, and an estimate for all.")] = None,
    fresh: Annotated[
        bool | None, typer.Option("--fresh", help="Start over; the old state is moved aside.")
    ] = None,
    retry_failed: Annotated[
        bool | None, typer.Option("--retry-failed", help="Failed rows are open again.")
    ] = None,
    on_change: Annotated[
        str | None, typer.Option(help="Settings or steps that changed: refuse, or redo what they made.")
    ] = None,
    durability: Annotated[str | None, typer.Option(help="fsync (survives power loss) or os.")] = None,
    state: Annotated[str | None, typer.Option(help="State folder (default: OUTPUT.run).")] = None,
    meta: Annotated[bool | None, typer.Option("--meta", help="Add attempts, latency, tokens, model.")] = None,
    ca_file: Annotated[str | None, typer.Option(help="Certificates of a private authority (PEM).")] = None,
    trust_env: Annotated[
        bool | None, typer.Option("--trust-env", help="Use the environment's proxies.")
    ] = None,
    wire: Annotated[
        str | None, typer.Option(help="What carries requests: aiohttp (default), or lean, for less CPU.")
    ] = None,
    escape_cells: Annotated[
        bool | None,
        typer.Option("--escape-cells/--no-escape-cells", help="CSV: disarm cells a spreadsheet would run."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The summary as one JSON object on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no notes, no summary.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print each setting and its origin; run nothing.")
    ] = False,
) -> int:
    """Call the endpoint once per row and write every row with its answer."""
    from engine.settings import load

    loaded = load(context.params)
    if explain:
        _explain(loaded)
        return 0
    from engine.coordinator.run import run_job
    from engine.observe.progress import choose_progress

    summary = run_job(loaded.job, loaded.auth, choose_progress(quiet=quiet, no_progress=no_progress))
    show(summary, as_json=as_json, quiet=quiet, to_stderr=loaded.job.output == "-")
    return summary.exit_code


run_command.__doc__ = f"{run_command.__doc__}\n\n{_EXAMPLES}"


def show(summary: Any, *, as_json: bool, quiet: bool, to_stderr: bool) -> None:
    """Print a run's summary where it belongs."""
    stream = sys.stderr if to_stderr else sys.stdout
    if as_json:
        print(summary.json(), file=stream)
    elif not quiet:
        print(summary.text(), file=stream)


def _explain(loaded: Any) -> None:
    for name, origin in loaded.origins.items():
        if origin.value not in (None, [], "") and name not in ("endpoints", "steps"):
            print(f"{name:15} {origin.value!r:50.50} {origin.source}")
    for place in loaded.job.endpoints:
        print(
            f"{'endpoint':15} {place.name}: {_where(place.target)}, weight {place.weight:g}, {_limits(place)}"
        )
    for plan in loaded.job.steps:
        print(f"{'step':15} {plan.name}: {_step_line(plan)}")
    for name, headers in zip(loaded.job.places, loaded.auth, strict=True):
        for header in headers:
            print(
                f"{'key':15} {' '.join([name, header.name]).strip() + ': ' + header.masked:50.50} environment"
            )


def _step_line(plan: "StepPlan") -> str:
    """A step in one line: what it is, where it goes, its limits, what it takes, and when it is for a row."""
    told = [f"{plan.step.kind} {_where(plan.target) if plan.step.kind != 'call' else plan.step.function}"]
    told += [] if plan.step.kind == "call" else [_limits(plan)]
    told += ["takes " + ", ".join(f"{name} = {source}" for name, source in plan.take)] if plan.take else []
    told += [f"when {' '.join(plan.when.split())}"] if plan.when else []
    told += [] if plan.keep else ["not kept"]
    return ", ".join(told)


def _where(target: "Target") -> str:
    return " ".join(filter(None, (target.provider, target.base_url, target.model)))


def _limits(place: "Endpoint | StepPlan") -> str:
    """The limits that an endpoint or a step declares."""
    from engine.config import rates_of
    from engine.core.quota import RATE_NAMES

    declared = [
        f"{limit} {unit}" for limit, unit in zip(rates_of(place), RATE_NAMES.values(), strict=True) if limit
    ]
    return ", ".join(declared) or "no limits"
