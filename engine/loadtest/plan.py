"""From the flags of ``engine load`` to a plan: what is wrong is refused here, before anything is sent.

Rules of this file:
1. Every refusal is a UsageError with a sentence. Templates are tried on every row of the data.
2. What a load test shares with a run (provider, key, templates, time-outs, certificates) is read as a run reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from engine.coordinator.plan import check_ca_file
from engine.core.errors import RowError, UsageError
from engine.core.measuring import PLAIN, STREAMED
from engine.core.model import names_own_origins
from engine.core.quantities import duration_s, rate_per_s
from engine.core.thresholds import METRICS, parse_slo, parse_threshold
from engine.credentials import Auth
from engine.loadtest.model import LoadPlan, OnLate
from engine.loadtest.traces import read_trace
from engine.providers import make_provider
from engine.schedules import ARRIVALS, length_s
from engine.schedules.base import Schedule
from engine.schedules.profile import Piece, parse_ramp, steady
from engine.settings import load
from engine.source import Source
from engine.worker.load.calls import Calls

REQUESTS_MAX: Final = 10**12
SEED_MAX: Final = 2**63 - 1
PROCS_MAX: Final = 1_024
ROWS_MAX: Final = 100_000
ROWS_BYTES_MAX: Final = 64 * 1024 * 1024
DURATION_S: Final = 30.0  # where neither a duration nor a number of requests is given
PROBE_S: Final = 10.0  # of --find-max, likewise
_DEFAULTS: Final = {"wire": "lean", "timeout": 60.0}
START_RATE: Final = 10.0  # of --find-max
# What settings of a run a load test takes from its own flags of the same name.
_SHARED: Final = (
    "procs", "provider", "base_url", "endpoint", "api_version", "model", "prompt", "prompt_file", "messages", "system",
    "header", "body", "max_tokens", "temperature", "param", "rpm", "tpm", "limiter_dir", "api_key_env", "ca_file",
    "trust_env", "wire",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, the secrets that travel beside it, and from where a search for the highest rate starts (0.0: no search)."""

    plan: LoadPlan
    auth: tuple[Auth, ...]
    search_from: float = 0.0


