"""What whole runs share: none of them outlives its test, however that ends."""

from collections.abc import Iterator

import pytest
from runs import STARTED


@pytest.fixture(autouse=True)
def clear_away() -> Iterator[None]:
    """Kill what a failed test left running."""
    yield
    while STARTED:
        STARTED.pop().clear_away()
