"""SIGKILL, of any process and of all, at any instant and at every named point: nothing lost, nothing paid twice unknowingly."""

import os
import signal
import time
from pathlib import Path
from random import Random

import psutil
import pytest
from campaign import Campaign
from runs import until
from scorecard import Promise, Scorecard

from engine.coordinator.supervise import SILENT_S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 700
KILLS = 10

POINTS = (
    # a worker: after the lease and before the call, after the reply and before it is told, after it was told
    "engine.worker.slots:Slots.send:before",
    "engine.worker.loop:Worker.landed:before",
    "engine.worker.loop:Worker._flush:after",
    # the coordinator: outcomes heard and not committed; before, within and after a commit
    "engine.coordinator.session:Session._outcomes:before",
    "engine.store.store:Store.apply:before",
    "engine.store.store:write_outcomes:before",
    "engine.store.store:write_outcomes:after",
    "engine.store.store:write_leases:after",
    "engine.store.store:Store.apply:after",
    # publishing: the file written and not renamed, renamed and not yet marked as finished
    "engine.sink:_write_all:after",
    "engine.sink:_sync_folder:before",
    "engine.store.store:Store.finish:before",
    "engine.store.store:Store.finish:after",
    # the limiter: before and after permits are handed out, and while it is told of
    "engine.limiter.desk:Desk.give:before",
    "engine.limiter.desk:Desk.give:after",
    "engine.limiter.desk:Desk.need:before",
)
QUICK_POINTS = [POINTS[at] for at in (0, 3, 6, 10, 13)]


@pytest.mark.quick(seed=[1])
def test_any_process_may_die_at_any_instant(
    tmp_path: Path, limiter_dir: Path, seed: int, scorecard: Scorecard
) -> None:
    random = Random(seed)
    with Campaign(tmp_path, limiter_dir, ROWS) as campaign:
        campaign.go_on_killing(KILLS, random)
        told = campaign.finish()
    kills, wrong = sum(told.kills.values()), told.wrong
    told.count(scorecard, "random deaths")
    assert not wrong, f"seed {seed}: {wrong}, {told.kills}"
    assert kills >= 3, told.kills


@pytest.mark.quick(point=QUICK_POINTS[:4])
@pytest.mark.few(k=[1], point=QUICK_POINTS)
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_death_at_a_named_point_costs_no_row(
    tmp_path: Path, limiter_dir: Path, point: str, k: int, scorecard: Scorecard
) -> None:
    if k > 1 and ("sink" in point or "finish" in point):
        pytest.skip("happens once in a run")
    marker = tmp_path / "died"
    rows = 450 if "limiter" in point else 150  # more than a few seconds allow
    with Campaign(tmp_path, limiter_dir, rows, latency="30ms") as campaign:
        campaign.run.clear_away()  # the first one is to be killed by itself, at the point
        campaign.bury()
        campaign.start(f"{point}:{k}:{marker}")
        told = campaign.finish()
    assert marker.exists(), "the point was never reached"
    told.kills["named"] = 2  # the first run, too
    told.count(scorecard, "deaths at named points")
    wrong = told.wrong
    assert not wrong, wrong


@pytest.mark.not_quick
def test_a_worker_whose_clock_breaks_ends_at_once_and_its_rows_go_on(
    tmp_path: Path, limiter_dir: Path, scorecard: Scorecard
) -> None:
    """Without its clock it would sit on its rows until somebody found it silent."""
    marker = tmp_path / "broke"
    with Campaign(tmp_path, limiter_dir, 150, latency="30ms") as campaign:
        campaign.run.clear_away()
        campaign.bury()
        campaign.start(f"engine.worker.loop:Worker._tick:raise:5:{marker}", text="a broken clock")
        began = time.monotonic()
        told = campaign.finish()
        lasted_s = time.monotonic() - began
    assert marker.exists(), "the point was never reached"
    told.kills["named"] = 2
    told.count(scorecard, "a worker whose clock breaks")
    assert not told.wrong
    assert told.summary["worker_deaths"] == 1
    assert lasted_s < SILENT_S, "it was found silent, and did not end by itself"


@pytest.mark.nightly
def test_a_coordinator_that_has_buried_many_workers_holds_no_more_than_before(
    tmp_path: Path, limiter_dir: Path, scorecard: Scorecard
) -> None:
    with Campaign(tmp_path, limiter_dir, 50_000) as campaign:
        coordinator = psutil.Process(campaign.run.pid)

        def ready() -> bool:
            workers = campaign.run.children("engine.worker")
            return len(workers) == 3 and all(worker.net_connections() for worker in workers)

        held = []
        for number in range(19):  # the twentieth within a minute would end the run
            until(ready, 30.0)
            if number in (4, 18):  # the first few deaths may still fill caches
                held.append((coordinator.num_fds(), coordinator.memory_info().rss))
            os.kill(campaign.run.children("engine.worker")[number % 3].pid, signal.SIGKILL)
            until(lambda: not ready(), 5.0)
        campaign.run.kill(signal.SIGINT)
        assert campaign.run.wait() == 4
        summary = campaign.run.last_json()
    descriptors, bytes_held = (after - before for before, after in zip(*held, strict=True))
    scorecard.add(Promise.P7_BOUNDED, "worker deaths in one run", 18, int(descriptors > 0))
    assert summary["worker_deaths"] >= 18
    assert descriptors <= 0, held
    assert bytes_held < 16e6, held
