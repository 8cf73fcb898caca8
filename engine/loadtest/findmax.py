"""The search for the highest rate that an endpoint holds: its probes, when one may stop early, and what they showed.

Rules of this file:
1. Which rate comes next is ``core.search.Search``'s to say; a probe is one open-loop test at a steady rate.
2. A probe passes when every objective holds and the test is VALID. Without objectives: at most ``FAILED_MAX`` of
   what was intended failed or was dropped, and latency did not grow from the first to the last third.
3. Where the client was the limit, the endpoint's limit is above: the search goes no higher, and says so.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.core.errors import UsageError
from engine.core.search import CONFIRMATIONS, RATE_MAX, RATE_MIN, Knee, Search, Why
from engine.core.thresholds import Objective
from engine.loadtest.reading import Results, results_of
from engine.loadtest.watching import BEHIND, FAILED_MAX, Stop, Watch
from engine.observe.sanitise import sanitise

# Of what is asked so much may be left undone. With first come, first served, latency that grows by 20 ms in every
# second means that 2 % of that second's requests were not done in it.
UNDONE_MAX: Final = 0.02
GROWN_MIN_MS: Final = 5.0  # less is noise of the client, whatever its slope in a short probe
THIRD_S_MIN: Final = 2

Prober = Callable[[float, Watch], Awaitable[dict[str, Any]]]
Rester = Callable[[bool], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a probe came to, in a word and in a sentence."""

    passed: bool
    why: str
    is_saturated: bool = False
    is_client_limited: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """One try. ``attainment`` is of 1, ``p99_ms`` of the response times; None where there is none."""

    rate: float
    judged: Judged
    attainment: float | None
    p99_ms: float | None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        judged = self.judged
        return {
            "rate": self.rate, "passed": judged.passed, "why": judged.why, "saturated": judged.is_saturated,
            "client_limited": judged.is_client_limited, "attainment": self.attainment,
            "response_time_p99_ms": self.p99_ms,
        }  # fmt: skip

    def line(self) -> str:
        """One row of the table."""
        attained = "–" if self.attainment is None else f"{self.attainment:.2%}"
        p99 = "–" if self.p99_ms is None else f"{self.p99_ms:,.1f}"
        word = "held" if self.judged.passed else "failed"
        return f"{self.rate:>9,.6g} {word:>6} {attained:>8} {p99:>9}  {self.judged.why}".rstrip()


@dataclass(slots=True)
class Found:
    """What a search came to. ``best``: the results of the last probe at the rate that held, else of the last one."""

    knee: Knee
    probes: list[Probe] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    @property
    def is_client_limited(self) -> bool:
        """Whether the lowest rate that failed did so because of the client: the endpoint may hold more."""
        rate = self.knee.failed
        tries = [one.judged for one in self.probes if one.rate == rate and not one.judged.passed]
        return any(judged.is_client_limited for judged in tries)

    @property
    def is_sure(self) -> bool:
        """Whether the rate was confirmed as often as was asked, and is the endpoint's limit rather than ours."""
        return self.knee.is_sure and not self.is_client_limited

    def conclusion(self) -> str:
        """A sentence or two on the rate, and how sure it is."""
        knee = self.knee
        if knee.held is None:
            return f"No rate held{_tried_down_to(knee)}: {knee.why.value}."
        said = f"The highest rate that held is {knee.held:,.6g}/s"
        if knee.failed is not None:
            said += f"; {knee.failed:,.6g}/s did not hold"
        said += f" ({knee.why.value}, {knee.probes} tries). {self.confidence()}"
        if self.is_client_limited:
            said += (
                " The client was the limit: the endpoint may hold more. Use more --procs, or more machines."
            )
        return said

    def confidence(self) -> str:
        """How sure the rate is, in words; see ``core.search.Knee``."""
        least = self.least_chance()
        if least is None:
            return "Nothing is known of a rate that holds."
        passes = self.knee.confirmations + 1
        return (
            f"It held in all of {passes} tries: with 95 % confidence a try there passes more than "
            f"{least:.0%} of the time."
        )

    def least_chance(self) -> float | None:
        """With 95 % confidence a try at the rate that held passes at least this often (a share)."""
        return None if self.knee.held is None else 0.05 ** (1 / (self.knee.confirmations + 1))

    def text(self) -> str:
        """The probes as a table, then the conclusion."""
        heading = f"{'rate/s':>9} {'':>6} {'attained':>8} {'p99 ms':>9}  why"
        return "\n".join([heading, *(probe.line() for probe in self.probes), self.conclusion()])

    def to_results(self) -> dict[str, Any]:
        """The results of the best probe, and under ``find_max`` what the search found."""
        knee = self.knee
        found = {
            "rate": knee.held, "failed_rate": knee.failed, "sure": self.is_sure, "confidence": self.confidence(),
            "passes_at_least": self.least_chance(), "why": knee.why.value, "says": self.conclusion(),
            "client_limited": self.is_client_limited, "probes": [probe.plain() for probe in self.probes],
        }  # fmt: skip
        return {**self.best, "find_max": found}


