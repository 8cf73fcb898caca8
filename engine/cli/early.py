"""What a signal does before a command has begun anything.

Rules of this file:
1. Nothing is raised: a KeyboardInterrupt in the middle of an import may be swallowed, or end Python by the signal.
2. Only standard modules are imported: this is loaded before everything else.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

EXIT_INTERRUPTED: Final = 4  # core.errors.ExitCode.INTERRUPTED
_before: dict[int, Any] = {}  # signal -> its handler until ``begin``


@contextmanager
def ended_by_signals(sentence: str) -> Iterator[None]:
    """Within it, up to ``begin``, Ctrl-C and SIGTERM end the process on the spot, with a sentence and exit 4.

    For times in which there is nothing to clear away. Signals that are ignored, and threads, are left alone.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"engine: {sentence}\n".encode())
        os._exit(EXIT_INTERRUPTED)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler != signal.SIG_IGN:
                _before.setdefault(number, handler)
                signal.signal(number, end)
    try:
        yield
    finally:
        begin()


def begin() -> None:
    """From now on there is something to clear away: signals do what they did."""
    while _before:
        number, handler = _before.popitem()
        signal.signal(number, handler)
