"""``engine status``: how a run stands, finished, stopped or running.

Rules of this file:
1. Reads only; a running run is not disturbed.
"""

import json
from typing import Annotated

import typer

_EXAMPLES = """Examples:

\b
  engine status labelled.jsonl
  engine status labelled.jsonl.run --json"""


def status_command(
    run: Annotated[str, typer.Argument(help="The output's path, or the state folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> int:
    """Say how a run stands."""
    import msgspec

    from engine.cli.folders import state_folder
    from engine.observe.live import read_live
    from engine.observe.progress import duration, endpoint_line
    from engine.observe.sanitise import sanitise
    from engine.observe.snapshot import EndpointView
    from engine.store import Store

    folder = state_folder(run)
    live = read_live(folder)
    if live is not None:
        live.pop("control", None)  # it is for engine ctl, and holds a token
    with Store.view(folder) as store:
        counts = store.counts()
        state = "running" if live else ("finished" if store.is_finished() else "stopped")
        total, in_doubt = store.total_rows(), store.in_doubt_total()
    status = {
        "state": state,
        "folder": str(folder),
        "rows": total,
        "ok": counts.ok,
        "failed": sum(counts.failed.values()),
        "failures": dict(counts.failed),
        "attempts": counts.attempts,
        "tokens_in": counts.tokens_in,
        "tokens_out": counts.tokens_out,
        "in_doubt": in_doubt,
        "live": live,
    }
    if as_json:
        print(json.dumps(status))
        return 0
    of = f" of {total:,}" if total is not None else ""
    print(f"{state}: {counts.rows:,}{of} rows done, {counts.ok:,} ok, {status['failed']:,} failed")
    for kind, number in sorted(counts.failed.items(), key=lambda item: -item[1]):
        print(f"  {number:,} × {sanitise(kind)}")
    print(
        f"{counts.attempts:,} requests for them, tokens: {counts.tokens_in:,} in, {counts.tokens_out:,} out"
    )
    if in_doubt:
        print(f"in doubt: {in_doubt:,} rows were under way at an interruption; some may be billed twice")
    if live:
        print(
            f"{live['rows_per_s']:,.0f} rows/s, {live['in_flight']:,} in flight, {live['throttled']:,} throttled, "
            f"p50 {live['latency_ms_p50']:,.0f} ms, p99 {live['latency_ms_p99']:,.0f} ms, eta {duration(live['eta_s'])}"
        )
        for endpoint in live["endpoints"]:
            view = msgspec.convert(endpoint, EndpointView)
            print(f"  {sanitise(view.name)}: {endpoint_line(view, ', ')}")
        for worker in live["workers"]:
            print(
                f"  worker {worker['slot']}: pid {worker['pid']}, cpu {worker['cpu_percent']:.0f} %, "
                f"{worker['rss_bytes'] / 1e6:,.0f} MB, {worker['in_flight']} in flight"
            )
    if state == "stopped":
        print("The command that started it goes on with it; engine export writes what is there.")
    return 0


status_command.__doc__ = f"{status_command.__doc__}\n\n{_EXAMPLES}"
