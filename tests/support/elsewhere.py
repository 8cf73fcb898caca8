"""Functions called in a process of their own, as a worker's child calls them."""

import asyncio
import json
import os
from typing import Any

from engine.core.errors import ErrorKind
from engine.core.model import Failure, Reply
from engine.handover import ChildSettings, Surroundings
from engine.worker.children import Children


def settings(
    spec: str,
    pickled: dict[str, bytes] | None = None,
    import_path: tuple[str, ...] = (),
    *,
    by_name: bool = False,
    script_end: int = 0,
) -> ChildSettings:
    """A child's start."""
    home = Surroundings(import_path, ("program", "--flag"), pickled or {}, script_end=script_end)
    return ChildSettings(spec, by_name, 1_000_000, home, os.getpid())


def elsewhere(
    spec: str,
    rows: list[dict[str, Any]],
    *,
    pickled: bytes | None = None,
    import_path: tuple[str, ...] = (),
    by_name: bool = False,
    script_end: int = 0,
) -> list[Any]:
    """What the function returns for each of the rows; for one that fails its message."""
    handed = {} if pickled is None else {spec.partition(":")[2]: pickled}
    return asyncio.run(
        _called(settings(spec, handed, import_path, by_name=by_name, script_end=script_end), rows)
    )


async def _called(child: ChildSettings, rows: list[dict[str, Any]]) -> list[Any]:
    ended: dict[int, Any] = {}
    children = Children(
        child, timeout_s=30.0, late=lambda: Failure(ErrorKind.TIMEOUT, "late"), processes_max=1
    )
    async with asyncio.timeout(60):
        for number, row in enumerate(rows):
            children.start(row, lambda result, number=number: ended.update({number: result}))
        while len(ended) < len(rows):
            await asyncio.sleep(0.005)
        await children.close()
    return [told(ended[number]) for number in range(len(rows))]


def told(result: Reply | Failure) -> Any:
    """A result's value, or its failure's message."""
    return json.loads(result.body) if isinstance(result, Reply) else result.message
