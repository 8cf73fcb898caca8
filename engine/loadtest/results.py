"""What a load test reports: one plain object of figures, made of the plan and of what was counted.

Rules of this file:
1. A pure function: the same counts give the same results, however many processes they came from.
2. Plain values only, fit for JSON: what is not known is None, never a number and never not-a-number.
3. Times are milliseconds and only of requests that succeeded, but for the send lag; shares are of 1.

What shares are of: ``error_rate`` is of the requests that were attempted, sent or refused a connection; one that was
dropped was not attempted. ``attainment`` is of all that were intended, so that errors and drops count against it.
``achieved`` is of what the schedule really intended in the window: random arrivals come to more or fewer requests
than their rate says, by chance (Poisson: by the root of their number), and that is no shortcoming of the client's.

What rates are over: ``asked_rate`` (the mean that the schedule was made for) and ``achieved_rate`` are rates of
sending. ``goodput`` and ``output_tokens_per_s`` are of what came back, and take the time in which 99 of 100 replies
had come back too: an endpoint that answers at its leisure after the last request was sent is not credited with the
rate of sending.
"""

import math
from collections.abc import Iterator
from typing import Any

import engine
from engine.core import statistics, thresholds
from engine.core.histogram import QUANTILES, Histogram
from engine.core.measuring import Measures, Second
from engine.core.statistics import Estimate
from engine.loadtest.certainty import Likeness
from engine.loadtest.model import LoadPlan, Tested, WorkerNotes
from engine.loadtest.verdict import judge
from engine.observe import hlog
from engine.schedules.profile import Profile

MANY_PER_REQUEST = ("chunk_gap",)  # figures of which one request has many: they say no more than requests do


def results_of(plan: LoadPlan, tested: Tested) -> dict[str, Any]:
    """The results. Never raises for a test in which nothing happened: its figures are 0 or None."""
    measures, likeness = tested.measures, Likeness(tested.measures.seconds)
    found: dict[str, Any] = {
        "engine": engine.__version__,
        "verdict": "",
        "reasons": [],
        "started_at": tested.started_at,
        "lasted_s": tested.lasted_s,
        "warmup_s": plan.warmup_s,
        "window_s": tested.window_s,
        "interrupted": tested.is_interrupted,
        "test": dict(plan.asked),
        **_rates(plan, tested),
        **_counts(measures, likeness),
        **_times(measures, likeness),
        **_tokens(plan, tested),
        **_attainment(plan, tested, likeness),
        "slo": _objectives(plan, measures, likeness),
        "thresholds": [],
        "series": list(_series(plan, tested)),
        "workers": [_worker(one) for one in tested.notes],
        "histograms": {name: hlog.encoded(one) for name, one in measures.histograms.items()},
    }
    found["thresholds"] = [
        {"text": one.condition.text, "value": one.value, "broken": one.is_broken, "says": one.says}
        for one in thresholds.check(plan.thresholds, found)
    ]
    verdict, found["reasons"] = judge(found, tested.faults)
    found["verdict"] = verdict.value
    return found


def _rates(plan: LoadPlan, tested: Tested) -> dict[str, float | None]:
    """Asked, achieved, and the share of the schedule's own load that was sent; a closed loop asks for no rate."""
    counts, window_s = tested.measures.counts, tested.window_s
    span_s = _sending_s(plan, tested)
    achieved_rate = counts.sent / span_s if span_s > 0 else 0.0
    achieved = None
    if plan.schedule is not None and counts.intended and window_s > 0:
        achieved = min(1.0, achieved_rate * window_s / counts.intended)
    return {"asked_rate": _asked_rate(plan, tested), "achieved_rate": achieved_rate, "achieved": achieved}


def _asked_rate(plan: LoadPlan, tested: Tested) -> float | None:
    """The mean rate that the schedule asks for over the measured window; a recording's is what it holds."""
    schedule, window_s = plan.schedule, tested.window_s
    if schedule is None:
        return None
    if not schedule.pieces:
        return tested.measures.counts.intended / window_s if window_s > 0 else 0.0
    profile = Profile(schedule.pieces)
    if not window_s > 0:
        return profile.rate_at(plan.warmup_s)
    due = profile.expected(plan.warmup_s + window_s) - profile.expected(plan.warmup_s)
    return due / window_s


def _sending_s(plan: LoadPlan, tested: Tested) -> float:
    """How long measured requests were being sent: the window, or longer when the client fell behind."""
    last_s = max((one.last_sent_s for one in tested.notes), default=0.0)
    return max(tested.window_s, last_s - plan.warmup_s, 0.0)


def _replying_s(plan: LoadPlan, tested: Tested) -> float:
    """How long until 99 of 100 replies had come back, at most; a single late one would make a rate meaningless."""
    response_us = tested.measures.histograms["response_time"].quantile_us(0.99) or 0
    end_s = min(tested.lasted_s - plan.warmup_s, tested.window_s + response_us / 1e6)
    return max(_sending_s(plan, tested), end_s)


def _counts(measures: Measures, likeness: Likeness) -> dict[str, Any]:
    counts = measures.counts
    tried = counts.completed + counts.failed
    failing = statistics.share(counts.failed, tried, design_effect=likeness.of_failure())
    return {
        "intended": counts.intended,
        "sent": counts.sent,
        "completed": counts.completed,
        "failed": counts.failed,
        "late": counts.late,
        "dropped": counts.dropped,
        "warm_up": counts.warm_up,
        "errors": dict(sorted(measures.errors.items(), key=lambda item: (-item[1], item[0]))),
        "error_rate": _known(failing.value),
        "error_rate_ci": [failing.low, failing.high],
    }


