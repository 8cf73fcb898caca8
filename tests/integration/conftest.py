"""What whole runs share: none of them outlives its test, however that ends."""

import threading
from collections.abc import Iterator

import pytest
from pools import children, folders
from runs import STARTED


@pytest.fixture(autouse=True)
def clear_away() -> Iterator[None]:
    """Kill what a failed test left running."""
    yield
    while STARTED:
        STARTED.pop().clear_away()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No worker, folder or thread of a run in this process outlives its test."""
    before = folders()
    yield
    assert children() == []
    assert folders() <= before
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name in ("engine run", "feed", "writer", "rows")]
