"""The results of a load test as they are read back from a file.

Rules of this file:
1. Whoever wrote the file may be hostile: the size is bounded before anything is unpacked, every field has its type
   and bounds, and a file that is none is refused with a sentence. Fields that are not known here are passed over.
2. What a file does not say is None or empty, never 0.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.core.errors import UsageError
from engine.core.histogram import Histogram
from engine.observe.hlog import decoded
from engine.observe.sanitise import sanitise

BYTES_MAX = 256 * 2**20  # two days of seconds, and more than all histograms take

Count = Annotated[int, Meta(ge=0, le=2**53)]
Size = Annotated[float, Meta(ge=0.0, le=1e15)]  # milliseconds, tokens and rates alike
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Figures(msgspec.Struct, frozen=True):
    """Of one time, in milliseconds. ``ci`` has the ends of the intervals, None where the data bound none."""

    p50: Size | None = None
    p90: Size | None = None
    p95: Size | None = None
    p99: Size | None = None
    p99_9: Size | None = None
    max: Size | None = None
    mean: Size | None = None
    count: Count | None = None
    ci: dict[str, tuple[Size | None, Size | None]] = {}


class Second(msgspec.Struct, frozen=True, gc=False):
    """What was intended within one second of the test."""

    intended: Count = 0
    sent: Count = 0
    completed: Count = 0
    failed: Count = 0
    dropped: Count = 0
    latency_p50_ms: Size | None = None
    latency_p99_ms: Size | None = None
    ttft_p50_ms: Size | None = None
    ttft_p99_ms: Size | None = None


class Slo(msgspec.Struct, frozen=True):
    """One objective; its text is what makes two of them the same. ``attainment`` is of all that was intended."""

    text: str
    attainment: Share | None = None
    holds: bool = False


class FindMax(msgspec.Struct, frozen=True):
    """What a search for the highest rate found, in requests/s."""

    rate: Size | None = None
    failed_rate: Size | None = None
    sure: bool = False


class Results(msgspec.Struct, frozen=True):
    """As much of the results as comparing takes. Those without a default make a file a results file."""

    verdict: Literal["VALID", "CLIENT-LIMITED", "INVALID"]
    sent: Count
    completed: Count
    failed: Count
    achieved_rate: Size
    latency_ms: Figures
    engine: str = ""
    reasons: list[str] = []
    started_at: str = ""
    window_s: Size = 0.0
    interrupted: bool = False
    test: dict[str, Any] = {}
    asked_rate: Size | None = None  # None: a closed loop
    intended: Count = 0
    dropped: Count = 0
    error_rate: Share | None = None
    attainment: Share | None = None
    goodput: Size | None = None
    output_tokens_per_s: Size | None = None
    response_time_ms: Figures | None = None
    ttft_ms: Figures | None = None
    ttft_sched_ms: Figures | None = None
    ttfo_ms: Figures | None = None
    tpot_ms: Figures | None = None
    chunk_gap_ms: Figures | None = None
    stall_ms: Figures | None = None
    tail_ms: Figures | None = None
    slo: list[Slo] = []
    series: list[Second] = []
    histograms: dict[str, str] = {}
    find_max: FindMax | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether the replies were streams, whose first content was timed."""
        return self.ttft_ms is not None

    def figures(self, metric: str) -> Figures | None:
        """Those of a time by its name in ``core.thresholds.METRICS``; None where the test has none."""
        found: Figures | None = getattr(self, f"{metric}_ms")
        return found

    def histogram(self, metric: str) -> Histogram | None:
        """The whole distribution of a time; None where the file has none. Raises UsageError for a damaged one."""
        text = self.histograms.get(metric)
        if text is None:
            return None
        try:
            return decoded(text)
        except ValueError as error:
            raise UsageError(
                f"The histogram of {metric} cannot be read: {sanitise(str(error), 200)}."
            ) from None


_DECODER = msgspec.json.Decoder(Results)


def read_results(data: bytes, name: str) -> Results:
    """The results in a file's bytes, at most ``BYTES_MAX`` of them. ``name`` is what a refusal calls the file.

    Raises UsageError for anything else.
    """
    name = sanitise(name, 200)
    if len(data) > BYTES_MAX:
        raise UsageError(f"{name} is larger than {BYTES_MAX // 2**20} MB, which no results are.")
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = sanitise(str(error), 200)
        raise UsageError(
            f"{name} holds no results of a load test ({why}). engine load --out FILE writes them."
        ) from None


def results_of(results: dict[str, Any], name: str = "The results") -> Results:
    """The same of results that this process has made. Raises UsageError for a dict that is none."""
    try:
        return msgspec.convert(results, Results)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(f"{name} cannot be compared: {sanitise(str(error), 200)}.") from None
