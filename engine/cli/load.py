"""``engine load``: an honest load test of an LLM or plain HTTP endpoint.

Rules of this file:
1. Flags only: what they mean is decided in ``engine.loadtest.plan``.
2. However it ends, it says what that means for the figures: a Ctrl-C before there are any, a report nobody took.
"""

import json
import os
import sys
from typing import Annotated, Any

import typer

from engine.cli.early import ended_by_signals
from engine.core.errors import EngineError, ExitCode, InternalFault, StoreFailure

_INTERRUPTED = "interrupted before the test was under way: nothing was measured."
_EXAMPLES = """Examples:

\b
  engine load http://127.0.0.1:8000/health --rate 200 --duration 30s --fail-if 'response_time.p99>100ms'
\b
  engine load --base-url http://127.0.0.1:8000/v1 --model my-model --prompt 'Tell me a story.' \\
      --max-tokens 200 --stream --rate 5 --arrival poisson --duration 5m --warmup 20s \\
      --slo 'ttft.p99<800ms' --slo 'tpot.p95<50ms' --fail-if 'attainment<99%' --out r.json --html r.html
\b
  engine load --base-url http://127.0.0.1:8000/v1 --model my-model --data prompts.jsonl \\
      --prompt '{{ text }}' --max-tokens 50 --find-max --slo 'response_time.p95<2s'
\b
  engine load http://127.0.0.1:8000/ --ramp 10:500:60s --ramp 500:500:2m
  engine load http://127.0.0.1:8000/ --concurrency 64 --requests 10000
  engine load --provider mock --prompt hello --rate 100 --duration 10s
  engine load --selftest

A 429 of the endpoint's is a failure (http_429), never sent again. The limits of --rpm and --tpm are waited for.

Durations read like 250ms, 30s, 5m, 1.5h; rates like 100 (a second), 2.5/s, 600/m. Exit codes: 0 thresholds hold or there are
none, 99 one is broken (or the test is not VALID while there are some), 2 usage, 3 could not start, 4 interrupted, 6 internal
fault."""


