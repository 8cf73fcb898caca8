"""Load tests that never ran: what they would have counted, made from few numbers."""

from dataclasses import replace
from random import Random
from typing import Any

from jobs import job

from engine.core.measuring import Measures, Timing
from engine.core.thresholds import parse_slo, parse_threshold
from engine.loadtest.model import LoadPlan, Tested, WorkerNotes
from engine.schedules import Schedule
from engine.schedules.profile import steady

STARTED_AT = "2026-03-01T12:00:00+00:00"


def plan(
    rate: float | None = 100.0, *, slos: tuple[str, ...] = (), fail_if: tuple[str, ...] = (), **changes: Any
) -> LoadPlan:
    """An open loop at a constant rate for ten seconds; with a rate of None a closed one. With changes."""
    made = LoadPlan(
        job=job(),
        schedule=None if rate is None else Schedule("constant", steady(rate), duration_s=10.0),
        concurrency=0 if rate is not None else 8,
        duration_s=10.0,
        objectives=tuple(map(parse_slo, slos)),
        thresholds=tuple(map(parse_threshold, fail_if)),
        asked={"url": "http://127.0.0.1:9/v1", "model": "m", "rate": rate},
    )
    return replace(made, **changes)


def timing(
    at_s: float, *, lag_s: float = 0.0005, latency_s: float = 0.05, tokens_out: int = -1, first_s: float = 0.0
) -> Timing:
    """The stamps of one request; ``first_s``: when its first content came, after sending."""
    intended = 1_000.0 + at_s
    sent = intended + lag_s
    first = sent + first_s if first_s else 0.0
    return Timing(
        intended=intended, sent=sent, first_byte=sent + latency_s / 2, first_content=first, first_answer=first,
        last_content=sent + latency_s, end=sent + latency_s, stall_us=9_000 if first else 0,
        tokens_in=7 if tokens_out >= 0 else -1, tokens_out=tokens_out,
    )  # fmt: skip


def notes(slot: int = 0, **changes: Any) -> WorkerNotes:
    """Of a worker that had little to do."""
    made = WorkerNotes(
        slot,
        cpu_s=1.0,
        sending_s=10.0,
        lasted_s=10.0,
        in_flight_peak=9,
        in_flight_max=5_000,
        last_sent_s=9.99,
    )
    for lag_us in (90, 110, 150):
        made.loop_lag.record(lag_us)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def outcome(measures: Measures, *workers: WorkerNotes, **changes: Any) -> Tested:
    """What a test of ten seconds came to, with changes."""
    made = Tested(measures, list(workers) or [notes()], started_at=STARTED_AT, lasted_s=10.1, window_s=10.0)
    return replace(made, **changes)


def calm(asked: LoadPlan, many: int = 1_000, *, failed: int = 0, error: str = "http_5xx") -> Measures:
    """So many requests, evenly over the plan's ten seconds after the warm-up, of around 50 ms; the last ones fail."""
    measures = Measures(asked.objectives, is_streamed=asked.is_streamed)
    draw = Random(5)
    for index in range(many):
        at_s = asked.warmup_s + index * 10.0 / many
        latency_s = draw.lognormvariate(-3, 0.3)
        stamps = (
            timing(at_s, latency_s=latency_s, first_s=latency_s / 4, tokens_out=20)
            if asked.is_streamed
            else timing(at_s, latency_s=latency_s)
        )
        is_failure = index >= many - failed
        measures.ended(stamps, at_s, error if is_failure else "")
        if asked.is_streamed and not is_failure:
            for _ in range(19):
                measures.gaps([round(latency_s / 26 * 1e6)])
    return measures
