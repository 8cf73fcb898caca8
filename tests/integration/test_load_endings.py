"""How ``engine load`` ends when its user, or what it runs on, ends it: told in a sentence, and nothing is left behind."""

import json
import os
import signal
from pathlib import Path

import pytest
from runs import Run, is_alive, until

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def _ended_early(run: Run) -> None:
    """It said that nothing was measured, and left nothing behind."""
    children = [one.pid for one in run.children()]
    run.kill(signal.SIGINT)
    assert run.wait(15.0) == 4, run.err
    assert "engine: interrupted" in run.err and "nothing was measured" in run.err
    assert "Traceback" not in run.err
    assert run.out == ""
    until(lambda: not any(map(is_alive, children)), 5.0)


def test_ctrl_c_while_the_plan_is_made_ends_with_a_sentence(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    os.mkfifo(rows)
    run = Run("load", "http://127.0.0.1:9/{{ a }}", "--rate", "5", "--data", str(rows))
    with rows.open("wb"):  # opens once it is read, and lets the reader wait
        _ended_early(run)


@pytest.mark.parametrize("module", ["engine.mock", "engine.worker.load"])
def test_ctrl_c_while_processes_start_ends_with_a_sentence_and_all_of_them(module: str) -> None:
    run = Run("load", "--provider", "mock", "--prompt", "hi", "--rate", "10", "--duration", "5m")
    until(lambda: bool(run.children(module)), 20.0)
    _ended_early(run)


def test_results_that_standard_output_does_not_take_are_told_and_are_in_the_file(tmp_path: Path) -> None:
    with MockProcess(MockSettings(latency="5ms")) as server:
        run = Run(
            "load", f"{server.origin}/plain", "--rate", "50", "--duration", "1s", "--json", "--quiet", "--out",
            str(tmp_path / "r.json"), prefix=("bash", "-c", 'exec "$@" > /dev/full', "-"),
        )  # fmt: skip
        assert run.wait() == 5
    assert run.err.startswith("engine: The results could not be printed: No space left on device.")
    assert len(run.err.splitlines()) == 1
    assert json.loads((tmp_path / "r.json").read_text())["completed"] == 50
