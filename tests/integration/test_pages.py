"""Whole runs whose rows name their own pages: several hosts at once, dead ones among them."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from runs import Run, read_rows, run, until

from engine.config import WIRES
from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow

DEAD = "http://127.0.0.1:9"


def start(folder: Path, urls: list[Any], *flags: str, url: str = "{{ url }}") -> Run:
    """A run that gets the page of each row."""
    source = folder / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"id": number, "url": one}) + "\n" for number, one in enumerate(urls))
    )
    return Run(
        "run", str(source), "-o", str(folder / "out.jsonl"), "--provider", "http", "--method", "GET", "--url", url,
        "--json", "--no-progress", "--procs", "2", *flags,
    )  # fmt: skip


def errors(folder: Path) -> dict[int, str]:
    """The kind of failure of each row that failed."""
    return {
        row["id"]: row["_error"].partition(":")[0]
        for row in read_rows(folder / "out.jsonl")
        if row["_status"] == "failed"
    }


@pytest.mark.parametrize("wire", WIRES)
def test_rows_name_three_servers_and_a_dead_port_and_each_has_its_own_end(tmp_path: Path, wire: str) -> None:
    with ExitStack() as stack:
        mocks = [stack.enter_context(MockProcess(MockSettings(latency="5ms"))) for _ in range(3)]
        urls: list[Any] = [f"{mocks[number % 3].origin}/plain?row={number}" for number in range(600)]
        ends = {
            50: "connect_refused",
            51: "bad_request",
            52: "bad_request",
            53: "bad_request",
            599: "connect_refused",
        }
        others = [
            f"{DEAD}/x",
            "http://169.254.169.254/x",
            "no url",
            None,
            f"{DEAD}/y",
        ]
        for row, other in zip(ends, others, strict=True):
            urls[row] = other
        started = start(tmp_path, urls, "--wire", wire, "--retries", "1", "--max-failures", "5")
        summary = started.summary()
        seen = [mock.stats()["requests"] for mock in mocks]
    assert (started.wait(), summary["ok"], summary["stopped"]) == (1, 595, "")
    assert errors(tmp_path) == ends
    assert seen == [sum(str(url).startswith(mock.origin) for url in urls) for mock in mocks]
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == list(range(600))
    assert all(row["response"] for row in rows if row["_status"] == "ok")


def test_a_run_of_nothing_but_dead_hosts_ends_with_its_rows_failed(tmp_path: Path) -> None:
    # One port in each of many addresses of this machine: 300 origins, none of which anything listens on.
    urls = [f"http://127.0.1.{number % 200 + 1}:{9 + number // 200}/x" for number in range(300)]
    begun = time.monotonic()
    started = start(tmp_path, urls, "--retries", "2")
    summary = started.summary()
    assert (started.wait(), summary["failed"], summary["open"], summary["stopped"]) == (1, 300, 0, "")
    assert summary["failures"] == {"connect_refused": 300}
    assert time.monotonic() - begun < 30.0  # two retries of 300 rows, each after 1 to 4 s


def test_hosts_that_refuse_say_nothing_about_the_others_and_end_their_rows(tmp_path: Path) -> None:
    faults = {
        "rate_limited": "429,retry_after=1",
        "not_found": "404",
        "unauthorised": "401",
        "bad_request": "402",
    }
    with ExitStack() as stack:
        good = stack.enter_context(MockProcess())
        bad = [
            stack.enter_context(MockProcess(MockSettings(faults=(parse_fault(fault),))))
            for fault in faults.values()
        ]
        origins = [mock.origin for mock in (*bad, good)]
        summary = start(
            tmp_path, [f"{origins[number % 5]}/plain" for number in range(100)], "--retries", "1"
        ).summary()
    assert (summary["ok"], summary["stopped"]) == (20, "")
    assert summary["failures"] == dict.fromkeys(faults, 20)
    kinds = [*faults, ""]
    assert errors(tmp_path) == {row: kinds[row % 5] for row in range(100) if row % 5 < 4}


def test_the_limits_of_such_rows_count_for_all_hosts_together(tmp_path: Path, limiter_dir: Path) -> None:
    with ExitStack() as stack:
        mocks = [stack.enter_context(MockProcess()) for _ in range(2)]
        started = start(
            tmp_path, [f"{mocks[number % 2].origin}/plain" for number in range(150)], "--rpm", "3000"
        )
        quota: list[dict[str, Any]] = []
        until(lambda: bool(quota.extend(json.loads(run("quota", "--json").out)) or quota))
        summary = started.summary()
        stats = [mock.stats() for mock in mocks]
    assert (quota[0]["origin"], quota[0]["rpm"]) == ("rows {{ url }}", 3000)
    assert summary["ok"] == 150
    took_s = max(one["last_s"] for one in stats) - min(one["first_s"] for one in stats)
    assert 150 / took_s < 60.0  # 3,000 a minute are 50 a second


@pytest.mark.parametrize(
    "flags", [("--header", "X-Key: Bearer ${MY_KEY}"), ("--api-key-env", "MY_KEY")], ids=["header", "key"]
)
def test_no_secret_goes_where_rows_say(
    tmp_path: Path, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-canary-7")
    with MockProcess() as mock:
        refused = start(tmp_path, [f"{mock.origin}/plain"], *flags)
        assert refused.wait() == 2
        assert mock.stats()["requests"] == 0
        plain = start(
            tmp_path, [mock.origin], "--header", "X-Plain: {{ id }}", url="{{ url }}/plain?row={{ id }}"
        )
        assert plain.summary()["ok"] == 1
        assert mock.stats()["requests"] == 1
    assert "wherever a row says" in refused.err and "Nothing was sent" in refused.err
    assert "canary" not in refused.err + refused.out
