"""A fault of ours ends the worker on the spot: its rows are leased again, and nothing goes on half done."""

import asyncio
import os
import sys
from typing import Final, NoReturn

from engine.observe.fault import fault_text

EXIT_FAULT: Final = 70


def die_of(error: BaseException) -> NoReturn:
    """Say what happened, and end this process."""
    sys.stderr.write(fault_text(error))
    sys.stderr.flush()
    os._exit(EXIT_FAULT)


def die_of_task(task: "asyncio.Task[None]") -> None:
    """A task that has ended by an exception: none of ours is to."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        die_of(error)
