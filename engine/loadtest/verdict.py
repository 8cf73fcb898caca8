"""Whether a load test's figures are of the endpoint: the client judges itself before anybody judges the server.

Rules of this file:
1. Three verdicts. INVALID: there is nothing to go by. CLIENT-LIMITED: the client, or a limit it was given, bent
   the figures. VALID: neither. Whatever the endpoint does wrong leaves a test VALID: that is what it measures.
2. Every reason is a sentence with the figure, the bound and what to do about it. More processes are no help against
   streams without an end: where those kept the client busy, that is said instead.
3. A test that is not VALID passes no threshold.

A bound on lateness is the larger of ``LATE_MS`` and a tenth of the median latency: what is added to a tenth of the
median at the 99th percentile is less than what two tests of one endpoint differ by, and a tenth of a fast reply is
less than what an idle machine's timers are late by.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from engine.core.errors import ExitCode
from engine.core.measuring import LATE_S
from engine.loadtest.wording import ms, number, rate, share

LATE_MS: Final = LATE_S * 1000
LATE_SHARE_OF_LATENCY: Final = 0.1
ACHIEVED_MIN: Final = 0.99  # what is missing of the asked load would be more than one request in a hundred
DROPPED_MAX: Final = (
    0.001  # what was never sent is in no percentile, and would have been among the slowest: p99.9
)
CPU_SHARE_MAX: Final = (
    0.9  # beyond, requests queue for the core: at 0.9 the mean wait is nine times the work (M/M/1)
)
ENDLESS_BYTES_PER_S: Final = (
    2**20
)  # read by a worker of streams that were cut off; reading 20 MB/s takes a whole core
WAITED_MAX: Final = 0.01  # the share that the p99 of the send lag leaves out


class Verdict(StrEnum):
    """The value is what stands in the results."""

    VALID = "VALID"
    CLIENT_LIMITED = "CLIENT-LIMITED"
    INVALID = "INVALID"


def judge(results: Mapping[str, Any], faults: Sequence[str] = ()) -> tuple[Verdict, list[str]]:
    """The verdict on a test and its reasons; VALID has one only when the test was interrupted.

    ``results``: all figures, as ``results.results_of`` makes them; ``asked_rate`` None means a closed loop.
    ``faults``: sentences on what broke in the client, worker processes that died for example.
    """
    told = [_interruption(results)] if results["interrupted"] else []
    unusable = [*faults, *_nothing_to_go_by(results)]
    limits = list(_limits(results))
    if unusable:
        return Verdict.INVALID, unusable + limits + told
    return (Verdict.CLIENT_LIMITED if limits else Verdict.VALID), limits + told


def exit_code_of(results: Mapping[str, Any]) -> ExitCode:
    """How ``engine load`` ends: interrupted; a threshold broken, or set on a test that is not VALID; else well."""
    if results["interrupted"]:
        return ExitCode.INTERRUPTED
    thresholds = results["thresholds"]
    if thresholds and (results["verdict"] != Verdict.VALID or any(one["broken"] for one in thresholds)):
        return ExitCode.THRESHOLD
    return ExitCode.OK


def _nothing_to_go_by(results: Mapping[str, Any]) -> Iterator[str]:
    if not results["intended"]:
        after = f" after the warm-up's {number(results['warm_up'])}" if results["warm_up"] else ""
        yield f"No request was due{after}: nothing was measured. Let the test last longer, or raise the rate."
    elif not results["sent"]:
        kinds = ", ".join(f"{kind} {number(many)}" for kind, many in results["errors"].items())
        why = f" ({kinds})" if kinds else ""
        yield f"None of {number(results['intended'])} requests could be sent{why}: the endpoint was not measured."
    elif not results["completed"] and not results["failed"]:
        yield f"Of {number(results['sent'])} requests sent none came to an end: nothing was measured."


def _limits(results: Mapping[str, Any]) -> Iterator[str]:
    """Why the figures are not only the endpoint's."""
    yield from _unsent(results)
    yield from _held(results)
    late_ms = _late_ms(results)
    lag_ms = results["send_lag_ms"]["p99"]
    if lag_ms is not None and lag_ms > late_ms:
        yield (
            f"One request in a hundred was sent {ms(lag_ms)} ms or more after its time; at most {ms(late_ms)} ms "
            f"keeps the figures the endpoint's. {_remedy(results, 'Use more --procs, or a lower rate.')}"
        )
    for worker in results["workers"]:
        yield from _strain(results, worker, late_ms)
    internal = results["errors"].get("client_internal", 0)
    if internal:
        yield (
            f"{_requests(internal)} failed inside the client (client_internal), which is no fault of the endpoint's "
            "and yet in its error rate."
        )


