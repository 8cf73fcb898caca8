"""Without any declared limit a run finds by itself how many calls at once its endpoint takes."""

from pathlib import Path

import pytest
from runs import Run, ask_flags, write_rows

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_takes_thirty_at_once_is_kept_busy_and_hardly_asked_for_more(
    tmp_path: Path, status: int
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1500), tmp_path / "out.jsonl"
    settings = MockSettings(latency="100ms", capacity=30, capacity_status=status, log=True)
    with MockProcess(settings) as mock:
        summary = Run(*ask_flags(mock.base_url, source, output, "--procs", "2")).summary()
        log = mock.log()
    times = [(record["at_s"] - log[0]["at_s"], record["status"]) for record in log]
    settled = [code for at, code in times if 2.0 <= at < 4.0]
    assert settled.count(200) >= 0.92 * 30 / 0.1 * 2.0
    assert settled.count(status) <= 0.03 * len(settled)
    assert (summary["ok"], summary["failed"]) == (1500, 0)