def plan_of(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Planned:
    """The plan that flags (None: not given) and environment describe. Raises UsageError."""
    _refuse_contradictions(flags)
    loaded = load(_run_flags(flags), environment, _DEFAULTS)
    job = loaded.job
    if job.endpoints:
        raise UsageError("A load test is of one endpoint: leave the table of endpoints out.")
    if job.learn_limits:
        raise UsageError("--rpm and --tpm of a load test are numbers: nothing is learnt from replies.")
    if job.procs > PROCS_MAX:
        raise UsageError(f"--procs {job.procs} are too many: at most {PROCS_MAX:,} can be started.")
    check_ca_file(job.ca_file)
    if flags.get("stream"):
        if job.target.provider == "http":
            raise UsageError("--stream is for models' answers. Give --base-url and --model, or leave it out.")
        job = replace(job, target=replace(job.target, stream=True))
    if flags.get("concurrency"):
        job = replace(job, procs=min(job.procs, flags["concurrency"]))
    rows = _read_rows(job.input, job.input_format, job.limits.row_bytes_max) if flags.get("data") else ()
    plan = LoadPlan(
        job=job,
        rows=rows,
        concurrency=flags.get("concurrency") or 0,
        on_late=OnLate(flags.get("on_late") or OnLate.CATCH_UP),
        is_streamed=job.target.stream,
    )
    _try_rows(plan)
    plan = _timed(plan, flags)
    measured = measured_by(plan)
    plan = replace(
        plan,
        objectives=tuple(parse_slo(text, measured) for text in flags.get("slo") or ()),
        thresholds=tuple(parse_threshold(text, measured) for text in flags.get("fail_if") or ()),
    )
    search_from = 0.0
    if flags.get("find_max"):
        search_from = rate_per_s(flags["rate"], "--rate") if flags.get("rate") else START_RATE
    return Planned(replace(plan, asked=_asked(plan, flags)), loaded.auth, search_from)


def measured_by(plan: LoadPlan) -> tuple[str, ...]:
    """The metrics that a test of this plan has."""
    lacks: set[str] = set()
    if not plan.is_streamed:
        lacks.update(STREAMED)
    if plan.is_plain:
        lacks.add("output_tokens_per_s")
    if plan.schedule is None:
        lacks.add("achieved")  # nothing is asked for in a closed loop
    assert set(PLAIN) <= set(METRICS)
    return tuple(name for name in METRICS if name not in lacks)


def _run_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What ``settings.load`` is to read."""
    given: dict[str, Any] = {name: flags.get(name) for name in _SHARED}
    given["input"], given["input_format"] = flags.get("data") or "-", flags.get("data_format")
    if not flags.get("data"):
        given["input_format"] = "jsonl"
    given["output"], given["output_format"] = "-", "jsonl"
    if flags.get("timeout"):
        given["timeout"] = duration_s(flags["timeout"], "--timeout")
    url = flags.get("url")
    if url is not None:
        given["provider"], given["url"] = "http", url
        given["method"] = flags.get("method") or ("POST" if flags.get("body") is not None else "GET")
    return given


def _refuse_contradictions(flags: Mapping[str, Any]) -> None:
    url = flags.get("url")
    model = [name for name in ("base_url", "model", "provider", "prompt", "prompt_file", "messages", "system")
             if flags.get(name) is not None]  # fmt: skip
    if url is None and not model:
        raise UsageError(
            "There is nothing to send to. Give a URL (engine load http://127.0.0.1:8000/ --rate 10), or an LLM endpoint "
            "(engine load --base-url URL --model M --prompt TEXT --rate 10)."
        )
    if url is not None and model:
        raise UsageError(
            f"A URL is for plain HTTP, --{model[0].replace('_', '-')} for a model: give one of them."
        )
    if url is None and flags.get("method"):
        raise UsageError("--method is for plain HTTP: give it with a URL.")
    if url is not None and (wrong := [n for n in ("max_tokens", "temperature", "param") if flags.get(n)]):
        raise UsageError(
            f"--{wrong[0].replace('_', '-')} is for models. What a URL is sent goes into --body."
        )
    if url is not None and names_own_origins(url):
        raise UsageError(
            "A load test is of one endpoint: write scheme, host and port of its URL out. Rows may fill in the rest."
        )
    if flags.get("on_late") and flags["on_late"] not in tuple(OnLate):
        raise UsageError(f"--on-late {flags['on_late']!r} is not known. Use one of: {', '.join(OnLate)}.")
    if flags.get("burstiness") is not None and flags.get("arrival") != "gamma":
        raise UsageError("--burstiness goes with --arrival gamma.")
    if flags.get("speed") is not None and not flags.get("trace"):
        raise UsageError("--speed goes with --trace.")
    for name, most in (("requests", REQUESTS_MAX), ("seed", SEED_MAX)):
        if flags.get(name) is not None and not 0 <= flags[name] <= most:
            raise UsageError(f"--{name} {flags[name]} must be from 0 to {most}.")
    modes = [name for name in ("rate", "ramp", "trace", "concurrency") if flags.get(name)]
    if flags.get("find_max"):
        wrong = [name for name in modes if name != "rate"]
        if wrong or flags.get("requests"):
            raise UsageError(f"--find-max chooses its own rates: leave --{(wrong or ['requests'])[0]} out.")
        return
    if len(modes) > 1:
        raise UsageError(f"--{modes[0]} and --{modes[1]} exclude each other: give one of them.")
    if not modes:
        raise UsageError(
            "There is no load. Give --rate R (requests a second, open loop), --ramp FROM:TO:SECONDS, --trace FILE, "
            "--concurrency N (closed loop), or --find-max."
        )
    arrival = flags.get("arrival")
    if arrival and modes[0] in ("trace", "concurrency"):
        raise UsageError(f"--arrival does not go with --{modes[0]}.")
    if flags.get("on_late") and modes[0] == "concurrency":
        raise UsageError("--on-late does not go with --concurrency: in a closed loop nothing is late.")


# --- when --------------------------------------------------------------------------------------------------


def _timed(plan: LoadPlan, flags: Mapping[str, Any]) -> LoadPlan:
    """The plan with its schedule, its end and its warm-up."""
    duration = duration_s(flags["duration"], "--duration") if flags.get("duration") else None
    requests = flags.get("requests")
    if requests is not None and requests < 1:
        raise UsageError(f"--requests {requests} are none. Give at least 1.")
    warmup_s = duration_s(flags["warmup"], "--warmup") if flags.get("warmup") else 0.0
    schedule = None if plan.concurrency else _schedule(flags)
    if duration is None and requests is None:
        if flags.get("ramp"):
            assert schedule is not None
            duration = sum(piece.length_s for piece in schedule.pieces)
        elif not flags.get("trace"):
            duration = PROBE_S if flags.get("find_max") else DURATION_S
    if schedule is not None:
        schedule = replace(schedule, duration_s=duration, requests=requests)
    planned_s = duration if schedule is None else length_s(schedule)
    if planned_s == float("inf"):
        raise UsageError(
            f"The ramp never comes to {requests} requests: its last rate is 0. Give --duration too."
        )
    if planned_s is not None and warmup_s and warmup_s >= planned_s:
        raise UsageError(
            f"--warmup {warmup_s:g}s leaves nothing to measure of a test of {planned_s:g} s. Give a shorter one."
        )
    return replace(plan, schedule=schedule, duration_s=duration, requests=requests, warmup_s=warmup_s)


def _schedule(flags: Mapping[str, Any]) -> Schedule:
    seed = flags.get("seed") or 0
    if flags.get("trace"):
        return Schedule(
            "trace",
            offsets_s=read_trace(flags["trace"]),
            speed=1.0 if flags.get("speed") is None else flags["speed"],
            seed=seed,
        )
    arrival = flags.get("arrival") or "constant"
    known = [name for name in ARRIVALS if name != "trace"]
    if arrival not in known:
        raise UsageError(f"--arrival {arrival!r} is not known. Use one of: {', '.join(known)}.")
    pieces: tuple[Piece, ...]
    if flags.get("ramp"):
        pieces = tuple(parse_ramp(text) for text in flags["ramp"])
    elif flags.get("find_max") and not flags.get("rate"):
        pieces = steady(START_RATE)
    else:
        pieces = steady(rate_per_s(flags["rate"], "--rate"))
    burstiness = flags.get("burstiness")
    schedule = Schedule(arrival, pieces, seed, burstiness=1.0 if burstiness is None else burstiness)
    length_s(schedule)  # refuses numbers that its process cannot follow
    return schedule


# --- what ---------------------------------------------------------------------------------------------------


def _read_rows(path: str, format_name: str, row_bytes_max: int) -> tuple[bytes, ...]:
    """The data, in order. Bounds: ROWS_MAX rows, ROWS_BYTES_MAX bytes; what is more is refused, not left out."""
    source = Source(path, format_name, row_bytes_max=row_bytes_max)
    rows, size = [], 0
    try:
        for row in source:
            if row.bad:
                raise UsageError(f"Line {row.line} of {path} cannot be used: {row.bad}. Nothing was sent.")
            size += len(row.payload)
            rows.append(row.payload)
            if len(rows) > ROWS_MAX or size > ROWS_BYTES_MAX:
                raise UsageError(
                    f"{path} has more than {ROWS_MAX:,} rows or {ROWS_BYTES_MAX // 2**20} MB. Requests are made of the data "
                    "in turn, so a part of it serves as well. Nothing was sent."
                )
    finally:
        source.close()
    if not rows:
        raise UsageError(f"The data file {path} has no rows. Nothing was sent.")
    return tuple(rows)


def _try_rows(plan: LoadPlan) -> None:
    """Make every call once. Raises UsageError for the first row of which none can be made."""
    calls = Calls(plan.job, make_provider(plan.job.target), plan.rows)
    if not plan.rows and calls.columns:
        names = ", ".join(map(repr, sorted(calls.columns)))
        raise UsageError(
            f"The template names {names}, and there is no data. Give --data FILE. Nothing was sent."
        )
    for place in range(max(1, len(plan.rows))):
        try:
            calls[place]
        except RowError as error:
            where = f"Row {place + 1} of the data" if plan.rows else "The request"
            raise UsageError(f"{where} cannot be sent: {error.message}. Nothing was sent.") from None


def _without_values(url: str) -> str:
    """A URL without the values of its query: they may be keys.

    >>> _without_values("http://127.0.0.1/a?key=abc&q")
    'http://127.0.0.1/a?key=…&q'
    """
    front, mark, query = url.partition("?")
    names = [
        name + equals + ("…" if equals else "")
        for name, equals, _ in (p.partition("=") for p in query.split("&"))
    ]
    return front + mark + "&".join(names) if not url.startswith("mock:") else url


def _asked(plan: LoadPlan, flags: Mapping[str, Any]) -> dict[str, Any]:
    """What results repeat of the command. No header and no body: they may hold what is nobody's business."""
    target = plan.job.target
    asked: dict[str, Any] = {
        "url": _without_values(flags.get("url") or target.base_url),
        "provider": target.provider,
        "model": target.model,
        "endpoint": "" if plan.is_plain else target.endpoint,
        "method": target.method if plan.is_plain else "POST",
        "stream": plan.is_streamed,
        "max_tokens": target.max_tokens,
        "loop": "closed" if plan.schedule is None else "open",
        "procs": plan.job.procs,
        "wire": plan.job.wire,
        "duration_s": plan.duration_s,
        "requests": plan.requests,
        "warmup_s": plan.warmup_s,
        "timeout_s": plan.job.timeouts.total_s,
        "rpm": plan.job.rpm,
        "tpm": plan.job.tpm,
        "data_rows": len(plan.rows),
    }
    if plan.schedule is None:
        return asked | {"concurrency": plan.concurrency}
    schedule = plan.schedule
    asked |= {"arrival": schedule.arrival, "seed": schedule.seed, "on_late": str(plan.on_late)}
    if schedule.arrival == "gamma":
        asked["burstiness"] = schedule.burstiness
    if schedule.arrival == "trace":
        return asked | {"trace": flags["trace"], "speed": schedule.speed}
    if flags.get("ramp"):
        return asked | {"ramp": list(flags["ramp"])}
    return asked | {"rate": schedule.pieces[0].rate_from_per_s}