async def find_max(
    probe: Prober,
    objectives: Sequence[Objective] = (),
    *,
    start: float,
    rate_min: float = RATE_MIN,
    rate_max: float = RATE_MAX,
    confirmations: int = CONFIRMATIONS,
    note: Callable[[str], None] = lambda sentence: None,
    rest: Rester | None = None,
) -> Found:
    """Probe until the knee is found. ``probe(rate, watch)`` sends at that rate and returns its results.

    It asks ``watch.stop`` once a second and ends early when that gives a reason. ``note`` is told of each probe.
    ``rest(saturated)`` is awaited after a probe that failed: an endpoint may still be at work on what it was sent.
    A probe of a few requests shows nothing: ``rate_min`` is best what sends a hundred in one (the start, if lower).
    Bounds: ``core.search.PROBES_MAX`` probes. Results that say ``interrupted`` end the search, unfinished.
    Raises UsageError for a start that is not between the lowest and the highest rate.
    """
    rate_min = min(rate_min, start)
    if not 0 < start <= rate_max < math.inf:
        raise UsageError(
            f"The search starts at {start:g}/s, which is not above 0 and at most {rate_max:g}/s."
        )
    search = Search(start, rate_max=rate_max, rate_min=rate_min, confirmations=confirmations)
    found = Found(search.result())
    held: dict[float, dict[str, Any]] = {}
    while (rate := search.next_rate()) is not None:
        watch = Watch(objectives)
        results = await probe(rate, watch)
        read = results_of(results, "The results of a probe")
        if read.interrupted and watch.stopped is None:
            found.best = found.best or results
            break
        judged = judge(read, objectives, watch.stopped)
        p99_ms = None if read.response_time_ms is None else read.response_time_ms.p99
        found.probes.append(Probe(rate, judged, read.attainment, p99_ms))
        note(f"{rate:,.6g}/s {'held' if judged.passed else 'failed'}{': ' if judged.why else ''}{judged.why}")
        search.tell(rate, judged.passed, judged.is_saturated)
        found.best = results
        if judged.passed:
            held[rate] = results
        elif rest is not None and search.next_rate() is not None:
            await rest(judged.is_saturated)
    found.knee = search.result()
    if found.knee.held is not None:
        found.best = held[found.knee.held]
    return found


def judge(results: Results, objectives: Sequence[Objective], stopped: Stop | None = None) -> Judged:
    """Whether a probe passed, and why not. ``stopped``: it was ended early for that reason."""
    reasons = "; ".join(sanitise(reason, 120).rstrip(".") for reason in results.reasons[:2])
    if results.verdict == "CLIENT-LIMITED":  # whatever else it shows may be the client's doing
        return Judged(
            False, f"the client was the limit ({reasons or 'no reason given'})", is_client_limited=True
        )
    if stopped is not None:
        return Judged(False, stopped.value, is_saturated=stopped is Stop.SATURATED)
    if results.verdict != "VALID":
        return Judged(False, f"not valid ({reasons or 'no reason given'})")
    if objectives:
        return _judge_objectives(results)
    lost = results.failed + results.dropped
    if not results.intended:
        return Judged(False, "nothing was sent")
    if lost > FAILED_MAX * results.intended:
        return Judged(False, f"{lost / results.intended:.1%} failed or were dropped")
    undone = undone_share(results)
    if undone > UNDONE_MAX:
        return Judged(False, f"latency grew: about {undone:.1%} of the rate was not done", undone > BEHIND)
    return Judged(True, "")


def _judge_objectives(results: Results) -> Judged:
    missed = [
        f"{sanitise(one.text, 60)} by {one.attainment or 0.0:.2%}" for one in results.slo if not one.holds
    ]
    if missed:
        return Judged(False, f"met {', '.join(missed)}")
    # Without figures of the objectives nothing shows that they hold.
    return Judged(bool(results.slo), "" if results.slo else "the objectives were not measured")


def undone_share(results: Results) -> float:
    """How far completions fell behind, as a share of the rate, by how latency grew over the probe; 0 for no growth.

    A request that is sent t seconds after another and takes d longer leaves a queue that was worked off at
    t / (t + d) of the rate. The medians of seconds stand for the requests, the first third against the last.
    """
    medians = [
        (place, one.latency_p50_ms)
        for place, one in enumerate(results.series)
        if one.completed and one.latency_p50_ms is not None
    ]
    third = len(medians) // 3
    if third < THIRD_S_MIN:
        return 0.0
    first, last = medians[:third], medians[-third:]
    grown_ms = _middle([value for _, value in last]) - _middle([value for _, value in first])
    between_s = _middle([place for place, _ in last]) - _middle([place for place, _ in first])
    if grown_ms < GROWN_MIN_MS:
        return 0.0
    grown_s = grown_ms / 1000
    return grown_s / (between_s + grown_s)


def _middle(values: Sequence[float]) -> float:
    """The median; robust against one second that stood out."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _tried_down_to(knee: Knee) -> str:
    return "" if knee.failed is None or knee.why is Why.UNFINISHED else f", down to {knee.failed:,.6g}/s"
