"""A server that misbehaves, on some or all of its requests: no reply lands on another row, nothing is lost, and the run ends."""

from pathlib import Path

import pytest
from history import history_of
from runs import Run, ask_flags, write_rows
from scorecard import Scorecard

from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BOUND_S = (
    60.0  # of a run whose calls are cut off after a second, with three retries, of which ten pass in a second
)
# What a row may fail with where a fault strikes all of its calls; () where it is no failure at all.
FAULTS: dict[str, tuple[str, ...]] = {
    "reset": ("connection_reset", "stale_keepalive"),
    "reset_body": ("connection_reset", "protocol_error"),
    "truncate": ("protocol_error",),
    "hang": ("timeout",),
    "slow": ("timeout",),
    "malformed": ("bad_reply",),
    "empty": ("bad_reply",),
    "wrong200": ("bad_reply", "server_error"),
    "array200": ("bad_reply",),
    "redirect,url=http://127.0.0.1:9/v1": ("redirect_refused",),
    "huge": ("body_too_large",),
    "endless": ("body_too_large", "timeout"),
    "gzip_bomb": ("body_too_large",),
    "html502": ("server_error",),
    "500": ("server_error",),
    "503": ("overloaded",),
    "529": ("overloaded",),
    "408": ("timeout",),
    "413": ("request_too_large",),
    "content_filter": ("content_refused",),
    "refusal": ("content_refused",),
    "usage": (),
    "stale": (),
    "extra_reply": (),
    "wrong_length": ("protocol_error", "bad_reply", "connection_reset", "stale_keepalive", "timeout"),
    "many_headers": ("protocol_error",),
}
QUICK_FAULTS = ["reset", "truncate", "hang", "wrong200", "huge", "503", "stale", "extra_reply", "usage"]


@pytest.mark.quick(percent=[10], fault=QUICK_FAULTS)
@pytest.mark.parametrize("percent", [1, 10, 100])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_misbehaving_server_gets_no_row_lost_or_mixed_up(
    tmp_path: Path, fault: str, percent: int, scorecard: Scorecard
) -> None:
    rows = 40 if percent == 100 else 100
    name, _, rest = fault.partition(",")
    rule = parse_fault(f"{name}={percent / 100}{',' + rest if rest else ''}")
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    prompts = [f"row {number} says hello" for number in range(rows)]
    settings = MockSettings(latency="20ms", log=True, row_key="prompt", faults=(rule,))
    with MockProcess(settings) as mock:
        flags = ("--procs", "2", "--timeout", "1", "--retries", "3", "--in-flight", "64")
        summary = Run(*ask_flags(mock.base_url, source, output, *flags)).summary(BOUND_S)
        history = history_of(mock, prompts, output)
    wrong = {
        "unaccounted": history.unaccounted(),
        "duplicated": history.duplicated(),
        "out_of_order": history.out_of_order(),
        "wrong_bodies": history.wrong_bodies(),
        "other failures": set(summary["failures"]) - set(FAULTS[fault]),
    }
    wrong = {what: value for what, value in wrong.items() if value}
    scorecard.add("no row lost, none twice, in order", "network faults", rows, len(wrong), fault=fault)
    scorecard.add(
        "retries do not amplify", "requests per row", summary["requests"], int(summary["requests"] > 5 * rows)
    )
    assert not wrong
    assert summary["ok"] + summary["failed"] == rows
    assert summary["requests"] <= rows * 5  # a stale connection is one more, and free
    if percent == 100 and FAULTS[fault]:
        assert summary["ok"] == 0
    if percent == 1 and name not in (
        "redirect",
        "huge",
        "gzip_bomb",
        "413",
        "content_filter",
        "refusal",
        "many_headers",
    ):
        assert summary["failed"] == 0
