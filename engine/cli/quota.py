"""``engine quota``: the quotas that runs on this machine share at this moment.

Rules of this file:
1. Asks the limiters themselves; a limiter that does not answer is shown as such.
"""

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engine.core.quota import Rates
    from engine.limiter.registry import Entry, Info
    from engine.wire.messages import Report

ANSWER_MAX_S = 1.0
_WHAT = ("requests", "tokens", "input tokens", "output tokens")
_EXAMPLES = """Examples:

\b
  engine quota
  engine quota --json"""


def quota_command(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
    limiter_dir: Annotated[
        str,
        typer.Option(envvar="ENGINE_LIMITER_DIR", help="Where the limiters are found, if not where usual."),
    ] = "",
) -> int:
    """List the live limiters: limits, use, runs attached, pauses, waiting."""
    from engine.limiter.registry import Registry, default_folder

    entries = Registry(limiter_dir or default_folder()).entries()
    alive = [
        (entry, info) for entry in entries if (info := entry.info()) is not None and entry.is_alive(info)
    ]
    reports = asyncio.run(_ask_all(alive))
    if as_json:
        print(json.dumps([_plain(info, report) for (_, info), report in zip(alive, reports, strict=True)]))
        return 0
    if not alive:
        print("No quota is in use on this machine.")
    for (_, info), report in zip(alive, reports, strict=True):
        print("\n".join(_lines(info, report)))
    return 0


async def _ask_all(alive: "list[tuple[Entry, Info]]") -> "list[Report | None]":
    from engine.wire.asking import ask
    from engine.wire.messages import Inspect, Report

    return await asyncio.gather(
        *(ask(entry.socket, Inspect(entry.token), Report, within_s=ANSWER_MAX_S) for entry, _ in alive)
    )


def _plain(info: "Info", report: "Report | None") -> dict[str, object]:
    """One quota as JSON; limits that do not exist are null."""
    if report is None:
        return {"origin": info.origin, "model": info.model, "pid": info.pid, "answers": False}
    return {
        "origin": report.origin,
        "model": report.model,
        "pid": report.pid,
        "answers": True,
        "uptime_s": round(report.uptime_s, 1),
        "rpm": report.limits.rpm or None,
        "tpm": report.limits.tpm or None,
        "limits": _named(report.limits),
        "endpoint_says": _named(report.endpoint),
        "requests_in_last_minute": report.used.rpm,
        "tokens_in_last_minute": report.used.tpm,
        "used_in_last_minute": report.used._asdict(),
        "waiting": report.waiting,
        "paused_s": round(report.paused_s, 1),
        "pauses": report.pauses,
        "runs": [{**run._asdict(), "declared": _named(run.declared)} for run in report.runs],
    }


def _named(limits: "Rates") -> dict[str, int | None]:
    return {name: limit or None for name, limit in limits._asdict().items()}


def _lines(info: "Info", report: "Report | None") -> list[str]:
    from engine.core.quota import RATE_NAMES
    from engine.observe.progress import duration
    from engine.observe.sanitise import sanitise

    name = sanitise(f"{info.origin} {info.model}".strip())
    if report is None:
        return [f"{name}: its limiter (process {info.pid}) does not answer within {ANSWER_MAX_S:g} s"]
    lines = [
        f"{name}: limiter process {report.pid}, up {duration(report.uptime_s)}",
        *(
            f"  {what + ':':14}{_use(used, limit)}"
            for what, used, limit in zip(_WHAT, report.used, report.limits, strict=True)
            if limit or (used and what in _WHAT[:2])
        ),
        f"  waiting:      {report.waiting:,} calls; pauses so far: {report.pauses:,}"
        + (f", paused for another {report.paused_s:.1f} s" if report.paused_s else ""),
    ]
    for run in report.runs:
        declares = [
            f"{limit:,} {unit}"
            for limit, unit in zip(run.declared, RATE_NAMES.values(), strict=True)
            if limit
        ]
        lines.append(
            f"  {sanitise(run.label)}: declares {' and '.join(declares) or 'no limit'}, share {run.share:g}, "
            f"{run.workers} workers, {run.waiting:,} calls waiting, {run.granted_requests:,} granted"
        )
    return lines


def _use(used: int, limit: int) -> str:
    if not limit:
        return f"{used:,} in the last minute, no limit"
    return f"{used:,} of {limit:,} in the last minute ({used / limit:.1%})"


quota_command.__doc__ = f"{quota_command.__doc__}\n\n{_EXAMPLES}"
