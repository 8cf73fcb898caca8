"""``python -m engine.worker``: one worker process. Its settings come as one line on standard input.

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
from typing import Any

from engine.launchers.process import die_with_parent, dump_no_core, named_parent, raise_open_files

if __name__ == "__main__":
    # Before the imports below, which take most of a start: who loses its parent meanwhile is not to outlive it.
    if not die_with_parent(named_parent()):
        sys.exit(0)

import uvloop

from engine.core.errors import CannotStart, ExitCode
from engine.handover import decode_handover
from engine.observe.fault import fault_text
from engine.worker.fault import EXIT_FAULT
from engine.worker.loop import Worker

# Measured with 2,000 requests in flight: collections of the young generation over thousands of live objects cost
# half the throughput. Frozen and rarely collected, a worker's memory stays flat all the same: nothing here is cyclic
# on the row path but what aiohttp makes, and that is collected every few thousand requests.
GC_THRESHOLDS = (50_000, 20, 50)


def main() -> int:
    """Run until told to close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    dump_no_core()
    line = (
        sys.stdin.buffer.raw.readline() if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer.readline()
    )
    settings, auth = decode_handover(line)
    del line
    if not die_with_parent(settings.parent_pid):
        return 0
    raise_open_files()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)

    async def serve() -> None:
        asyncio.get_running_loop().set_exception_handler(on_fault)
        worker = Worker(settings, auth)
        watch_standard_input()
        await worker.run()

    try:
        uvloop.run(serve())
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except Exception as error:  # the interpreter would print it as it is
        sys.stderr.write(fault_text(error))
        return ExitCode.INTERNAL
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
