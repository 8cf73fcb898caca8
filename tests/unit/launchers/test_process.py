"""What a process of ours does to its limits."""

import resource
from collections.abc import Iterator

import pytest

from engine.launchers.process import open_files_allowed, raise_open_files

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def soft() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.skipif(0 <= HARD <= 2048, reason="this machine allows too few open files")
@pytest.mark.parametrize(("before", "after"), [(256, 1024), (1024, 1024), (2000, 2000)])
def test_a_guest_asks_what_children_may_open_and_leaves_its_host_what_select_takes(
    before: int, after: int
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, HARD))
    allowed = open_files_allowed()
    assert soft() == after
    assert raise_open_files() == allowed == soft() > 2000
    assert open_files_allowed() == allowed == soft()  # what is high already stays so
