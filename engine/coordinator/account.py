"""What a run came to: its summary, out of the store's counts and this command's own figures.

Rules of this file:
1. Rows are the store's to count, where there is one; requests, tokens and times are those of this command.
"""

from typing import Any

from engine.coordinator.ended import Ended
from engine.coordinator.plan import Plan
from engine.core.errors import ExitCode
from engine.observe.counts import Counts, EndpointCounts
from engine.observe.metrics import Metrics
from engine.observe.summary import Summary
from engine.store import Store

_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


def summary_of(
    plan: Plan, store: Store | None, metrics: Metrics, ended: Ended, *, began: float, now: float
) -> Summary:
    """The summary of a session that ended without a fault. ``began`` and ``now`` in the metrics' clock."""
    if store is not None:
        counts = store.counts()
        ok, failures = counts.ok, dict(counts.failed)
        in_doubt = store.in_doubt_total() + ended.in_doubt
    else:
        ok, failures = metrics.ok, dict(metrics.failures)
        in_doubt = metrics.doubted + ended.in_doubt
    failed = sum(failures.values())
    first, last = metrics.first_request, metrics.last_request
    rpm, tpm = metrics.used(last)
    # All requests of a short run may end in the same instant: no rate over less than a second.
    working_s = 0.0 if first is None else max(last - first, 1.0)
    code = ended.exit_code if ended.reason else (ExitCode.SOME_FAILED if failed else ExitCode.OK)
    return Summary(
        rows=max(ended.rows_read, ok + failed),
        ok=ok,
        failed=failed,
        open=max(0, ended.rows_read - ok - failed),
        resumed=metrics.resumed_rows,
        in_doubt=in_doubt,
        requests=metrics.requests,
        attempts=metrics.requests,
        retries=metrics.retries,
        throttled=metrics.throttled,
        tokens_in=metrics.tokens_in,
        tokens_out=metrics.tokens_out,
        seconds=round(now - began, 3),
        first_request_s=None if first is None else round(first - began, 3),
        rows_per_s=round((metrics.ok + metrics.failed) / working_s, 1) if working_s else 0.0,
        latency_ms=_latencies(metrics),
        quota={"rpm_used": rpm, "tpm_used": tpm},
        estimate=metrics.estimate,
        endpoints=[_endpoint(counts) for counts in metrics.endpoints],
        failures=failures,
        worker_deaths=ended.deaths,
        extrapolation=_extrapolation(plan, metrics, ended, now - began),
        output="" if plan.job.output == "-" else plan.job.output,
        state=plan.job.state,
        exit_code=int(code),
        stopped=ended.reason,
    )


def _latencies(counts: Counts) -> dict[str, float]:
    if not counts.has_latencies:
        return {}
    return {name: counts.percentile_ms(at) for name, at in _PERCENTILES.items()}


def _endpoint(counts: EndpointCounts) -> dict[str, Any]:
    rpm, tpm = counts.used(counts.last_request)
    return {
        "name": counts.name,
        "requests": counts.requests,
        "ok": counts.ok_replies,
        "retries": counts.retries,
        "throttled": counts.throttled,
        "cooldowns": counts.cooldowns,
        "tokens_in": counts.tokens_in,
        "tokens_out": counts.tokens_out,
        "latency_ms": _latencies(counts),
        "quota": {"rpm_used": rpm, "tpm_used": tpm},
    }


def _extrapolation(
    plan: Plan, metrics: Metrics, ended: Ended, seconds: float
) -> dict[str, int | float] | None:
    """With --rows: what the whole input would take, from the bytes that the rows so far took."""
    done = metrics.ok + metrics.failed
    estimate = plan.source.rows_estimate()
    if plan.job.rows is None or not done or estimate is None:
        return None
    rows = max(ended.rows_read, estimate)
    times = rows / done
    return {
        "rows": rows,
        "seconds": round(seconds * times, 1),
        "tokens_in": int(metrics.tokens_in * times),
        "tokens_out": int(metrics.tokens_out * times),
    }
