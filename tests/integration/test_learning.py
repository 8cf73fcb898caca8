"""Limits that nobody declared are learnt from reply headers, followed, and shared with whoever else uses the key."""

import json
import threading
import urllib.request
from pathlib import Path

import pytest
from runs import Run, ask_flags, until, write_rows

from engine.mock.settings import MockSettings, QuotaSettings
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow


def rate(log: list[dict[str, float]], start: float, end: float) -> float:
    """Requests a second between two times from the first request on."""
    first = log[0]["at_s"]
    return sum(start <= record["at_s"] - first < end for record in log) / (end - start)


def limited(rpm: int | None = None, **limits: int) -> MockSettings:
    quota = QuotaSettings(kind="sliding", rpm=rpm, **limits)
    return MockSettings(latency="50ms", quota=(quota,), log=True)


def test_a_limit_is_learnt_and_followed_down_and_up(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1000), tmp_path / "out.jsonl"
    with MockProcess(limited(6_000)) as mock:
        started = Run(
            *ask_flags(mock.base_url, source, output, "--procs", "2", "--rpm", "auto", "--tpm", "auto")
        )
        until(lambda: mock.stats()["ok"] > 250)
        high = rate(mock.log(), 1.0, 2.0)
        mock.control({"quota": [{"kind": "sliding", "rpm": 1_800}]})
        before = mock.stats()["last_s"] - mock.stats()["first_s"]
        until(lambda: mock.stats()["last_s"] - mock.stats()["first_s"] > before + 3.0)
        low = rate(mock.log(), before + 1.0, before + 3.0)
        mock.control({"quota": [{"kind": "sliding", "rpm": 12_000}]})
        summary = started.summary()
        stats, log = mock.stats(), mock.log()
        last = stats["last_s"] - stats["first_s"]
        up = rate(log, last - 1.5, last - 0.2)
    assert summary["ok"] == 1000
    assert 85 <= high <= 110
    assert low <= 35
    assert 150 <= up <= 220
    assert stats["throttled"] <= 5
    assert "the endpoint allows 6,000 RPM" in started.err
    assert "the endpoint allows 1,800 RPM" in started.err


def test_a_declared_limit_is_lowered_by_the_endpoints_own_and_never_raised(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 150), tmp_path / "out.jsonl"
    with MockProcess(limited(1_800)) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "2", "--rpm", "12000"))
        assert started.summary()["ok"] == 150
        lowered = rate(mock.log(), 1.0, 3.0)
        assert mock.stats()["throttled"] == 0
    assert lowered <= 35
    assert "less than the 12,000 of this run" in started.err
    with MockProcess(limited(60_000)) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "2", "--rpm", "1800", "--fresh"))
        assert started.summary()["ok"] == 150
        assert rate(mock.log(), 1.0, 3.0) <= 35


def test_anthropics_input_and_output_limits_are_kept_apart(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"
    with MockProcess(limited(6_000, input_tpm=600_000, output_tpm=120_000)) as mock:
        flags = ask_flags(
            mock.base_url, source, output, "--procs", "2", "--provider", "anthropic", "--rpm", "auto",
            "--max-tokens", "40",
        )  # fmt: skip
        started = Run(*flags, environment={"ANTHROPIC_API_KEY": "sk-test"})
        until(lambda: mock.stats()["ok"] > 100)
        (quota,) = json.loads(quota_json())
        summary = started.summary()
        assert mock.stats()["throttled"] == 0
    assert summary["ok"] == 300
    assert quota["limits"] == {"rpm": 6_000, "tpm": None, "input_tpm": 600_000, "output_tpm": 120_000}
    used = quota["used_in_last_minute"]
    assert 0 < used["input_tpm"] < used["output_tpm"]
    assert summary["estimate"]["error"] < 0.5


def quota_json() -> str:
    asked = Run("quota", "--json")
    assert asked.wait() == 0
    return asked.out


def test_what_somebody_elsewhere_uses_of_the_key_is_left_to_them(tmp_path: Path) -> None:
    """Half of the limit is used by requests that no limiter here knows of."""
    source, output = write_rows(tmp_path / "in.jsonl", 500), tmp_path / "out.jsonl"
    limit = 700
    with MockProcess(limited(limit)) as mock:
        body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "x"}]}).encode()

        def other() -> None:
            for _ in range(limit // 14):
                request = urllib.request.Request(
                    f"{mock.base_url}/chat/completions", body, {"content-type": "application/json"}
                )
                urllib.request.urlopen(request).read()

        threads = [threading.Thread(target=other) for _ in range(7)]
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "2", "--rpm", str(limit)))
        until(lambda: mock.stats()["ok"] > 5)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: json.loads(quota_json())[0]["requests_in_last_minute"] >= limit // 2)
        used = json.loads(quota_json())[0]["requests_in_last_minute"]
        mine = mock.stats()["requests"] - limit // 2
        assert used > mine * 2
        assert mock.stats()["throttled"] == 0
        started.kill(2)
        started.wait()
