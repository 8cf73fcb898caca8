"""A function as a lane: what bounds it, what it counts, how it comes to an end."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import job

from engine.config import StepPlan, StepSettings, Timeouts, jobs_of
from engine.core.errors import ErrorKind, Health
from engine.core.model import Failure, Target
from engine.handover import LimiterAddress, WorkerSettings
from engine.wire.messages import RowLine, Terms
from engine.worker import call_lane as module
from engine.worker.call_lane import EXIT_WORN, REST_MAX_S, REST_S, CallLane
from engine.worker.chains import Chains, RowChain, StepExecutor
from engine.worker.execute import Later, RowRun
from engine.worker.functions import Functions

SOURCE = """
import asyncio

GO = asyncio.Event()
SEEN = []

async def waits(row):
    await GO.wait()
    return row["x"] + 1

async def raises(row):
    SEEN.append(dict(row))
    row["x"] = "changed"
    raise ValueError("so")

def named(y):
    return {"y": y}

def grows(row):
    row["x"][0]["deep"].append(len(row["x"]))
    row["x"].append("more")
    return row["x"]

def grows_named(x):
    return grows({"x": x})
"""


class FakeOwner:
    """Keeps what a lane gives back."""

    def __init__(self) -> None:
        self.ended: list[tuple[RowRun, Any, Failure | None]] = []

    def landed(self, lane: CallLane, run: RowRun, step: Any, failure: Failure | None, now: float) -> None:
        self.ended.append((run, step, failure))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with the module ``sample`` in it."""
    (tmp_path / "sample.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("sample", None)


class Scene:
    """A lane of a job of one step, with its rows."""

    def __init__(
        self, function: str, *, mode: str = "", retries: int = 0, take: tuple[tuple[str, str], ...] = ()
    ) -> None:
        step = StepSettings(kind="call", function=f"sample:{function}", mode=mode, into="y")
        plan = StepPlan("one", step, Target("call"), take, retries=retries, timeouts=Timeouts(total_s=60.0))
        whole = job(steps=(plan,), step=step)
        settings = WorkerSettings(job=whole, slot=0, run_id="r", token="t", socket="")
        self.owner = FakeOwner()
        (one,) = jobs_of(whole)
        executor = StepExecutor(one, None, "r", random.Random(1))
        self.chains = Chains(whole, [executor])
        self.lane = CallLane(0, one, settings, self.owner, executor=executor)

    def engage(self, *rows: str) -> None:
        for number, row in enumerate(rows):
            (run,), _ = self.chains.begin(1, RowLine(number, number, row.encode()))
            self.lane.engage(run)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.owner.ended) < count:
                await asyncio.sleep(0.005)


