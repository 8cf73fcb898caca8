"""What all tests share: the support folder on the path, and limiters that no other test can join."""

import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

from scorecard import Scorecard

# For who only asks whether a test fails: making the failing case small can take longer than all the rest.
settings.register_profile("unshrunk", phases=(Phase.explicit, Phase.reuse, Phase.generate))


@pytest.fixture(autouse=True)
def limiter_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for the limiters of each test: a port is used again, its quota is not."""
    folder = Path(tempfile.mkdtemp(prefix="el-"))  # pytest's own are too long for a socket's path
    monkeypatch.setenv("ENGINE_LIMITER_DIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The fault campaign's size, and where its counts go."""
    parser.addoption("--trials", choices=("quick", "nightly"), default="quick", help="size of tests/faults")
    parser.addoption("--scorecard", default="", help="a folder for the counts of tests/faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the quick set there is nothing marked ``nightly``, and of what is marked ``quick(name=values)`` only that."""
    if config.getoption("--trials") != "quick":
        return
    for item in items:
        few = item.get_closest_marker("quick")
        chosen = {} if few is None else few.kwargs
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        is_left_out = any(parameters[name] not in values for name, values in chosen.items())
        if is_left_out or item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.skip(reason="in the nightly set"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put a test that failed on the scorecard: it may have ended before it counted anything."""
    report = yield
    if report.failed:
        _scorecard_of(item.config).failed(item.nodeid)
    return report


def _scorecard_of(config: pytest.Config) -> Scorecard:
    folder = config.getoption("--scorecard")
    return Scorecard(Path(folder) if folder else None)


@pytest.fixture(scope="session")
def scorecard(pytestconfig: pytest.Config) -> Scorecard:
    """Where a campaign's test counts its trials."""
    return _scorecard_of(pytestconfig)
