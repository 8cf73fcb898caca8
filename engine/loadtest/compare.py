"""Two load tests side by side: what got better, what got worse, what stayed, and what cannot be told.

Rules of this file:
1. Pure: results in, findings out. A verdict is ``core.statistics.change_of`` on a difference with its interval.
2. Nothing is concluded from a test that is not VALID, and nothing is compared that means two different things:
   throughput that was asked for differently, or attainment of different objectives. What was left out is said.
3. What matters is a share of the baseline's figure. Shares themselves are held against the smaller of themselves
   and their rest, so that 99 % attained and 1 % failed are equally delicate, but never finer than ``SHARE_MATTERS``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from engine.core.statistics import (
    Better,
    Change,
    Estimate,
    change_of,
    difference,
    difference_of_means,
)
from engine.loadtest.evidence import Evidence
from engine.loadtest.reading import Results
from engine.observe.sanitise import sanitise

MATTERS: Final = 0.05
# Some twenty figures are looked at, and any of them can fail a build: at 0.95 one comparison in ten of two equal tests
# found something worse (queues of Poisson arrivals, simulated), at 0.99 one in forty.
CONFIDENCE: Final = 0.99
SHARE_MATTERS: Final = 0.001  # a tenth of a percentage point
TIME_MATTERS_MS: Final = 0.01  # what is smaller is the client's own
ALIKE: Final = 0.01  # asked rates that differ by less are the same
MS, PER_S, SHARE = "ms", "/s", "share"
_TAILS: Final = ("p50", "p95", "p99")
# Which figures are compared. Not send_lag: it is the client's.
TIMES: Final[dict[str, tuple[str, ...]]] = {
    "latency": (*_TAILS, "mean"),
    "response_time": _TAILS,
    "ttft": _TAILS,
    "ttft_sched": _TAILS,
    "tpot": _TAILS,
    "chunk_gap": ("p99",),
    "stall": ("p99",),
}
RATES: Final = ("achieved_rate", "goodput", "output_tokens_per_s")
KEYS_MAX, NAMES_MAX = 1_000, 4


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of both. ``found`` is new minus old; all but ``change`` are in the unit."""

    name: str  # like ``latency.p99``
    unit: str
    old: float
    new: float
    found: Estimate
    matters: float
    better: Better
    change: Change

    @property
    def scale(self) -> float:
        """What differences are shown as parts of: a share of 1, anything else of the baseline; 0 without one."""
        return 1.0 if self.unit == SHARE else self.old

    def plain(self) -> dict[str, Any]:
        """For JSON; null for an end that is open."""
        low, high, value = (_finite(number) for number in (self.found.low, self.found.high, self.found.value))
        relative = _finite(self.found.value / self.old) if self.old else None
        return {
            "metric": self.name, "unit": self.unit, "old": self.old, "new": self.new, "difference": value,
            "relative": relative, "low": low, "high": high, "matters": self.matters,
            "better": self.better.value, "change": self.change.value,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test against the baseline. ``doubts``: why nothing can be concluded; ``notes``: what else to know."""

    name: str
    lines: tuple[Line, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_concluded(self) -> bool:
        """Whether both tests are fit to be compared."""
        return not self.doubts

    def of(self, change: Change) -> list[Line]:
        """The lines with this verdict."""
        return [line for line in self.lines if line.change is change]

    @property
    def is_worse(self) -> bool:
        """Whether any metric is worse."""
        return bool(self.of(Change.WORSE))

    def conclusion(self) -> str:
        """One sentence, without a name."""
        if self.doubts:
            return "nothing can be concluded: " + "; ".join(self.doubts)
        parts = []
        for change in (Change.WORSE, Change.BETTER):
            lines = self.of(change)
            if lines:
                more = f" and {len(lines) - NAMES_MAX} more" if len(lines) > NAMES_MAX else ""
                parts.append(
                    f"{len(lines)} {change.value} ({', '.join(line.name for line in lines[:NAMES_MAX])}{more})"
                )
        parts += [
            f"{many} {change.value}"
            for change in (Change.NONE, Change.UNKNOWN)
            if (many := len(self.of(change)))
        ]
        return ", ".join(parts) or "the two have no metric in common"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": self.name, "concluded": self.is_concluded, "worse": self.is_worse,
            "conclusion": self.conclusion(), "doubts": list(self.doubts), "notes": list(self.notes),
            "metrics": [line.plain() for line in self.lines],
        }  # fmt: skip


def compare(
    old: Results, new: Results, *, name: str = "", matters: float = MATTERS, confidence: float = CONFIDENCE
) -> Comparison:
    """Hold a test against a baseline. ``matters``: the smallest relative change that counts, from 0 on.

    Raises UsageError for histograms that cannot be read.
    """
    doubts = tuple(_doubts("the baseline", old) + _doubts("the other", new))
    lines = []
    for metric, unit, better, was, now, found in _differences(
        Evidence(old, confidence), Evidence(new, confidence)
    ):
        least = _least(was, unit, matters)
        change = Change.UNKNOWN if doubts else change_of(found, better, least)
        lines.append(Line(metric, unit, was, now, found, least, better, change))
    return Comparison(name, tuple(lines), doubts, tuple(_notes(old, new)))


def _differences(old: Evidence, new: Evidence) -> Iterator[tuple[str, str, Better, float, float, Estimate]]:
    """(name, unit, which way is better, both figures, their difference) of all that both have."""
    for metric, statistics in TIMES.items():
        for statistic in statistics:
            name = f"{metric}.{statistic}"
            if statistic == "mean":
                ours, theirs = old.mean(metric), new.mean(metric)
                if ours is not None and theirs is not None:
                    found = difference_of_means(theirs, ours, old.confidence)
                    yield name, MS, Better.LOWER, ours.mean, theirs.mean, found
                continue
            before, after = old.quantile(metric, statistic), new.quantile(metric, statistic)
            if before is not None and after is not None:
                yield name, MS, Better.LOWER, before.value, after.value, difference(after, before)
    others = [("error_rate", SHARE, Better.LOWER)]
    if _same_objectives(old.results, new.results):
        others.append(("attainment", SHARE, Better.HIGHER))
    if _asked_alike(old.results, new.results):
        is_alike = _same_objectives(old.results, new.results)
        others += [(name, PER_S, Better.HIGHER) for name in RATES if is_alike or name != "goodput"]
    others.append(("highest_rate", PER_S, Better.HIGHER))
    for name, unit, better in others:
        before, after = getattr(old, name)(), getattr(new, name)()
        if before is not None and after is not None:
            yield name, unit, better, before.value, after.value, difference(after, before)


def _least(old: float, unit: str, matters: float) -> float:
    """The smallest difference that counts, in the unit."""
    if unit == SHARE:
        return max(matters * min(old, 1 - old), SHARE_MATTERS)
    return max(matters * old, TIME_MATTERS_MS if unit == MS else 0.0)


def _doubts(which: str, results: Results) -> list[str]:
    if results.verdict == "VALID":
        return []
    reasons = " ".join(sanitise(reason, 200) for reason in results.reasons[:3])
    return [f"{which} is {results.verdict}" + (f" ({reasons.rstrip('.')})" if reasons else "")]


def _notes(old: Results, new: Results) -> Iterator[str]:
    for which, results in (("The baseline", old), ("The other", new)):
        if results.interrupted:
            yield f"{which} was interrupted: it is shorter than was asked."
    if old.is_streamed != new.is_streamed:
        which = "other" if old.is_streamed else "baseline"
        yield f"The {which} was not streamed: only what both have is compared, no first or single tokens."
    if not _asked_alike(old, new):
        yield (
            f"Asked for were {_asked(old)} and {_asked(new)}: throughput is not compared, and times are those "
            "under another load."
        )
    if not _same_objectives(old, new):
        yield "The objectives differ: attainment and goodput are not compared."
    keys = sorted((old.test.keys() | new.test.keys()) - {"rate"})[:KEYS_MAX]
    differ = [sanitise(key, 40) for key in keys if old.test.get(key) != new.test.get(key)]
    if differ:
        more = f" and {len(differ) - NAMES_MAX} more" if len(differ) > NAMES_MAX else ""
        yield f"What was asked for differs in {', '.join(differ[:NAMES_MAX])}{more}."


def _asked(results: Results) -> str:
    rate = results.asked_rate
    return "a closed loop" if rate is None else f"{rate:,.6g}/s"


def _asked_alike(old: Results, new: Results) -> bool:
    """Whether throughput means the same in both."""
    if old.asked_rate is None or new.asked_rate is None:
        return old.asked_rate is new.asked_rate
    return abs(new.asked_rate - old.asked_rate) <= ALIKE * old.asked_rate


def _same_objectives(old: Results, new: Results) -> bool:
    return {one.text for one in old.slo} == {one.text for one in new.slo}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
