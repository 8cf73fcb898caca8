"""The functions of a pool's steps, as workers find them.

Rules of this file:
1. A function travels by name where it can; its bytes, where it has to be pickled, go beside the job and never in it.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engine.api.steps import Step
from engine.core.errors import UsageError
from engine.handover import Surroundings
from engine.steps import functions


def settled(steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], Surroundings]:
    """The steps with their functions named, and what workers need to find these.

    Functions, and the globals that they refer to, go as they are now. Raises UsageError for a function that cannot travel to
    another process.
    """
    if all(step.kind != "call" for step in steps):
        return steps, Surroundings()
    pickled: dict[str, bytes] = {}
    named = []
    for step in steps:
        if step.function is not None:
            if step.settings.get("mode") == "thread" and functions.is_async(step.function):
                raise UsageError(
                    "An async function runs on its worker's event loop, not in a thread. Leave mode out. Nothing was sent."
                )
            name, data = functions.travelling(step.function)
            if data is not None:
                pickled[name.partition(":")[2]] = data
            step = replace(step, settings={**step.settings, "function": name})
        named.append(step)
    return tuple(named), Surroundings(
        tuple(sys.path),
        tuple(sys.argv),
        pickled,
        _folder(),
        script_package=functions.script_package,
        script_end=functions.script_end,
    )


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is not there any more
        return ""


def of_the_bare_row(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """The function, for rows that are no mappings: it is called with the row itself, which stands alone in its column.

    Rows with columns of their own, where they are between the others, come as they are.
    """

    def bare(row: Mapping[str, Any]) -> Any:  # in here, so that it travels along
        if len(row) == 1:
            if "value" in row:
                return row["value"]
            if isinstance(row.get("text"), str):
                return row["text"]
        return row

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(row: Mapping[str, Any]) -> Any:
            return await function(bare(row))

        return awaited

    def called(row: Mapping[str, Any]) -> Any:
        return function(bare(row))

    called.__qualname__ = called.__name__ = getattr(function, "__name__", "function")
    return called
