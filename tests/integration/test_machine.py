"""Several runs on one machine: one quota for all of them, whoever started its limiter and whoever dies."""

import json
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from runs import Run, ask_flags, is_alive, read_rows, run, until, write_rows

from engine.mock.settings import MockSettings, QuotaSettings
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow

RPM = 12_000
EXACT = QuotaSettings(kind="sliding", rpm=RPM)
SECOND = QuotaSettings(kind="second", rpm=RPM, tolerance=0.1)


def start(mock: MockProcess, folder: Path, name: str, rows: int, *flags: str) -> Run:
    source = write_rows(folder / f"{name}.in.jsonl", rows)
    output = folder / f"{name}.jsonl"
    return Run(*ask_flags(mock.base_url, source, output, "--procs", "2", *flags))


def quotas() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("quota", "--json").out)
    return found


def limiters(folder: Path) -> list[int]:
    """The limiters of this test, by their entries."""
    found = [json.loads(path.read_text())["pid"] for path in folder.glob("*/info.json")]
    return [pid for pid in found if is_alive(pid)]


def granted(folder: Path) -> dict[str, int]:
    return {
        one["label"].split("/")[-1].split(".")[0]: one["granted_requests"]
        for quota in quotas()
        for one in quota["runs"]
    }


def test_two_runs_stay_under_one_limit_together_share_it_and_leave_nothing(
    tmp_path: Path, limiter_dir: Path
) -> None:
    with MockProcess(MockSettings(latency="50ms", quota=(EXACT, SECOND))) as mock:
        runs = [start(mock, tmp_path, name, 1_200, "--rpm", str(RPM)) for name in ("a", "b")]
        until(lambda: len(granted(tmp_path)) == 2 and min(granted(tmp_path).values()) > 10)
        before = granted(tmp_path)
        until(lambda: sum(granted(tmp_path).values()) > sum(before.values()) + 300)
        (quota,) = quotas()
        shares = [count - before[name] for name, count in granted(tmp_path).items()]
        assert (quota["rpm"], quota["pauses"]) == (RPM, 0)
        assert quota["requests_in_last_minute"] >= 300
        text = run("quota").out
        assert "12,000" in text
        assert "calls waiting" in text
        summaries = [one.summary() for one in runs]
        stats = mock.stats()
    assert min(shares) > 0.8 * max(shares)
    assert [summary["ok"] for summary in summaries] == [1_200, 1_200]
    assert stats["throttled"] == 0
    assert stats["max_in_clock_second"] <= 220
    assert stats["requests"] / (stats["last_s"] - stats["first_s"]) > 0.9 * RPM / 60
    until(lambda: not limiters(limiter_dir), 3.0)
    assert "No quota" in run("quota").out


def test_a_weight_of_three_gets_three_quarters(tmp_path: Path) -> None:
    with MockProcess(MockSettings(latency="50ms")) as mock:
        heavy = start(mock, tmp_path, "heavy", 1200, "--rpm", str(RPM), "--share", "3")
        light = start(mock, tmp_path, "light", 1200, "--rpm", str(RPM), "--share", "1")
        until(lambda: len(granted(tmp_path)) == 2 and min(granted(tmp_path).values()) > 20)
        before = granted(tmp_path)
        until(lambda: sum(granted(tmp_path).values()) > sum(before.values()) + 300)
        after = granted(tmp_path)
        for one in (heavy, light):
            one.kill(signal.SIGINT)
            one.wait()
    got = {name: after[name] - before[name] for name in after}
    assert 2.2 < got["heavy"] / got["light"] < 4.0


def test_a_lower_limit_of_another_run_holds_and_both_are_told(tmp_path: Path) -> None:
    lower = QuotaSettings(kind="second", rpm=3_000, tolerance=0.3)
    with MockProcess(MockSettings(latency="50ms", quota=(lower,))) as mock:
        low = start(mock, tmp_path, "low", 2_000, "--rpm", "3000")
        until(lambda: mock.stats()["ok"] > 10)
        high = start(mock, tmp_path, "high", 2_000, "--rpm", str(RPM))
        free = start(mock, tmp_path, "free", 2_000)
        until(lambda: len(granted(tmp_path)) == 3 and min(granted(tmp_path).values()) > 20)
        assert mock.stats()["throttled"] == 0
        for one in (free, high, low):
            one.kill(signal.SIGINT)
            one.wait()
    for one in (low, high):
        assert "12,000" in one.err
        assert "3,000" in one.err
        assert "the lower holds" in one.err
    assert "holds for this run too" in free.err


