"""A server that refuses everything for a while: all workers pause as one, and come back gently."""

from pathlib import Path
from typing import Any

import pytest
from runs import Run, ask_flags, write_rows

from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow

RATE = 200.0  # a second
STORM_S = (1.5, 4.5)


def stormy(folder: Path, fault: str, rows: int) -> tuple[dict[str, Any], list[float], list[int]]:
    """The summary of a run through a storm, and the server's own log: times from the first request, statuses."""
    source, output = write_rows(folder / "in.jsonl", rows), folder / "out.jsonl"
    settings = MockSettings(latency="50ms", log=True, faults=(parse_fault(fault),))
    with MockProcess(settings) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "3", "--rpm", str(int(RATE * 60)))
        summary = Run(*flags).summary()
        log = mock.log()
    first = log[0]["at_s"]
    return summary, [record["at_s"] - first for record in log], [record["status"] for record in log]


def rate_between(times: list[float], start_s: float, end_s: float) -> float:
    return sum(start_s <= time < end_s for time in times) / (end_s - start_s)


@pytest.mark.parametrize("wait", ["", ",retry_after=none"])
def test_after_a_storm_the_rate_is_back_within_five_seconds_and_hardly_a_call_was_in_vain(
    tmp_path: Path, wait: str
) -> None:
    start_s, end_s = STORM_S
    rows = 1700
    summary, times, statuses = stormy(tmp_path, f"storm,start_s={start_s},end_s={end_s}{wait}", rows)
    assert (summary["ok"], summary["failed"]) == (rows, 0)
    assert summary["requests"] <= 1.05 * rows
    assert statuses.count(429) == summary["throttled"]
    assert rate_between(times, end_s + 5.0, end_s + 7.0) >= 0.9 * RATE
    # Whoever waited does not come back all at once.
    back = next(time for time in times if time >= end_s)
    assert rate_between(times, back, back + 0.1) <= RATE
    assert max(rate_between(times, time, time + 1.0) for time in times) <= 1.1 * RATE


@pytest.mark.parametrize("said", ["0", "nan"])
def test_a_wait_that_means_nothing_is_no_wait_and_no_endless_one(tmp_path: Path, said: str) -> None:
    fault = f"storm,start_s=0.3,end_s=0.8,retry_after={said}"
    summary, times, _ = stormy(tmp_path, fault, 300)
    assert (summary["ok"], summary["failed"]) == (300, 0)
    assert times[-1] < 8.0
    assert summary["requests"] <= 1.25 * 300
