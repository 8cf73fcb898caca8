"""Seeds lived one after the other, and what is said of one that failed.

Rules of this file:
1. A failure names the command that lives the same world again: ``python tests/sim/lives.py SEED KIND``.
"""

import asyncio
import gc
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as the tests' own conftest.py has it
    sys.path[1:1] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

from edges import scripted
from shape import shape_of
from stepworld import StepWorld
from virtual import OUTSIDE, PROCESS
from world import World

_MEMORY = Path("/dev/shm")  # the registry's few files, where files cost nothing


def lived(seed: int, kind: str, **changes: Any) -> World:
    """One world, lived to its end."""
    folder = Path(tempfile.mkdtemp(prefix="sim-", dir=_MEMORY if _MEMORY.is_dir() else None))
    gc.disable()  # a world is small, and most of it lives to its end
    try:
        return simulate(seed, folder, kind=kind, **changes)
    finally:
        gc.enable()
        shutil.rmtree(folder, ignore_errors=True)


def simulate(seed: int, folder: Path, *, kind: str = "wide", **changes: Any) -> World:
    """One seed's world of this kind, lived to its end. ``changes``: fields of its shape that are otherwise."""
    shape = replace(shape_of(seed, kind), **changes)
    world = StepWorld(seed, folder, shape) if shape.steps else World(seed, folder, shape)
    PROCESS.set(OUTSIDE)
    with scripted(world):
        asyncio.set_event_loop(world.loop)
        try:
            world.live()
        finally:
            asyncio.set_event_loop(None)
            world.loop.close()
    return world


def replay(seed: int, kind: str, found: dict[str, Any]) -> str:
    """What is printed of a seed that failed."""
    return f"{found}\n  again: python tests/sim/lives.py {seed} {kind!r}; then keep ({seed}, {kind!r}) in KEPT_SEEDS"


def first_failing(seeds: Iterable[int], kind: str) -> int | None:
    """The first of these seeds in whose world something is wrong."""
    return next((seed for seed in seeds if lived(seed, kind).wrong()), None)


def main(seed: int, kind: str) -> int:
    """Live it, and say what happened."""
    world = lived(seed, kind)
    print(world.shape)
    for note in world.notes:
        print(note)
    found = world.wrong()
    print(
        f"{world.lived_s:.2f} virtual seconds, {len(world.arrivals)} calls, {world.kills} kills: {found or 'well'}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "wide"))
