"""A server that misbehaves, on some or all of its requests: no reply lands on another row, nothing is lost, and the run ends."""

from pathlib import Path
from zlib import crc32

import pytest
from history import history_of
from runs import Run, ask_flags, prompts_of, write_rows
from scorecard import Promise, Scorecard

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


# Not asked for again: a row that meets one of these once has failed.
FINAL = ("redirect", "huge", "endless", "gzip_bomb", "413", "content_filter", "refusal", "many_headers")


@pytest.mark.quick(fault=["stale", "extra_reply"])
@pytest.mark.few(percent=[10], fault=QUICK_FAULTS)
@pytest.mark.parametrize("percent", [1, 10, 100])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_misbehaving_server_gets_no_row_lost_or_mixed_up(
    tmp_path: Path, fault: str, percent: int, scorecard: Scorecard
) -> None:
    rows = {1: 400, 10: 100, 100: 40}[percent]
    if percent == 100 and FAULTS[fault] == ("overloaded",):
        rows = 6  # a server that takes nothing is asked every few seconds only
    name, _, rest = fault.partition(",")
    rule = parse_fault(f"{name}={percent / 100}{',' + rest if rest else ''}")
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    # Other requests are struck in each of these runs; the 2 is one with which at 1 % each fault strikes twice and more.
    seed = crc32(f"2 {fault} {percent}".encode())
    settings = MockSettings(latency="20ms", log=True, row_key="prompt", faults=(rule,), seed=seed)
    with MockProcess(settings) as mock:
        flags = ("--procs", "2", "--timeout", "1", "--retries", "3", "--in-flight", "64")
        summary = Run(*ask_flags(mock.base_url, source, output, *flags)).summary(BOUND_S)
        history = history_of(mock, prompts_of(rows), output)
        struck = mock.stats()["faults"].get(name, 0)
    wrong = {
        "unaccounted": history.unaccounted(),
        "unexpected": history.unexpected(),
        "duplicated": history.duplicated(),
        "out_of_order": history.out_of_order(),
        "wrong_bodies": history.wrong_bodies(),
        "unrecorded_attempts": history.unrecorded_attempts(),
        "other failures": set(summary["failures"]) - set(FAULTS[fault]),
    }
    wrong = {what: value for what, value in wrong.items() if value}
    too_many = history.requests > rows * 5  # a stale connection is one more, and free
    scorecard.add_run("network faults", wrong, rows=rows, struck=struck)
    scorecard.add(
        Promise.P8_RETRIES, "network faults", 1, int(too_many), rows=rows, requests=history.requests
    )
    assert struck >= (rows if percent == 100 else 1)
    assert not wrong
    assert summary["ok"] + summary["failed"] == rows
    assert not too_many
    if percent == 100 and FAULTS[fault]:
        assert summary["ok"] == 0
    if percent == 1 and name not in FINAL:
        assert summary["failed"] == 0
