"""What every worker process does at its start and end, whatever it sends.

Rules of this file:
1. It outlives its coordinator by nothing: the kernel's parent-death signal where there is one, and everywhere the
   end of standard input, which the coordinator holds open for as long as it lives.
2. SIGINT is the coordinator's to handle: a terminal sends it to the whole group.
"""

import asyncio
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import uvloop

from engine.core.errors import CannotStart, ExitCode, UsageError
from engine.credentials import Auth
from engine.handover import S, decode_handover
from engine.launchers.process import die_with_parent, dump_no_core, raise_open_files
from engine.observe.fault import fault_text
from engine.worker.fault import EXIT_FAULT

# Measured with 2,000 requests in flight: collections of the young generation over thousands of live objects cost
# half the throughput. Frozen and rarely collected, a worker's memory stays flat all the same: nothing here is cyclic
# on the row path but what aiohttp makes, and that is collected every few thousand requests.
GC_THRESHOLDS = (50_000, 20, 50)
READ_BYTES = 1024 * 1024


class Serves(Protocol):
    """What a worker process is there for."""

    async def run(self) -> None:
        """Until its coordinator says that all is done."""


def serve(of: type[S], make: Callable[[S, tuple[Auth, ...]], Serves]) -> int:
    """Read the settings from standard input, make a worker of them on the loop, and run it. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    dump_no_core()
    settings, auth = decode_handover(read_line(), of)
    if not die_with_parent(settings.parent_pid):
        return 0
    raise_open_files()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(on_fault)
        worker = make(settings, auth)
        watch_standard_input()
        await worker.run()

    try:
        uvloop.run(run())
    except (CannotStart, UsageError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except Exception as error:  # the interpreter would print it as it is
        sys.stderr.write(fault_text(error))
        return ExitCode.INTERNAL
    return 0


def read_line() -> bytes:
    """The first line of standard input, in large pieces; nothing follows it but the input's end."""
    parts = [b""]
    while not parts[-1].endswith(b"\n"):
        part = os.read(0, READ_BYTES)
        if not part:
            break  # the coordinator died within the line, which cannot be read then
        parts.append(part)
    return b"".join(parts)


def on_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop would log as it is. A callback of ours that raised ends the process: it took half a decision.

    What a connection or a task of the libraries raised is told, and harmless: a server must not end a worker by it.
    """
    error = context.get("exception")
    if error is None:
        loop.default_exception_handler(context)
        return
    sys.stderr.write(fault_text(error))
    sys.stderr.flush()
    if "handle" in context and any(
        frame.f_globals.get("__name__", "").startswith("engine.")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ):
        os._exit(EXIT_FAULT)


def watch_standard_input() -> None:
    """Exit on the spot when the coordinator's end of standard input closes."""

    def ended() -> None:
        if not os.read(0, 65536):
            os._exit(0)

    os.set_blocking(0, False)
    asyncio.get_running_loop().add_reader(0, ended)
