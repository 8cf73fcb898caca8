"""Pools over the mock provider, and what a run may leave behind: nothing."""

import os
import tempfile
from pathlib import Path

import psutil
from runs import is_alive

from engine import ask
from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess

ASK = ask("{{ text }}", model="mock")


def texts(count: int) -> list[str]:
    """So many rows, which all differ."""
    return [f"row {number} says hello" for number in range(count)]


def provider(latency: str, *faults: str) -> MockProcess:
    """A mock provider with faults as the command line's."""
    return MockProcess(MockSettings(latency=latency, faults=tuple(map(parse_fault, faults))))


def children() -> list[psutil.Process]:
    """The workers that this process has started."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if is_alive(child.pid) and "engine.worker" in " ".join(child.cmdline())]


def folders() -> set[str]:
    """The private folders that runs of this process have now."""
    return {path.name for path in Path(tempfile.gettempdir()).glob(f"engine-{os.getpid()}-*")}
