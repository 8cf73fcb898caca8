"""Thousands of runs in virtual time: whatever dies, stops, fills up or is lost, each one ends, whole, and under its limits."""

from collections import Counter

import pytest
from lives import lived, replay
from scorecard import Promise, Scorecard
from shape import KINDS
from store_of import differences

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CHUNKS = 16  # what parallel test processes share
SEEDS = {  # in each chunk
    "quick": {"one endpoint": 1, "wide": 2, "saturated": 1, "steps": 2},
    "ordinary": {"one endpoint": 1, "wide": 2, "saturated": 1, "steps": 3},
    "nightly": {"one endpoint": 64, "wide": 200, "saturated": 32, "steps": 250},
}
KEPT_SEEDS = (  # worlds that failed once, each with what it showed
    (89, "one endpoint"),  # a run's first word to its limiter was lost, and it waited for permits for ever
    (3, "wide"),  # a lease came twice, and its rows were sent twice
    (4, "wide"),  # refusals that were held back were not committed, and the run called itself whole
    (
        15,
        "wide",
    ),  # so were they, and the next start said of rows that had their answer that they were in doubt
    (
        216,
        "wide",
    ),  # a drain ended while a lease was being recorded, and rows that nobody had were said to be in doubt
    (
        62,
        "saturated",
    ),  # workers that had been stopped for seconds used the permits of before on top of those of now
    (99, "saturated"),  # the same, by the answer to a question from before
    (
        1230,
        "steps",
    ),  # a limiter was killed whose limits another start had declared, and permits were waited for for ever
    (
        30,
        "steps",
    ),  # a run was stopped while finished steps were looked up, and rows that nobody had were said to be in doubt
    (43, "steps"),  # a frame of steps came twice, and their requests were counted twice
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_lived_the_same_way_twice(kind: str) -> None:
    for seed in range(4):
        one, other = lived(seed, kind), lived(seed, kind)
        assert one.arrivals == other.arrivals
        assert one.disk.outcomes == other.disk.outcomes
        assert one.loop.time() == other.loop.time()
        assert (one.kills, one.network.messages) == (other.kills, other.network.messages)


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_seeds_run_ends_whole_and_under_its_limits(
    kind: str, chunk: int, scorecard: Scorecard, pytestconfig: pytest.Config
) -> None:
    seeds = SEEDS[pytestconfig.getoption("--trials")][kind]
    wrong = {}
    seen: Counter[str] = Counter()
    for seed in range(chunk * seeds, (chunk + 1) * seeds):
        world = lived(seed, kind)
        seen.update(
            kills=world.kills,
            freezes=world.freezes,
            stops=world.stops,
            lost_messages=world.network.lost,
            doubled_messages=world.network.doubled,
            stale_outcomes=world.stale,
            calls=len(world.arrivals),
            virtual_s=round(world.lived_s),
            **({"steps": len(world.disk.steps)} if world.shape.steps else {}),
        )
        if found := world.wrong():
            wrong[seed] = found
    scorecard.add(Promise.P1_NO_LOSS, f"simulated runs, {kind}", seeds, len(wrong), **seen)
    if kind == "steps":
        scorecard.add(Promise.P12_STEPS, "simulated runs, steps", seeds, len(wrong), **seen)
    assert seen["calls"] >= 10 * seeds
    assert kind != "steps" or seen["steps"] >= 10 * seeds
    assert not wrong, "\n".join(replay(seed, kind, found) for seed, found in wrong.items())


@pytest.mark.parametrize(("seed", "kind"), KEPT_SEEDS)
def test_a_seed_that_failed_once_does_not_fail_again(seed: int, kind: str) -> None:
    found = lived(seed, kind).wrong()
    assert not found, replay(seed, kind, found)


def test_the_scripted_disk_keeps_what_the_store_keeps() -> None:
    for kind in ("wide", "steps"):
        for seed in range(6):
            assert differences(lived(seed, kind).disk) == {}


@pytest.mark.parametrize("seed", [27, 33])
def test_what_a_worker_says_that_was_taken_for_dead_is_refused(seed: int) -> None:
    world = lived(seed, "wide")
    assert world.stale > 0, "choose another seed: in this world nobody speaks too late any more"
    assert not world.wrong()
