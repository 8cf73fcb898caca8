"""SIGSTOP: who stands still for long is replaced or waited for, and what it says afterwards does not count twice."""

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
from campaign import Campaign
from scorecard import Scorecard

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(300)]


@pytest.mark.parametrize(("who", "seconds"), [("worker", 24.0), ("limiter", 10.0), ("coordinator", 10.0)])
def test_a_process_that_stands_still_costs_time_and_no_row(
    tmp_path: Path,
    limiter_dir: Path,
    who: str,
    seconds: float,
    scorecard: Scorecard,
) -> None:
    with Campaign(tmp_path, limiter_dir, 1_500) as campaign:
        while not campaign.mock.stats()["ok"]:
            time.sleep(0.05)
        pids = {
            "worker": [child.pid for child in campaign.run.children("engine.worker")],
            "limiter": campaign.limiters(),
            "coordinator": [campaign.run.pid],
        }
        os.kill(pids[who][0], signal.SIGSTOP)
        time.sleep(seconds)
        try:
            os.kill(pids[who][0], signal.SIGCONT)
        except ProcessLookupError:
            pass  # it was replaced meanwhile
        told = campaign.finish()
    told.kills["worker"] = int(who == "worker")
    told.count(scorecard, "processes stopped for long")
    assert not told.wrong
    # A worker that says nothing is killed and replaced: its late outcomes cannot arrive. The others are waited for.
    assert (told.summary["worker_deaths"], told.starts) == (int(who == "worker"), 1)


def test_a_frozen_process_among_deaths(tmp_path: Path, limiter_dir: Path, scorecard: Scorecard) -> None:
    random = Random(5)
    with Campaign(tmp_path, limiter_dir, 1_500) as campaign:
        for _ in range(5):
            time.sleep(random.uniform(0.2, 0.8))
            pids = [child.pid for child in campaign.run.children("engine.worker")]
            if not pids:
                continue
            stopped = random.choice(pids)
            os.kill(stopped, signal.SIGSTOP)
            campaign.kill(random.choice(["coordinator", "limiter", "worker"]), random)
            time.sleep(0.5)
            try:
                os.kill(stopped, signal.SIGCONT)
            except ProcessLookupError:
                pass
            campaign.go_on_if_dead()
        told = campaign.finish()
    told.count(scorecard, "processes stopped for long")
    assert not told.wrong