def load_command(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Argument(help="Plain HTTP: where requests go, a template over --data.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="LLM: the endpoint, e.g. http://127.0.0.1:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="LLM: model or deployment.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="LLM: openai, azure, anthropic, ollama or mock.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="chat, responses, embeddings or completions.")] = None,
    api_version: Annotated[str | None, typer.Option(help="Azure's; without it the v1 URLs are used.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Jinja2 template over the data's columns.")] = None,
    prompt_file: Annotated[str | None, typer.Option(help="File with that template.")] = None,
    messages: Annotated[
        str | None, typer.Option(help="Column of the data that holds a list of messages.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt, a template too.")] = None,
    data: Annotated[
        str | None, typer.Option(help="File of rows; request k is made of row k, in turn.")
    ] = None,
    data_format: Annotated[str | None, typer.Option(help="jsonl, csv, tsv, parquet or openai-batch.")] = None,
    max_tokens: Annotated[str | None, typer.Option(help="Longest answer, in tokens.")] = None,
    temperature: Annotated[str | None, typer.Option(help="Sampling temperature.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="Further body field, name=json.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Ask for streamed answers; measure their tokens.")
    ] = False,
    method: Annotated[str | None, typer.Option(help="Plain HTTP: method (GET; POST with a body).")] = None,
    header: Annotated[list[str] | None, typer.Option(help="'K: V'; ${NAME} is a secret variable.")] = None,
    body: Annotated[str | None, typer.Option(help="Plain HTTP: JSON body, a template.")] = None,
    rate: Annotated[
        str | None, typer.Option(help="Open loop: requests a second; --find-max: the first one.")
    ] = None,
    arrival: Annotated[str | None, typer.Option(help="constant, poisson or gamma.")] = None,
    burstiness: Annotated[
        float | None, typer.Option(help="Of gamma: below 1 bursts, above 1 more even.")
    ] = None,
    ramp: Annotated[
        list[str] | None, typer.Option(help="FROM:TO:SECONDS, repeatable; equal rates make a stair.")
    ] = None,
    trace: Annotated[str | None, typer.Option(help="File of moments to replay.")] = None,
    speed: Annotated[float | None, typer.Option(help="Of --trace: 2 is twice as fast.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Closed loop: requests under way at once.")
    ] = None,
    find_max: Annotated[
        bool, typer.Option("--find-max", help="Search the highest rate that meets the SLOs.")
    ] = False,
    duration: Annotated[
        str | None, typer.Option(help="How long to send (30s; of a probe of --find-max 10s).")
    ] = None,
    requests: Annotated[int | None, typer.Option(help="How many to send.")] = None,
    warmup: Annotated[
        str | None, typer.Option(help="From the start; what is intended then is in no figure.")
    ] = None,
    procs: Annotated[str | None, typer.Option(help="Worker processes (default: processors).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the arrivals (0).")] = None,
    timeout: Annotated[str | None, typer.Option(help="How long a request may take (60s).")] = None,
    on_late: Annotated[str | None, typer.Option(help="catchup (default) or drop what is late.")] = None,
    slo: Annotated[
        list[str] | None, typer.Option(help="What requests are to reach: 'ttft.p99<800ms'.")
    ] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option(help="Exit 99: 'error_rate>1%', 'response_time.p99>2s'.")
    ] = None,
    rpm: Annotated[str | None, typer.Option(help="Stay under so many requests a minute.")] = None,
    tpm: Annotated[str | None, typer.Option(help="Stay under so many tokens a minute.")] = None,
    limiter_dir: Annotated[str | None, typer.Option(help="Where this machine's limiters are found.")] = None,
    wire: Annotated[
        str | None, typer.Option(help="What carries requests: lean (default) or aiohttp.")
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the key.")] = None,
    ca_file: Annotated[str | None, typer.Option(help="Certificates of a private authority (PEM).")] = None,
    trust_env: Annotated[
        bool | None, typer.Option("--trust-env", help="Use the environment's proxies.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="File for the results (JSON).")] = None,
    html: Annotated[str | None, typer.Option(help="File for a page with charts.")] = None,
    hlog: Annotated[str | None, typer.Option(help="File for an HdrHistogram log.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The results as one JSON object on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no notes, no report.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress.")] = False,
    selftest: Annotated[
        bool,
        typer.Option("--selftest", help="Try this machine and this program themselves (20 s, loopback)."),
    ] = False,
) -> int:
    """Send by a schedule, and report honestly what the endpoint did, and what this client did."""
    try:
        return _selftest(context.params) if selftest else _test(context.params)
    except KeyboardInterrupt:
        print(f"engine: {_INTERRUPTED}", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except (EngineError, BrokenPipeError):
        raise
    except Exception as error:
        means = "No figures came of it, or they are above; results files that are not there were not written."
        raise InternalFault("engine load", error, means) from error


load_command.__doc__ = f"{load_command.__doc__}\n\n{_EXAMPLES}"


def _selftest(flags: dict[str, Any]) -> int:
    with ended_by_signals(_INTERRUPTED):
        from engine.loadtest.selftest import refuse_flags, run_selftest

        refuse_flags(flags)
    return run_selftest(as_json=flags["as_json"], quiet=flags["quiet"])


def _test(flags: dict[str, Any]) -> int:
    as_json, quiet = flags["as_json"], flags["quiet"]
    with ended_by_signals(_INTERRUPTED):
        from engine.loadtest.command import Outputs, run_load
        from engine.loadtest.live import choose_view
        from engine.loadtest.plan import plan_of

        outputs = Outputs(out=flags["out"] or "", html=flags["html"] or "", hlog=flags["hlog"] or "")
        outputs.check()
        planned = plan_of(flags)
    view = choose_view(quiet=quiet, no_progress=flags["no_progress"])
    return run_load(planned, outputs, view, lambda results: show(results, as_json=as_json, quiet=quiet))


def show(results: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Print the results where they belong. Raises StoreFailure for a standard output that takes nothing."""
    from engine.loadtest.summary import text

    try:
        if as_json:
            print(json.dumps(results), flush=True)
        elif not quiet:
            print(text(results, _columns()), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreFailure(
            f"The {'results' if as_json else 'report'} could not be printed: {error.strerror}. The figures are only in the "
            "files that --out, --html and --hlog name. Make room, or send standard output elsewhere."
        ) from None


def _columns() -> int:
    """The width of the terminal that standard output is; 0 where it is none, or does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    except (OSError, ValueError):
        return 0
