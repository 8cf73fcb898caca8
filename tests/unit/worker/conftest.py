"""What is promised of one wire is promised of all: tests that ask for ``each_wire`` run over each of them."""

import pytest

from engine.worker.fetch import Fetcher
from engine.worker.wires import WIRES


@pytest.fixture(params=WIRES)
def each_wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The wire that a Fetcher uses within this test unless it is told otherwise."""
    assert Fetcher.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Fetcher.__init__.__kwdefaults__, "wire", request.param)
    wire: str = request.param
    return wire
