"""A running run is paused, resumed, retuned and drained from outside, each within a second."""

import json
import time
from pathlib import Path

import pytest
from runs import Run, ask_flags, read_rows, run, until, write_rows

from engine.mock.settings import MockSettings, QuotaSettings
from engine.mock.spawn import MockProcess
from engine.observe.live import LIVE_NAME

pytestmark = pytest.mark.slow


def rate(mock: MockProcess, seconds: float) -> float:
    """Requests a second that arrive from now on."""
    before, began = mock.stats()["requests"], time.monotonic()
    time.sleep(seconds)
    return float(mock.stats()["requests"] - before) / (time.monotonic() - began)


def ctl(output: Path, *words: str) -> Run:
    return run("ctl", str(output), *words)


def test_a_run_obeys_within_a_second(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 1500), tmp_path / "out.jsonl"
    limit = QuotaSettings(kind="sliding", rpm=18_000)
    with MockProcess(MockSettings(latency="50ms", quota=(limit,))) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "3", "--rpm", "6000")
        started = Run(*flags)
        until(lambda: mock.stats()["requests"] > 50 and (tmp_path / "out.jsonl.run" / LIVE_NAME).exists())

        assert ctl(output, "pause").wait() == 0
        time.sleep(0.5)  # what was in flight has ended
        assert rate(mock, 1.0) == 0.0
        assert ctl(output, "resume").wait() == 0
        time.sleep(0.5)
        assert rate(mock, 0.5) > 70

        assert "18,000" in ctl(output, "set", "rpm=18000").out
        time.sleep(0.5)
        assert rate(mock, 0.5) > 240
        ctl(output, "set", "rpm=1200", "in-flight=30")
        time.sleep(0.5)
        assert rate(mock, 0.5) <= 24

        for words, says in (
            (("frobnicate",), "not understood"),
            (("set", "rpm=0"), "rpm=0"),
            (("set", "rpm=lots"), "rpm=lots"),
            (("set", "in-flight=1"), "3 workers"),
        ):
            refused = ctl(output, *words)
            assert refused.wait() == 2
            assert says in refused.err

        assert ctl(output, "drain").wait() == 0
        assert started.summary()["exit_code"] == 4
        assert mock.stats()["throttled"] == 0
        nobody = ctl(output, "pause")
        assert nobody.wait() == 2
        assert "No run is running" in nobody.err
        assert Run(*flags, "--rpm", "18000").summary()["ok"] == 1500
        assert mock.stats()["replies_repeated"] == 0
    assert [record["id"] for record in read_rows(output)] == list(range(1500))


def test_only_who_reads_the_private_folder_can_steer(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="50ms")) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--rpm", "6000"))
        live = tmp_path / "out.jsonl.run" / LIVE_NAME
        until(live.exists)
        assert live.stat().st_mode & 0o777 == 0o600
        token = json.loads(live.read_text())["control"]["token"]
        assert token not in run("status", str(output), "--json").out
        forged = tmp_path / "forged.run"
        forged.mkdir()
        for path in (tmp_path / "out.jsonl.run").iterdir():
            (forged / path.name).write_bytes(path.read_bytes())
        view = json.loads(live.read_text())
        view["control"]["token"] = "0" * 32
        (forged / LIVE_NAME).write_text(json.dumps(view))
        refused = run("ctl", str(forged), "drain")
        assert refused.wait() == 2
        assert "does not know you" in refused.err
        assert started.summary()["ok"] == 300


def test_a_token_limit_that_is_lowered_fails_the_calls_that_can_never_pass(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    small = "".join(json.dumps({"id": n, "text": "x" * 40}) + "\n" for n in range(150))
    source.write_text(small + json.dumps({"id": 150, "text": "y" * 160_000}) + "\n")
    with MockProcess(MockSettings(latency="20ms")) as mock:
        flags = ask_flags(
            mock.base_url, source, output, "--procs", "2", "--tpm", "60000", "--max-tokens", "20"
        )
        started = Run(*flags)
        until(lambda: mock.stats()["requests"] > 20 and (tmp_path / "out.jsonl.run" / LIVE_NAME).exists())
        assert ctl(output, "set", "tpm=20000").wait() == 0
        assert ctl(output, "set", "tpm=30000").wait() == 0
        summary = started.summary(100.0)
    assert summary["failures"] == {"request_too_large": 1}
    assert summary["ok"] == 150