def _times(measures: Measures, likeness: Likeness) -> dict[str, Any]:
    """All figures of all times, with their intervals at a confidence of ``statistics.CONFIDENCE``."""
    return {
        f"{name}_ms": {
            **one.figures_ms(),
            "count": one.count,
            "ci": _intervals(name, one, measures.counts.completed, likeness),
        }
        for name, one in measures.histograms.items()
    }


def _intervals(name: str, one: Histogram, requests: int, likeness: Likeness) -> dict[str, list[float | None]]:
    count = one.count
    # Pieces of one answer come from one server in one state: at worst, all of them say what one says.
    alike = max(1.0, count / max(1, requests)) if name in MANY_PER_REQUEST else 1.0
    found = {}
    for shown, quantile in QUANTILES.items():
        effect = alike * likeness.of_quantile(name, quantile)
        found[shown] = _ends_ms(one.estimate_us(quantile, design_effect=effect), one)
    effect = alike * likeness.of_mean(name)
    found["mean"] = _ends_ms(statistics.mean(count, one.mean_us(), one.variance(), design_effect=effect), one)
    return found


def _ends_ms(estimate: Estimate, one: Histogram) -> list[float | None]:
    """Both ends in milliseconds; None for one that no sample bounds. A low end of 0 is that of a real 0 only."""
    is_open = estimate.low < 0 or (estimate.low == 0 and one.min_us > 0)
    low = None if is_open or not one.count else estimate.low / 1000
    return [low, None if math.isinf(estimate.high) else estimate.high / 1000]


def _tokens(plan: LoadPlan, tested: Tested) -> dict[str, Any]:
    """As the replies' usage says; None where no reply said anything."""
    counts, replying_s = tested.measures.counts, _replying_s(plan, tested)
    if not counts.counted_tokens:
        return {
            "tokens_in": None, "tokens_out": None, "tokens_counted": 0, "output_tokens_per_s": None,
            "tokens_source": None,
        }  # fmt: skip
    return {
        "tokens_in": counts.tokens_in,
        "tokens_out": counts.tokens_out,
        "tokens_counted": counts.counted_tokens,
        "output_tokens_per_s": counts.tokens_out / replying_s if replying_s > 0 else None,
        "tokens_source": "usage",
    }


def _attainment(plan: LoadPlan, tested: Tested, likeness: Likeness) -> dict[str, Any]:
    """Requests that met every objective; without objectives, those that succeeded."""
    counts, replying_s = tested.measures.counts, _replying_s(plan, tested)
    effects = [likeness.of_bound(one.metric, one.bound_ms) for one in plan.objectives]
    found = statistics.share(
        counts.good, counts.intended, design_effect=max([likeness.of_success(), *effects])
    )
    return {
        "goodput": counts.good / replying_s if replying_s > 0 else 0.0,
        "attainment": _known(found.value),
        "attainment_ci": [found.low, found.high],
    }


def _objectives(plan: LoadPlan, measures: Measures, likeness: Likeness) -> list[dict[str, Any]]:
    """How each objective did. It holds when so large a share was measured; ``low`` and ``high`` say how sure that is."""
    of = measures.counts.intended
    found = []
    for objective, met in zip(plan.objectives, measures.met, strict=True):
        effect = max(likeness.of_success(), likeness.of_bound(objective.metric, objective.bound_ms))
        reached = statistics.share(met, of, design_effect=effect)
        found.append(
            {
                "text": objective.condition.text,
                "metric": objective.metric,
                "bound_ms": objective.bound_ms,
                "share": objective.share,
                "met": met,
                "of": of,
                "attainment": _known(reached.value),
                "low": reached.low,
                "high": reached.high,
                "holds": bool(of) and met >= objective.share * of * (1 - 1e-12),  # 0.999 of 1,000 is 999
            }
        )
    return found


def _series(plan: LoadPlan, tested: Tested) -> Iterator[dict[str, Any]]:
    """Each second of the window, by when requests were intended; empty ones too."""
    seconds = tested.measures.seconds
    end = math.ceil(plan.warmup_s + tested.window_s)
    last = max([end - 1, *seconds])
    for number in range(min([int(plan.warmup_s), *seconds]), last + 1):
        second = seconds.get(number) or Second()
        entry = {
            "second": number,
            "intended": second.intended,
            "sent": second.sent,
            "completed": second.completed,
            "failed": second.failed,
            "dropped": second.dropped,
            **_middle_and_tail("latency", second.latency),
        }
        yield entry | (_middle_and_tail("ttft", second.ttft) if plan.is_streamed else {})


def _middle_and_tail(name: str, one: Histogram) -> dict[str, float | None]:
    p50, p99 = (None if us is None else us / 1000 for us in one.quantiles_us([0.5, 0.99]))
    return {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99}


def _worker(notes: WorkerNotes) -> dict[str, Any]:
    lag = notes.loop_lag.figures_ms()
    return {
        "slot": notes.slot,
        "cpu_share": notes.cpu_s / notes.sending_s if notes.sending_s > 0 else 0.0,
        "cpu_s": notes.cpu_s,
        "sending_s": notes.sending_s,
        "lasted_s": notes.lasted_s,
        "loop_lag_p99_ms": lag["p99"],
        "loop_lag_max_ms": lag["max"],
        "in_flight_peak": notes.in_flight_peak,
        "in_flight_max": notes.in_flight_max,
        "held_back": notes.held_back,
        "quota_waited": notes.quota_waited,
        "cut_off_bytes": notes.cut_off_bytes,
        "last_sent_s": notes.last_sent_s,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