def test_the_limiter_outlives_the_run_that_started_it_and_dies_with_the_last(
    tmp_path: Path, limiter_dir: Path
) -> None:
    with MockProcess(MockSettings(latency="50ms", quota=(EXACT, SECOND))) as mock:
        first = start(mock, tmp_path, "first", 5_000, "--rpm", str(RPM))
        until(lambda: mock.stats()["ok"] > 20)
        second = start(mock, tmp_path, "second", 500, "--rpm", str(RPM))
        until(lambda: len(granted(tmp_path)) == 2)
        before = limiters(limiter_dir)
        first.kill(signal.SIGKILL)
        first.wait()
        assert second.summary()["ok"] == 500
        assert len(before) == 1
        assert "limiter ended" not in second.err
        assert mock.stats()["throttled"] == 0
        until(lambda: not limiters(limiter_dir), 3.0)
    assert len(read_rows(tmp_path / "second.jsonl")) == 500


def test_a_killed_limiter_is_replaced_once_for_all_runs(tmp_path: Path, limiter_dir: Path) -> None:
    with MockProcess(MockSettings(latency="50ms", quota=(EXACT, SECOND))) as mock:
        runs = [start(mock, tmp_path, name, 450, "--rpm", str(RPM)) for name in ("a", "b")]
        until(lambda: len(granted(tmp_path)) == 2)
        (killed,) = limiters(limiter_dir)
        psutil.Process(killed).kill()
        until(lambda: limiters(limiter_dir) not in ([killed], []))
        assert [one.summary()["ok"] for one in runs] == [450, 450]
        assert mock.stats()["throttled"] == 0
    assert all("limiter ended" in one.err for one in runs)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_limiter_killed_at_random_moments_costs_time_and_nothing_else(
    tmp_path: Path, limiter_dir: Path, seed: int
) -> None:
    random = Random(seed)
    with MockProcess(MockSettings(latency="50ms", quota=(EXACT, SECOND))) as mock:
        started = start(mock, tmp_path, "a", 900, "--rpm", str(RPM))
        until(lambda: mock.stats()["ok"] > 10)
        killed: list[int] = []
        for _ in range(3):
            time.sleep(random.uniform(0.0, 1.2))
            until(lambda: limiters(limiter_dir) not in (killed[-1:], []))
            killed.append(limiters(limiter_dir)[0])
            psutil.Process(killed[-1]).kill()
        summary = started.summary()
        stats = mock.stats()
    assert (summary["ok"], summary["failed"], summary["requests"]) == (900, 0, 900)
    assert (stats["throttled"], stats["replies_repeated"]) == (0, 0)
    assert stats["max_in_clock_second"] <= 1.1 * RPM / 60
    assert started.err.count("the limiter ended") == 3


def test_a_run_that_follows_within_the_minute_knows_what_was_sent(tmp_path: Path) -> None:
    with MockProcess(MockSettings(latency="20ms", quota=(QuotaSettings(kind="sliding", rpm=1_200),))) as mock:
        assert start(mock, tmp_path, "first", 40, "--rpm", "1200").summary()["ok"] == 40
        second = start(mock, tmp_path, "second", 200, "--rpm", "1200")
        until(lambda: max((one["requests_in_last_minute"] for one in quotas()), default=0) > 40)
        assert second.summary()["ok"] == 200
        assert mock.stats()["throttled"] == 0


def test_limits_may_be_set_on_a_run_that_began_without_any(tmp_path: Path) -> None:
    with MockProcess(MockSettings(latency="50ms")) as mock:
        started = start(mock, tmp_path, "free", 100_000, "--in-flight", "8")
        until(lambda: mock.stats()["ok"] > 100)
        assert run("ctl", str(tmp_path / "free.jsonl"), "set", "rpm=600").wait() == 0
        time.sleep(1.0)
        before = mock.stats()["requests"]
        time.sleep(2.0)
        assert mock.stats()["requests"] - before <= 24
        started.kill(signal.SIGINT)
        started.wait()


def test_a_limiter_of_another_version_is_refused_in_a_sentence(tmp_path: Path, limiter_dir: Path) -> None:
    with MockProcess(MockSettings(latency="50ms")) as mock:
        running = start(mock, tmp_path, "old", 2_000, "--rpm", "1200")
        until(lambda: mock.stats()["ok"] > 5)
        (path,) = limiter_dir.glob("*/info.json")
        (limiter,) = (psutil.Process(pid) for pid in limiters(limiter_dir))
        limiter.suspend()  # it would write its version again
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": 1}))
        refused = start(mock, tmp_path, "new", 10, "--rpm", "1200")
        assert refused.wait() == 3
        assert "Another version of the engine" in refused.err
        limiter.resume()
        running.kill(signal.SIGINT)
        running.wait()
