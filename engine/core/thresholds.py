"""Conditions on the results of a load test: ``response_time.p99>2s``, ``error_rate>1%``, ``ttft.p99<800ms``.

Rules of this file:
1. The metrics are one table. Which of them a test measures is the caller's to say; others are refused.
2. A condition is read exactly or refused with a sentence: what is wrong, what is allowed, an example.
3. What was not measured meets no objective and breaks every threshold: silence is no success.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import ge, gt, le, lt
from typing import Any

from engine.core.errors import UsageError
from engine.core.histogram import QUANTILES
from engine.core.quantities import SECONDS, split


class Kind(StrEnum):
    """What a metric's numbers are."""

    TIME = "time"  # milliseconds, with one figure per statistic
    SHARE = "share"  # of 1
    NUMBER = "number"


METRICS: dict[str, Kind] = {
    "latency": Kind.TIME,
    "response_time": Kind.TIME,
    "send_lag": Kind.TIME,
    "ttfb": Kind.TIME,
    "ttft": Kind.TIME,
    "ttft_sched": Kind.TIME,
    "ttfo": Kind.TIME,
    "tpot": Kind.TIME,
    "chunk_gap": Kind.TIME,
    "stall": Kind.TIME,
    "tail": Kind.TIME,
    "error_rate": Kind.SHARE,
    "achieved": Kind.SHARE,
    "attainment": Kind.SHARE,
    "achieved_rate": Kind.NUMBER,
    "goodput": Kind.NUMBER,
    "output_tokens_per_s": Kind.NUMBER,
    "completed": Kind.NUMBER,
    "failed": Kind.NUMBER,
    "late": Kind.NUMBER,
    "dropped": Kind.NUMBER,
}
STATISTICS = (*QUANTILES, "max", "mean")
OPERATORS: dict[str, Callable[[float, float], bool]] = {"<=": le, ">=": ge, "<": lt, ">": gt}
TIME_UNITS = ("us", "ms", "s", "m", "h")
_CONDITION = re.compile(r"\s*([a-z_0-9]+)\s*(?:\.\s*([a-z0-9_.]+?))?\s*(<=|>=|<|>)\s*(.*)", re.ASCII)
_THRESHOLD_EXAMPLE = "response_time.p99>2s or error_rate>1%"
_SLO_EXAMPLE = "ttft.p99<800ms"


@dataclass(frozen=True, slots=True)
class Condition:
    """A metric, perhaps one of its statistics, and a bound in milliseconds, as a share, or as a number."""

    text: str
    metric: str
    statistic: str | None
    operator: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether a value satisfies the comparison as it is written."""
        return OPERATORS[self.operator](value, self.bound)

    def value_in(self, results: Mapping[str, Any]) -> float | None:
        """The figure it is about, from results as they are reported; None when there is none."""
        kind = METRICS[self.metric]
        found = results.get(f"{self.metric}_ms" if kind is Kind.TIME else self.metric)
        if kind is Kind.TIME:
            found = found.get(self.statistic) if isinstance(found, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
            return None
        return float(found)


@dataclass(frozen=True, slots=True)
class Objective:
    """What a service is to reach (an SLO): so large a share of all requests each within a bound.

    ``ttft.p99<800ms`` asks for 99 % of the requests that were attempted, failed and dropped ones included, to
    have a TTFT below 800 ms; ``ttft<800ms`` and ``ttft.max<800ms`` ask it of every one.
    """

    condition: Condition
    share: float

    @property
    def metric(self) -> str:
        return self.condition.metric

    @property
    def bound_ms(self) -> float:
        return self.condition.bound

    def met_by(self, value_ms: float) -> bool:
        """Whether one request is within the bound."""
        return self.condition.holds(value_ms)


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one threshold; ``value`` is None when the test has no such figure."""

    condition: Condition
    value: float | None
    is_broken: bool

    @property
    def says(self) -> str:
        """One clause for the report."""
        if self.value is None:
            return f"{self.condition.text}: nothing was measured, which counts as broken"
        return f"{self.condition.text}: {'broken' if self.is_broken else 'kept'} at {_shown(self)}"


