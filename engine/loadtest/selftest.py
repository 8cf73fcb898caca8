"""``engine load --selftest``: whether this program on this machine measures what is there.

Rules of this file:
1. The witness is the mock provider's own log: what a load test reports is held against what the server saw or did.
2. Every check has a bound that is written here, and says its figure whether it holds or not.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import uvloop

from engine.core.errors import ExitCode, UsageError
from engine.loadtest.conduct import conductor
from engine.loadtest.live import SilentView
from engine.loadtest.model import Tested
from engine.loadtest.plan import plan_of
from engine.mock.settings import FaultRule, MockSettings
from engine.mock.spawn import MockProcess

RATE_PER_S: Final = 500
WINDOW_S: Final = 0.02
LATENCY_MS: Final = 100.0
FREEZE_FROM_S: Final = 1.0
FREEZE_TO_S: Final = 2.0
_KNOWN: Final = ("selftest", "as_json", "quiet", "no_progress")


@dataclass(frozen=True, slots=True)
class Check:
    """One of them."""

    name: str
    found: str
    bound: str
    holds: bool


def refuse_flags(flags: Mapping[str, Any]) -> None:
    """Raises UsageError for flags that a self-test would pass over: it is always the same."""
    given = [
        name for name, value in flags.items() if value not in (None, False, [], ()) and name not in _KNOWN
    ]
    if given:
        shown = "a URL" if given[0] == "url" else f"--{given[0].replace('_', '-')}"
        raise UsageError(
            f"--selftest does not go with {shown}: it sends its own requests to a server of its own, and takes --json, "
            "--quiet and --no-progress alone. Nothing was sent."
        )


def run_selftest(*, as_json: bool, quiet: bool) -> ExitCode:
    """Run all checks (about 20 s), print them, and say with the exit code whether they hold (99: not all do).

    ``quiet``: only the exit code tells, and the JSON that was asked for.
    """
    if not quiet:
        print("engine: trying this machine: about 20 seconds, on loopback only", file=sys.stderr, flush=True)
    checks = [*_arrivals(), *_latency(), *_freeze(), *_throughput()]
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}))
    elif not quiet:
        print(table(checks))
    return ExitCode.OK if all(check.holds for check in checks) else ExitCode.THRESHOLD


def table(checks: list[Check]) -> str:
    """The checks as text."""
    widths = [max(len(getattr(check, field)) for check in checks) for field in ("name", "found")]
    lines = [
        f"{'ok    ' if check.holds else 'NOT OK'}  {check.name:{widths[0]}}  {check.found:{widths[1]}}  {check.bound}"
        for check in checks
    ]
    bad = sum(not check.holds for check in checks)
    end = (
        "Load tests from this machine can be trusted at these rates."
        if not bad
        else f"{bad} of {len(checks)} checks do not hold: close what else uses the processor, or test from another machine."
    )
    return "\n".join([*lines, end])


def _test(origin: str, **flags: Any) -> Tested:
    planned = plan_of({"url": f"{origin}/plain", **flags}, {})

    async def run() -> Tested:
        async with conductor(planned.plan, planned.auth, SilentView(quiet=True)) as lead:
            tested = await lead.test(planned.plan)
        if tested.is_interrupted:
            raise KeyboardInterrupt  # a test that was cut short says nothing of this machine
        return tested

    return uvloop.run(run())


def _arrivals() -> list[Check]:
    """What reaches the server, for each kind of arrivals and number of workers."""
    found = []
    with MockProcess(MockSettings(log=True)) as mock:
        for arrival, procs, low, high in (
            ("constant", 2, 0.0, 0.2),
            ("poisson", 1, 0.8, 1.2),
            ("poisson", 4, 0.8, 1.2),
        ):
            mock.reset()
            tested = _test(
                mock.origin, rate=str(RATE_PER_S), arrival=arrival, duration="4s", procs=str(procs)
            )
            arrivals = [record["at_s"] for record in mock.log() if record["path"] == "/plain"]
            value = dispersion(arrivals, WINDOW_S)
            found.append(
                Check(
                    f"{arrival} arrivals at the server, {procs} workers",
                    f"dispersion {value:.2f}",
                    f"from {low:g} to {high:g}",
                    low <= value <= high,
                )
            )
            counts = tested.measures.counts
            found.append(
                Check(
                    "  requests reported and arrived",
                    f"{counts.sent:,} and {len(arrivals):,}",
                    "equal",
                    counts.sent == len(arrivals),
                )
            )
            lag = tested.measures.histograms["send_lag"].quantile_us(0.99) or 0
            found.append(Check("  99% of them sent within", f"{lag / 1000:.2f} ms", "below 2 ms", lag < 2000))
    return found


def dispersion(arrivals_s: list[float], window_s: float) -> float:
    """Variance over mean of the counts in windows: 1 for a Poisson process, 0 for an even one."""
    if not arrivals_s:
        return float("nan")
    start = min(arrivals_s)
    windows = int((max(arrivals_s) - start) / window_s)
    if windows < 2:
        return float("nan")
    counts = [0] * windows
    for at_s in arrivals_s:
        place = int((at_s - start) / window_s)
        if place < windows:
            counts[place] += 1
    mean = sum(counts) / windows
    return sum((count - mean) ** 2 for count in counts) / (windows - 1) / mean


def _latency() -> list[Check]:
    with MockProcess(MockSettings(latency=f"{LATENCY_MS:g}ms")) as mock:
        tested = _test(mock.origin, rate="100", duration="2s", procs="1")
    p50 = (tested.measures.histograms["latency"].quantile_us(0.5) or 0) / 1000
    bound = f"{LATENCY_MS:g} to {LATENCY_MS + 3:g} ms"
    return [Check("a server of 100 ms", f"p50 {p50:.2f} ms", bound, LATENCY_MS <= p50 <= LATENCY_MS + 3)]


def _freeze() -> list[Check]:
    """A server that answers nothing for a while: the schedule goes on, and response times hold the wait."""
    rule = FaultRule("freeze", start_s=FREEZE_FROM_S, end_s=FREEZE_TO_S)
    with MockProcess(MockSettings(faults=(rule,))) as mock:
        tested = _test(mock.origin, rate="200", duration="4s", procs="1")
    value = (tested.measures.histograms["response_time"].quantile_us(0.9) or 0) / 1000
    # A quarter of all requests falls into the freeze and waits for its end: evenly spread from 1 s down to 0. So the tenth
    # of all that waits longest, two fifths of the quarter, waits for 0.6 s and more.
    expected = 1000 * (FREEZE_TO_S - FREEZE_FROM_S) * 0.6
    return [
        Check(
            "a server that stands still for 1 s of 4",
            f"p90 {value:.0f} ms",
            f"{expected:.0f} ms within 5%",
            abs(value - expected) <= 0.05 * expected,
        )
    ]


def _throughput() -> list[Check]:
    with MockProcess(MockSettings()) as mock:
        tested = _test(mock.origin, concurrency=64, duration="3s", procs="1")
    done = tested.measures.counts.completed
    cpu_us = tested.notes[0].cpu_s / max(1, done) * 1e6
    return [
        Check("CPU of a plain request", f"{cpu_us:.0f} us", "below 100 us", cpu_us < 100),
        Check(
            "one worker, as fast as it goes",
            f"{done / tested.lasted_s:,.0f}/s",
            "above 5,000/s",
            done / tested.lasted_s > 5000,
        ),
    ]
