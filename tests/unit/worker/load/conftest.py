"""A drive on a virtual clock."""

import pytest
from clockwork import Clockwork
from drives import BellClock, Scene

from engine.worker.load import drive as drive_module


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    clock = Clockwork()
    monkeypatch.setattr(drive_module.asyncio, "get_running_loop", lambda: clock)
    monkeypatch.setattr(drive_module, "monotonic", clock.time)
    monkeypatch.setattr(drive_module, "process_time", clock.time)
    monkeypatch.setattr(drive_module, "Alarm", BellClock)
    return Scene(clock)