def parse_threshold(text: str, measured: Collection[str] = METRICS) -> Condition:
    """A ``--fail-if`` condition: it breaks the test when it is true. Raises UsageError.

    A time needs a statistic and a unit; a share is written as 1% or 0.01.
    """
    condition = _parsed("--fail-if", text, measured, _THRESHOLD_EXAMPLE)
    if METRICS[condition.metric] is Kind.TIME and condition.statistic is None:
        raise UsageError(
            f"--fail-if {text!r} does not say which figure of {condition.metric}. Add one of "
            f"{', '.join(STATISTICS)}: {condition.metric}.p99>2s."
        )
    return condition


def parse_slo(text: str, measured: Collection[str] = METRICS) -> Objective:
    """An ``--slo`` objective on a time that every request has; it is met when it is true. Raises UsageError."""
    condition = _parsed("--slo", text, measured, _SLO_EXAMPLE)
    if METRICS[condition.metric] is not Kind.TIME:
        times = ", ".join(_of_kind(measured, Kind.TIME))
        raise UsageError(
            f"--slo {text!r}: a single request has no {condition.metric}; use one of {times}. Give it to --fail-if."
        )
    if condition.operator not in ("<", "<="):
        raise UsageError(
            f"--slo {text!r} says what requests are to reach: write < or <=, for example {_SLO_EXAMPLE}."
        )
    if condition.statistic == "mean":
        raise UsageError(
            f"--slo {text!r}: a mean says nothing of single requests. Use a percentile, for example {_SLO_EXAMPLE}."
        )
    return Objective(condition, QUANTILES.get(condition.statistic or "", 1.0))


def check(conditions: Iterable[Condition], results: Mapping[str, Any]) -> list[Finding]:
    """Hold thresholds against results: ``error_rate: 0.02, response_time_ms: {p99: 812.0, …}, …``."""
    findings = []
    for condition in conditions:
        value = condition.value_in(results)
        findings.append(Finding(condition, value, value is None or condition.holds(value)))
    return findings


def _parsed(flag: str, text: str, measured: Collection[str], example: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{flag} {text!r} is not like METRIC.STATISTIC<NUMBER with <, <=, > or >=, for example {example}."
        )
    metric, statistic, operator, number = found.groups()
    kind = METRICS.get(metric)
    if kind is None:
        known = ", ".join(name for name in METRICS if name in measured)
        raise UsageError(f"{flag} {text!r}: there is no metric named {metric!r}. Known: {known}.")
    if metric not in measured:
        known = ", ".join(name for name in METRICS if name in measured)
        raise UsageError(f"{flag} {text!r}: this test does not measure {metric}. It measures {known}.")
    if statistic is not None:
        statistic = statistic.replace(".", "_")
        if kind is not Kind.TIME:
            raise UsageError(
                f"{flag} {text!r}: {metric} is one figure and has no {statistic}. Write {metric}{operator}…"
            )
        if statistic not in STATISTICS:
            raise UsageError(
                f"{flag} {text!r}: there is no statistic {statistic!r}. Known: {', '.join(STATISTICS)}."
            )
    return Condition(text.strip(), metric, statistic, operator, _bound(flag, text, metric, kind, number))


def _bound(flag: str, text: str, metric: str, kind: Kind, number: str) -> float:
    parts = split(number)
    if parts is None:
        raise UsageError(f"{flag} {text!r}: {number!r} is no number. Write it like 800ms, 1% or 20.")
    value, unit = parts
    if kind is Kind.TIME:
        if unit not in TIME_UNITS:
            wrong = f"has no {unit!r}" if unit else "needs a unit"
            raise UsageError(
                f"{flag} {text!r}: {metric} is a time and {wrong}. Write it with {', '.join(TIME_UNITS)}, "
                f"for example 800ms."
            )
        return float(value * SECONDS[unit] * 1000)
    if kind is Kind.SHARE:
        if unit == "%":
            return float(value / 100)
        if unit or value >= 1:  # nobody can tell whether a bare 1 is 1 % or all
            raise UsageError(
                f"{flag} {text!r}: {metric} is a share. Write it as 1% or 0.01, and all of it as 100%."
            )
        return float(value)
    if unit:
        raise UsageError(f"{flag} {text!r}: {metric} is a plain number and has no {unit!r}.")
    return float(value)


def _of_kind(measured: Collection[str], kind: Kind) -> list[str]:
    return [name for name, one in METRICS.items() if one is kind and name in measured]


def _shown(finding: Finding) -> str:
    kind = METRICS[finding.condition.metric]
    value = finding.value or 0.0
    if kind is Kind.TIME:
        return f"{value:,.3f} ms"
    return f"{value:.3%}" if kind is Kind.SHARE else f"{value:,.6g}"
