"""The search for the highest rate that an endpoint holds: its probes, when one may stop early, and what they showed.

Rules of this file:
1. Which rate comes next is ``core.search.Search``'s to say; a probe is one open-loop test at a steady rate.
2. A probe passes when every objective holds, the test is VALID, and latency did not go on growing: a queue without
   an end meets any objective for a while. Without objectives: at most ``FAILED_MAX`` of what was intended failed or
   was dropped, and latency did not grow from the first to the last third either.
3. A probe in which the client was the limit shows nothing of the endpoint, and is repeated. Where it is the limit
   every time, the endpoint's limit is above: the search goes no higher, and says so.
4. A search that was interrupted, or whose client broke, ends at once. What had held is kept; its results say that
   it was interrupted, or are INVALID.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from engine.core.errors import UsageError
from engine.core.search import CONFIRMATIONS, RATE_MAX, RATE_MIN, Knee, Search, Why
from engine.core.thresholds import Objective
from engine.loadtest.growth import growing_share, undone_share
from engine.loadtest.reading import Results, results_of
from engine.loadtest.resting import Rest, Trial
from engine.loadtest.watching import BEHIND, FAILED_MAX, Stop, Watch
from engine.loadtest.wording import tried
from engine.observe.sanitise import sanitise

# Of what is asked so much may be left undone. With first come, first served, latency that grows by 20 ms in every
# second means that 2 % of that second's requests were not done in it.
UNDONE_MAX: Final = 0.02
GROWING_MAX: Final = 0.005  # of a growth that is steady; the resolution of a search is ten times that

Prober = Callable[[float, Watch], Awaitable[Trial]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a probe came to, in a word and in a sentence."""

    passed: bool
    why: str
    is_saturated: bool = False
    is_client_limited: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """One try. ``attainment`` is of 1, ``p99_ms`` of the response times; None where there is none.

    ``is_counted``: it decided on its rate; otherwise it was repeated.
    """

    rate: float
    judged: Judged
    attainment: float | None
    p99_ms: float | None
    is_counted: bool = True

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        judged = self.judged
        return {
            "rate": self.rate, "passed": judged.passed, "why": judged.why, "saturated": judged.is_saturated,
            "client_limited": judged.is_client_limited, "counted": self.is_counted, "attainment": self.attainment,
            "response_time_p99_ms": self.p99_ms,
        }  # fmt: skip

    def line(self) -> str:
        """One row of the table."""
        attained = "–" if self.attainment is None else f"{self.attainment:.2%}"
        p99 = "–" if self.p99_ms is None else f"{self.p99_ms:,.1f}"
        return (
            f"{self.rate:>9,.6g} {tried(self.plain()):>8} {attained:>8} {p99:>9}  {self.judged.why}".rstrip()
        )