def on_loop(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await scene()

    asyncio.run(main())


def test_only_the_workers_share_and_a_pause_bound_what_runs() -> None:
    async def scene() -> None:
        there = Scene("waits")
        lane = there.lane
        assert (lane.limit(), lane.has_room(), lane.free()) == (0, False, 0)
        lane.tune(3, Terms(1), 0.0)  # a gate is for who must not be asked by many at once
        assert (lane.limit(), lane.is_well(0.0), lane.free()) == (3, True, 3)
        there.engage('{"x": 1}', '{"x": 2}', '{"x": 3}')
        assert (lane.engaged, lane.in_flight, lane.has_room(), lane.free()) == (3, 3, False, 0)
        lane.tune(5, Terms(0), 0.0)
        assert (lane.limit(), lane.is_well(0.0)) == (0, False)
        lane.tune(5, Terms(-1), 0.0, is_paused=True)
        assert lane.limit() == 0
        lane.tune(5, Terms(-1), 0.0)
        assert lane.has_room() and lane.take_tally(0.0).in_flight == 3
        sys.modules["sample"].GO.set()
        await there.until(3)
        assert lane.engaged == 0
        await lane.close()

    on_loop(scene)


def test_a_plain_function_is_engaged_no_more_often_than_its_threads_can_take() -> None:
    async def scene() -> None:
        there = Scene("named")
        there.lane.tune(1_000, Terms(-1), 0.0)
        assert there.lane.limit() == 64
        await there.lane.close()

    on_loop(scene)


def test_a_result_is_the_steps_end_and_no_request() -> None:
    async def scene() -> None:
        there = Scene("named", take=(("y", "x"),))
        there.lane.tune(8, Terms(-1), 0.0)
        there.engage('{"x": 1}', '{"x": [2]}')
        await there.until(2)
        fields = {run.row: step.fields for run, step, _ in there.owner.ended}
        assert fields == {0: {"y": {"y": 1}}, 1: {"y": {"y": [2]}}}
        tally = there.lane.take_tally(0.0)
        assert (tally.requests, tally.replies, tally.ok_replies, tally.latencies) == (0, 2, 2, ())
        assert there.lane.take_tally(0.0).replies == 0
        assert all(run.latency_ms > 0 for run, _, _ in there.owner.ended)
        await there.lane.close()

    on_loop(scene)


def test_an_exception_ends_the_step_unless_it_has_retries_and_each_of_them_sees_the_row_as_it_was() -> None:
    async def scene() -> None:
        final, again = Scene("raises"), Scene("raises", retries=1)
        for there in (final, again):
            there.lane.tune(8, Terms(-1), 0.0)
            there.engage('{"x": 1}')
            await there.until(1)
        ((_, step, failure),) = final.owner.ended
        assert failure is not None and failure.kind is ErrorKind.FUNCTION_ERROR
        assert step.failure.message == "ValueError: so" and "in raises" in step.failure.trace
        assert final.lane.health_of(failure) is Health.NOTHING
        ((run, later, _),) = again.owner.ended
        assert isinstance(later, Later)
        again.lane.engage(run)
        await again.until(2)
        assert again.owner.ended[1][1].failure.message == "ValueError: so (given up after 2 calls)"
        assert sys.modules["sample"].SEEN == [{"x": 1}] * 3
        assert final.lane.take_tally(0.0).ok_replies == 0
        await final.lane.close()
        await again.lane.close()

    on_loop(scene)


@pytest.mark.parametrize(("function", "take"), [("grows", ()), ("grows_named", (("x", "x"),))])
@pytest.mark.parametrize("mode", ["loop", "thread"])
def test_what_a_function_does_to_its_row_stays_with_the_function(
    function: str, take: tuple[tuple[str, str], ...], mode: str
) -> None:
    async def scene() -> None:
        there = Scene(function, mode=mode, take=take)
        there.lane.tune(8, Terms(-1), 0.0)
        (run,), _ = there.chains.begin(1, RowLine(0, 0, b'{"x": [{"deep": [7]}]}'))
        chain = run.chain
        assert isinstance(chain, RowChain)
        for times in (1, 2):
            there.lane.engage(run)
            await there.until(times)
        assert [step.fields["y"] for _, step, _ in there.owner.ended] == [[{"deep": [7, 1]}, "more"]] * 2
        assert chain.values == {"x": [{"deep": [7]}]}, "later steps see the row as it came"
        await there.lane.close()

    on_loop(scene)


def test_it_looks_to_the_loop_like_any_lane_that_never_waits() -> None:
    async def scene() -> None:
        lane = Scene("waits").lane
        lane.use_limiter(LimiterAddress("/s", "t"))
        lane.call_back(avoid=3.0)
        lane.tick(1.0, 0.05)
        assert (lane.number, lane.bit, lane.limiter, lane.breaker, len(lane.queued)) == (0, 1, None, None, 0)
        assert lane.may_serve(0.0, 60.0) and not lane.is_on_trial and not lane.is_refused
        assert not lane.waits_in_vain(9.0) and not lane.has_spared(9.0) and not lane.answers_first()
        await lane.close()

    on_loop(scene)


class Left(BaseException):
    """The process would have ended."""


@pytest.fixture
def worn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every function has worn its process out, and an end of the process is told here."""

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(Functions, "is_worn", True)
    monkeypatch.setattr(module.os, "_exit", leave)


@pytest.mark.usefixtures("worn")
def test_a_worker_that_is_worn_out_begins_nothing_more_and_ends_when_what_runs_has_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        there = Scene("waits")
        there.lane.tune(8, Terms(-1), 0.0)
        there.engage('{"x": 1}')
        there.lane.sweep(10.0)
        assert (there.lane.limit(), there.lane.is_well(10.0)) == (0, False)
        there.lane.sweep(10.0 + 2 * REST_S)
        sys.modules["sample"].GO.set()
        await there.until(1)
        with pytest.raises(Left, match=str(EXIT_WORN)):
            there.lane.sweep(10.0 + 2 * REST_S)
        await there.lane.close()

    on_loop(scene)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "calls of sample:waits hang though their time is up" in said


@pytest.mark.usefixtures("worn")
def test_what_runs_is_not_waited_for_for_ever() -> None:
    async def scene() -> None:
        there = Scene("waits")
        there.engage('{"x": 1}')
        there.lane.sweep(10.0)
        there.lane.sweep(9.0 + REST_MAX_S)
        with pytest.raises(Left):
            there.lane.sweep(10.0 + REST_MAX_S)
        await there.lane.close()

    on_loop(scene)
