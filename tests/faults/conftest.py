"""What the campaign's tests share: nothing of a run outlives its test."""

from collections.abc import Iterator

import pytest
from runs import STARTED


@pytest.fixture(autouse=True)
def clear_away() -> Iterator[None]:
    """Kill what a failed test left running."""
    yield
    while STARTED:
        STARTED.pop().clear_away()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``seed`` is one of few in the ordinary tests, and one of many in the nightly set."""
    if "seed" in metafunc.fixturenames:
        few, many = getattr(metafunc.function, "seeds", (2, 50))
        is_nightly = metafunc.config.getoption("--trials") == "nightly"
        metafunc.parametrize("seed", range(1, 1 + (many if is_nightly else few)))