@dataclass(slots=True)
class Found:
    """What a search came to. ``best``: the results of the last probe at the rate that held, else of the last one.

    ``fault``: what broke in the client, and ended the search; "" for nothing.
    """

    knee: Knee
    probes: list[Probe] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    is_interrupted: bool = False
    fault: str = ""

    @property
    def is_client_limited(self) -> bool:
        """Whether the lowest rate that failed did so because of the client: the endpoint may hold more."""
        rate = self.knee.failed
        tries = [one for one in self.probes if one.rate == rate and one.is_counted and not one.judged.passed]
        return any(one.judged.is_client_limited for one in tries)

    @property
    def is_sure(self) -> bool:
        """Whether the rate was confirmed as often as was asked, and is the endpoint's limit rather than ours."""
        return self.knee.is_sure and not self.is_client_limited

    @property
    def why(self) -> str:
        """Why the search ended."""
        return f"{self.knee.why.value}: {self.fault}" if self.fault else self.knee.why.value

    def is_ended_by(self, trial: Trial) -> bool:
        """Whether nothing can come after this test. Interrupted first: workers may die of what interrupts a search."""
        self.is_interrupted = trial.is_interrupted
        if not self.is_interrupted and trial.faults:
            self.fault = sanitise(trial.faults[0], 200).rstrip(".")
        return self.is_interrupted or bool(self.fault)

    def conclusion(self) -> str:
        """A sentence or two on the rate, and how sure it is."""
        knee = self.knee
        if knee.held is None:
            return f"No rate held{_tried_down_to(knee)}: {self.why}."
        said = f"The highest rate that held is {knee.held:,.6g}/s"
        if knee.failed is not None:
            said += f"; {knee.failed:,.6g}/s did not hold"
        said += f" ({self.why}, {knee.probes} tries). {self.confidence()}"
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
        heading = f"{'rate/s':>9} {'':>8} {'attained':>8} {'p99 ms':>9}  why"
        return "\n".join([heading, *(probe.line() for probe in self.probes), self.conclusion()])

    def to_results(self) -> dict[str, Any]:
        """The results of the best probe, and under ``find_max`` what the search found."""
        knee = self.knee
        found = {
            "rate": knee.held, "failed_rate": knee.failed, "sure": self.is_sure, "confidence": self.confidence(),
            "passes_at_least": self.least_chance(), "why": self.why, "says": self.conclusion(),
            "client_limited": self.is_client_limited, "probes": [probe.plain() for probe in self.probes],
        }  # fmt: skip
        return {**self.best, **self._end(), "find_max": found}

    def _end(self) -> dict[str, Any]:
        """What the best probe's results do not know: they were complete before the search had to end."""
        reasons = self.best.get("reasons", [])
        if self.is_interrupted and not self.best.get("interrupted"):
            told = "The search was interrupted: the figures are those of a try that was complete."
            return {"interrupted": True, "reasons": [*reasons, told]}
        if self.fault:
            told = f"The search could not go on, because {self.why}."
            return {"verdict": "INVALID", "reasons": [told, *reasons]}
        return {}


async def find_max(
    probe: Prober,
    objectives: Sequence[Objective] = (),
    *,
    start: float,
    rate_min: float = RATE_MIN,
    rate_max: float = RATE_MAX,
    confirmations: int = CONFIRMATIONS,
    note: Callable[[str], None] = lambda sentence: None,
    rest: Rest | None = None,
) -> Found:
    """Probe until the knee is found. ``probe(rate, watch)`` sends at that rate and returns what it came to.

    It asks ``watch.stop`` once a second and ends early when that gives a reason. ``note`` is told of each probe.
    ``rest`` is taken after a probe that failed: an endpoint may still be at work on what it was sent.
    A probe of a few requests shows nothing: ``rate_min`` is best what sends a hundred in one (the start, if lower).
    Bounds: ``core.search.PROBES_MAX`` probes. One that was interrupted, or in which the client broke, is the last one
    and decides nothing.
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
        trial = await probe(rate, watch)
        if found.is_ended_by(trial):
            found.best = found.best or trial.results
            break
        read = results_of(trial.results, "The results of a probe")
        judged = judge(read, objectives, watch.stopped)
        is_repeated = judged.is_client_limited and search.repeat(rate)
        if not is_repeated:
            search.tell(rate, judged.passed, judged.is_saturated)
        p99_ms = None if read.response_time_ms is None else read.response_time_ms.p99
        found.probes.append(Probe(rate, judged, read.attainment, p99_ms, is_counted=not is_repeated))
        found.best = trial.results
        note(f"{rate:,.6g}/s {'held' if judged.passed else 'failed'}{': ' if judged.why else ''}{judged.why}")
        if judged.passed:
            held[rate] = trial.results
        if rest is not None:
            rest.learn(rate, trial, judged.passed)
            if not judged.passed and search.next_rate() is not None:
                last = await rest.after(trial)
                if last is not None and found.is_ended_by(last):
                    break
    found.knee = search.result()
    if found.fault:
        found.knee = replace(found.knee, why=Why.WORKER_FAILED)
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
    judged = _judge_objectives(results) if objectives else _judge_losses(results)
    growing = growing_share(results)
    if judged.passed and growing > GROWING_MAX:
        return Judged(
            False, f"latency went on growing: {growing:.1%} of the rate was not done", growing > BEHIND
        )
    return judged


def _judge_losses(results: Results) -> Judged:
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


def _tried_down_to(knee: Knee) -> str:
    return (
        ""
        if knee.failed is None or knee.why in (Why.UNFINISHED, Why.WORKER_FAILED)
        else f", down to {knee.failed:,.6g}/s"
    )
