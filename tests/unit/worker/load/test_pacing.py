"""The alarm rings at its time, once, and never before it; with the system's timer or without."""

import asyncio
from time import monotonic

import pytest
import uvloop

from engine.worker.load import pacing
from engine.worker.load.pacing import Alarm


@pytest.fixture(params=["timerfd", "loop"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "loop":
        monkeypatch.setattr(pacing, "_timer_descriptor", lambda: -1)
    return str(request.param)


def rings(*times: float) -> list[float]:
    """When an alarm rang that was set to each of these moments in turn, from now."""
    rang: list[float] = []

    async def scene() -> None:
        done = asyncio.Event()

        def ring() -> None:
            rang.append(monotonic() - began)
            if len(rang) < len(times):
                alarm.set(began + times[len(rang)])
            else:
                done.set()

        alarm = Alarm(asyncio.get_running_loop(), ring)
        began = monotonic()
        alarm.set(began + times[0])
        await asyncio.wait_for(done.wait(), 5.0)
        alarm.close()

    uvloop.run(scene())
    return rang


def test_it_rings_at_each_time_and_not_before(clock: str) -> None:
    times = [0.0105, 0.0117, 0.03, 0.0301]
    grain_s = (
        0.0 if clock == "timerfd" else 0.003
    )  # a loop's own timers count whole milliseconds from a time it looked up before
    for rang, due in zip(rings(*times), times, strict=True):
        assert due - grain_s <= rang < due + 1.0


def test_a_time_that_is_past_rings_at_once(clock: str) -> None:
    assert rings(-5.0)[0] < 1.0


def test_setting_it_again_replaces_what_it_was_set_to_and_a_closed_one_is_silent(clock: str) -> None:
    rang: list[float] = []

    async def scene() -> None:
        alarm = Alarm(asyncio.get_running_loop(), lambda: rang.append(monotonic()))
        began = monotonic()
        alarm.set(began + 0.01)
        alarm.set(began + 0.03)
        await asyncio.sleep(0.06)
        assert len(rang) == 1
        assert rang[0] >= began + 0.027
        alarm.set(monotonic() + 0.01)
        alarm.close()
        await asyncio.sleep(0.03)

    uvloop.run(scene())
    assert len(rang) == 1
