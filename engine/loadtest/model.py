"""The nouns of a load test: the plan, what its workers noted of themselves, and what it came to.

Rules of this file:
1. Data only. A plan holds no secret and is complete before the first request: nothing is decided while it runs.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.config import Job
from engine.core.histogram import Histogram
from engine.core.measuring import Measures
from engine.core.thresholds import Condition, Objective
from engine.schedules.base import Schedule


class OnLate(StrEnum):
    """What becomes of a request whose time is past by more than ``core.measuring.LATE_S``."""

    CATCH_UP = "catchup"  # it is sent, and counted as late
    DROP = "drop"  # it is never sent, and counted as dropped


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a load test does. ``job``: where requests go and how; its rows are the data they are made of."""

    job: Job
    rows: tuple[bytes, ...] = ()  # JSON objects; request k is made of row k modulo their number; () for none
    schedule: Schedule | None = None  # open loop; None: closed loop
    concurrency: int = 0  # closed loop: requests under way at once, over all workers
    duration_s: float | None = None
    requests: int | None = None
    warmup_s: float = 0.0  # from the start; requests intended then are in no figure
    on_late: OnLate = OnLate.CATCH_UP
    is_streamed: bool = False
    objectives: tuple[Objective, ...] = ()
    thresholds: tuple[Condition, ...] = ()
    asked: dict[str, Any] = field(
        default_factory=dict
    )  # what results repeat of the command: url, model, rate, …

    @property
    def is_plain(self) -> bool:
        """Whether requests are plain HTTP, whose replies are judged by their status alone."""
        return self.job.target.provider == "http"


@dataclass(slots=True)
class WorkerNotes:
    """What one worker noted of itself: whether it could keep up."""

    slot: int
    cpu_s: float = 0.0  # user and system, while it sent, after the warm-up
    sending_s: float = 0.0  # how long that was
    lasted_s: float = 0.0  # from the start of the schedule to the last request's end
    loop_lag: Histogram = field(
        default_factory=Histogram
    )  # by how much its loop was late, fifty times a second
    in_flight: int = 0  # now
    in_flight_peak: int = 0
    in_flight_max: int = 0  # what open files and ports allow it
    held_back: int = 0  # requests after the warm-up that waited for another one's end, because of that
    quota_waited: int = 0  # likewise: that waited for permits of --rpm or --tpm for longer than LATE_S
    cut_off_bytes: int = 0  # read of streams that went on until their time was up, or the cap was reached
    last_sent_s: float = 0.0  # after the schedule's start
    last_due_s: float = 0.0  # likewise: when the last request was intended that was sent or dropped


@dataclass(slots=True)
class Tested:
    """What a load test came to. All of it is of the time after the warm-up, but ``lasted_s`` and the notes."""

    measures: Measures
    notes: list[WorkerNotes]
    started_at: str  # wall clock, ISO 8601, UTC
    lasted_s: float  # from the schedule's start to the last request's end
    window_s: float  # the time in which measured requests were intended
    is_interrupted: bool = False
    faults: list[str] = field(default_factory=list)  # sentences: workers that died, and so on
