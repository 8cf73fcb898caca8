"""SIGKILL in jobs of several steps: what was committed of a row is never begun again, nothing is lost, nothing is mixed up."""

from pathlib import Path
from random import Random

import pytest
from scorecard import Scorecard
from stepcampaign import MODES, StepCampaign

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 400
KILLS = 12

POINTS = (
    # a worker: a lease with finished steps has come and is not looked at; a row is begun that has some
    "engine.worker.chainloop:ChainWorker._leased:before",
    "engine.worker.chainloop:ChainWorker._begin_row:after",
    # after a step's reply, before anybody knows; between two steps of a row; after what has ended was told
    "engine.worker.chains:Chains.ended:before",
    "engine.worker.chains:Chains.ended:after",
    "engine.worker.loop:Worker._flush:before",
    "engine.worker.loop:Worker._flush:after",
    # before a function is called, and after it has returned
    "engine.worker.call_lane:CallLane.engage:before",
    "engine.worker.call_lane:CallLane._landed:before",
    # the coordinator: steps heard; about to be committed; before, within and after their commit
    "engine.coordinator.session:Session._outcomes:before",
    "engine.coordinator.stepbook:StepBook.rows_of:after",
    "engine.store.store:Store.apply:before",
    "engine.store.store:write_steps:before",
    "engine.store.store:write_steps:after",
    "engine.store.store:Store.apply:after",
    # a lease: kept, and its finished steps not looked up; looked up; about to be handed out
    "engine.coordinator.stepbook:StepBook.find:before",
    "engine.store.store:Store.steps_of:after",
    "engine.coordinator.leasing:_parts:after",
    # the end of a row whose steps are all there
    "engine.worker.chains:Chains._outcome:before",
    "engine.store.store:write_outcomes:after",
)
ORDINARY_POINTS = [POINTS[at] for at in (0, 3, 7, 11, 12, 16)]


@pytest.mark.quick(seed=[1])
def test_any_process_may_die_at_any_instant_between_any_steps(
    tmp_path: Path, limiter_dir: Path, seed: int, scorecard: Scorecard
) -> None:
    random = Random(seed)
    with StepCampaign(tmp_path, limiter_dir, ROWS, mode=MODES[seed % len(MODES)]) as campaign:
        campaign.go_on_killing(KILLS, random)
        told = campaign.finish()
    kills, wrong = sum(told.kills.values()), told.wrong
    told.count(scorecard, "random deaths, several steps")
    assert not wrong, f"seed {seed}: {wrong}, {told.kills}"
    assert kills >= 4, told.kills
    assert campaign.looked_at() > 0, "nothing was durable at any death: it shows nothing"


test_any_process_may_die_at_any_instant_between_any_steps.seeds = (2, 20)  # type: ignore[attr-defined]


@pytest.mark.quick(point=ORDINARY_POINTS[2:4])
@pytest.mark.few(k=[1], point=ORDINARY_POINTS)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_death_at_a_named_point_repeats_no_finished_step(
    tmp_path: Path, limiter_dir: Path, point: str, k: int, scorecard: Scorecard
) -> None:
    marker = tmp_path / "died"
    with StepCampaign(tmp_path, limiter_dir, 120, latency="30ms") as campaign:
        campaign.die_half_way()
        campaign.start(f"{point}:{k}:{marker}")
        told = campaign.finish()
    assert marker.exists(), "the point was never reached"
    told.kills["named"] = 1
    told.count(scorecard, "deaths at named points of steps")
    wrong = told.wrong
    assert not wrong, wrong
