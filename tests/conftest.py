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
    sizes = ("quick", "ordinary", "nightly")
    parser.addoption("--trials", choices=sizes, default="ordinary", help="size of tests/faults")
    parser.addoption("--scorecard", default="", help="a folder for the counts of tests/faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is for larger sets than the one asked for; the marks are explained in pyproject.toml."""
    left_out = {"quick": ("not_quick", "nightly"), "ordinary": ("nightly",), "nightly": ()}
    narrowed = {"quick": ("quick", "few"), "ordinary": ("few",), "nightly": ()}
    size = config.getoption("--trials")
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        marks = [mark for name in narrowed[size] for mark in item.iter_markers(name)]
        is_other = any(
            parameters[name] not in values for mark in marks for name, values in mark.kwargs.items()
        )
        if is_other or any(item.get_closest_marker(name) for name in left_out[size]):
            item.add_marker(pytest.mark.skip(reason="in a larger set"))


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