def _unsent(results: Mapping[str, Any]) -> Iterator[str]:
    """The schedule was not kept. Requests that an endpoint would not let in were tried, and count as kept."""
    kept = _kept(results)
    if kept is not None and kept < ACHIEVED_MIN and _is_behind(results):
        asked = results["intended"] / results["window_s"]
        yield (
            f"Only {share(kept)} of the asked rate was achieved: {rate(asked * kept)} of {rate(asked)} requests/s, "
            f"and {share(ACHIEVED_MIN)} is the least. "
            f"{_remedy(results, 'Use more --procs or a larger machine, or ask for less.')}"
        )
    dropped, intended = results["dropped"], results["intended"]
    if dropped > DROPPED_MAX * intended:
        were = "was" if dropped == 1 else "were"
        yield (
            f"{_requests(dropped)} of {number(intended)} ({share(dropped / intended)}) {were} dropped: late, or not sent when "
            "the time was up. No percentile holds what was dropped."
        )


def _kept(results: Mapping[str, Any]) -> float | None:
    """The share of the asked rate at which requests were sent or, unsent, refused by the endpoint."""
    achieved, sent = results["achieved"], results["sent"]
    if achieved is None or not sent:
        return None
    tried = results["completed"] + results["failed"]
    return float(min(1.0, achieved * max(1.0, tried / sent)))


def _is_behind(results: Mapping[str, Any]) -> bool:
    """Whether requests were left out or the last one was late; in a test of milliseconds any timer spoils a rate."""
    tried = results["completed"] + results["failed"]
    last_s = max((worker["last_sent_s"] for worker in results["workers"]), default=0.0)
    end_s = results["warmup_s"] + results["window_s"]
    return bool(tried < ACHIEVED_MIN * results["intended"] or last_s > end_s + LATE_S)


def _held(results: Mapping[str, Any]) -> Iterator[str]:
    held = sum(worker["held_back"] for worker in results["workers"])
    if held:
        most = sum(worker["in_flight_max"] for worker in results["workers"])
        yield (
            f"{_requests(held)} waited for another one's end, because open files and ports allow only {number(most)} "
            "at once. Raise the limit (ulimit -n), or ask for less."
        )
    waited = sum(worker["quota_waited"] for worker in results["workers"])
    if waited > WAITED_MAX * max(1, results["intended"]):
        yield (
            f"{_requests(waited)} waited for permits of --rpm or --tpm for longer than {ms(LATE_MS)} ms: the figures "
            "are the quota's, not the endpoint's. Ask for a rate below the quota."
        )


def _strain(results: Mapping[str, Any], worker: Mapping[str, Any], late_ms: float) -> Iterator[str]:
    lag_ms = worker["loop_lag_p99_ms"]
    if lag_ms is not None and lag_ms > late_ms:
        yield (
            f"Worker {worker['slot']} noticed replies late: its loop lagged by {ms(lag_ms)} ms at the 99th percentile, "
            f"and {ms(late_ms)} ms is the most. "
            f"{_remedy(results, 'Something else uses the processor, or more --procs are needed.')}"
        )
    if worker["cpu_share"] > CPU_SHARE_MAX:
        yield (
            f"Worker {worker['slot']} used {share(worker['cpu_share'])} of a core, and {share(CPU_SHARE_MAX)} is the "
            f"most: requests waited for the client. {_remedy(results, 'Use more --procs, or ask for less.')}"
        )


def _remedy(results: Mapping[str, Any], usual: str) -> str:
    """What to do about a client that is too busy: the usual, unless it read streams that never ended by themselves."""
    busiest = max(
        (worker["cut_off_bytes"] / max(worker["lasted_s"], 0.1) for worker in results["workers"]), default=0.0
    )
    if busiest <= ENDLESS_BYTES_PER_S:
        return usual
    return (
        f"A worker was busy reading streams without an end ({busiest / 2**20:,.0f} MB/s, see the errors): mend the endpoint, "
        "or give a shorter --timeout."
    )


def _late_ms(results: Mapping[str, Any]) -> float:
    median_ms = results["latency_ms"]["p50"]
    return max(LATE_MS, LATE_SHARE_OF_LATENCY * (median_ms or 0.0))


def _interruption(results: Mapping[str, Any]) -> str:
    cancelled = results["errors"].get("cancelled", 0)
    more = f", and {_requests(cancelled)} cancelled then count as failed" if cancelled else ""
    return f"The test was interrupted: the figures are of {results['window_s']:,.1f} s{more}."


def _requests(many: int) -> str:
    return f"{number(many)} request{'s' if many != 1 else ''}"
