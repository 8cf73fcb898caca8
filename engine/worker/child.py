"""``python -m engine.worker.child``: a worker's own child, which calls one function, for one row at a time.

Rules of this file:
1. It finds the function by its name, as its worker does; what is pickled came on its standard input, once, at its start.
2. It ends with its worker: by the kernel's signal where there is one, and everywhere by the end of its standard input,
   which a thread of its own waits for, whatever the function does.
3. The pipes are out of the function's reach: what it prints goes to standard error, what it reads is empty.
"""

import asyncio
import inspect
import os
import signal
import sys
import threading
from queue import SimpleQueue
from typing import Any

from engine.core.errors import EngineError
from engine.core.model import Failure, Reply
from engine.handover import ChildSettings, decode_handover
from engine.launchers.process import die_with_parent, dump_no_core
from engine.steps.call import checked, raised
from engine.steps.finding import resolve
from engine.steps.functions import Function
from engine.worker.frames import READY, Frames, framed, told, value_of
from engine.worker.home import end_lines, settle_in

READ_BYTES = 1024 * 1024


def main() -> int:
    """Serve until standard input ends. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    dump_no_core()
    settings, _ = decode_handover(_line(), ChildSettings)
    if not die_with_parent(settings.parent_pid):
        return 0
    source, target = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    settle_in(settings.surroundings)
    try:
        home = settings.surroundings
        function = resolve(
            settings.function,
            settings.folder,
            home.pickled,
            script_package=home.script_package,
            script_end=home.script_end,
        )
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    asked: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(source, asked), daemon=True).start()
    _write(target, framed(READY))
    with asyncio.Runner() as runner:
        while True:
            arguments = value_of(asked.get())
            result = _called(function, arguments, settings, runner)
            _write(target, framed(told(result)))


def _called(
    function: Function, arguments: Any, settings: ChildSettings, runner: asyncio.Runner
) -> Reply | Failure:
    try:
        value = function(**arguments) if settings.by_name else function(arguments)
        if inspect.isawaitable(value):
            value = runner.run(_awaited(value))
    except BaseException as error:  # SystemExit too is its row's end, not the process's
        return raised(error)
    finally:
        end_lines()
    return checked(value, settings.bytes_max)


async def _awaited(value: Any) -> Any:
    return await value


def _listen(source: int, asked: "SimpleQueue[bytes]") -> None:
    frames = Frames()
    while data := os.read(source, READ_BYTES):
        for body in frames.feed(data):
            asked.put(body)
    os._exit(0)


def _line() -> bytes:
    """The first line of standard input; the worker sends nothing more before it hears that this process is ready."""
    parts = [b""]
    while not parts[-1].endswith(b"\n"):
        part = os.read(0, READ_BYTES)
        if not part:
            os._exit(0)
        parts.append(part)
    return b"".join(parts)


def _write(target: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(target, view) :]


if __name__ == "__main__":
    sys.exit(main())
