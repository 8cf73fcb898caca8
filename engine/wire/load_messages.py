"""The messages of a load test: when to send, and what came of it. None of them is about a single request.

Rules of this file:
1. Times are ``time.monotonic``'s, which is one clock for all processes of a machine (Linux, macOS).
2. Figures are sums since the last ones: they may be added in any order, and each counts once.
"""

from typing import NamedTuple

from engine.wire.message import Message


class PieceLine(NamedTuple):
    """A stretch of the schedule; the fields of ``schedules.profile.Piece``."""

    rate_from_per_s: float
    rate_to_per_s: float
    length_s: float


class Begin(Message, frozen=True):
    """Coordinator to load worker: send by the schedule, whose second 0 is ``start``."""

    test: int  # its number, which its figures carry
    start: float
    pieces: list[PieceLine]
    seed: int
    duration_s: float  # 0.0: until the count is reached
    requests: int  # over all workers; 0: until the time is up
    warmup_s: float
    concurrency: int  # of this worker; 0: open loop


class Halt(Message, frozen=True):
    """Coordinator to load worker: send nothing more, and give up what is under way."""

    test: int


class SecondLine(NamedTuple):
    """One second of the test; the fields of ``core.measuring.Second``, histograms as bytes."""

    second: int
    intended: int
    sent: int
    completed: int
    failed: int
    dropped: int
    latency: bytes
    ttft: bytes


class Figures(Message, frozen=True):
    """Load worker to coordinator, about once a second: what was counted since the last ones, and how it itself is."""

    test: int
    is_last: bool
    counts: list[int]
    errors: dict[str, int]
    met: list[int]
    histograms: dict[str, bytes]
    seconds: list[SecondLine]
    loop_lag: bytes
    cpu_s: float  # while it sent, after the warm-up
    sending_s: float  # how long that was
    lasted_s: float  # since the schedule's start
    in_flight: int
    in_flight_peak: int
    in_flight_max: int
    held_back: int
    quota_waited: int
    cut_off_bytes: int
    last_sent_s: float
    last_due_s: float
