"""The input's bytes: a file, a pipe or standard input.

Rules of this file:
1. Standard input is opened once, beside Python's own ``sys.stdin``: a thread that hangs in a read of that one
   makes the interpreter abort when it ends.
2. Whoever reads can have word before a read that would wait, so that rows at hand are not kept waiting with it.
"""

import functools
import io
import select
import sys
from collections.abc import Callable

from engine.core.errors import UsageError

BUFFER_BYTES = 1024 * 1024


class InputFile(io.FileIO):
    """A file whose reader can be told, on the reading thread, that a read is about to wait."""

    def __init__(self, file: str | int) -> None:
        super().__init__(file, "rb", closefd=isinstance(file, str))
        self.on_wait: Callable[[], None] | None = None
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)

    def readinto(self, buffer: "io._WriteableBuffer", /) -> int:  # type: ignore[name-defined]
        """As FileIO's, with word before it waits."""
        if self.on_wait is not None and not self._poll.poll(0):
            self.on_wait()
        return super().readinto(buffer)


def open_input(path: str) -> io.BufferedReader:
    """The input at ``path``; ``-`` is standard input, which stays open. Raises UsageError."""
    if path == "-":
        return standard_input()
    try:
        return io.BufferedReader(InputFile(path), BUFFER_BYTES)
    except IsADirectoryError:
        raise UsageError(f"The input {path} is a folder. Give a file.") from None
    except FileNotFoundError:
        raise UsageError(f"The input {path} does not exist.") from None
    except OSError as error:
        raise UsageError(f"The input {path} cannot be opened: {error.strerror}.") from None


@functools.cache
def standard_input() -> io.BufferedReader:
    """Standard input, the same object for whoever peeks and whoever reads. Raises UsageError when it is closed."""
    if sys.stdin is None:
        raise UsageError("Standard input is closed. Pipe rows into it, or name a file.")
    try:
        return io.BufferedReader(InputFile(0), BUFFER_BYTES)
    except OSError as error:
        raise UsageError(f"Standard input cannot be read: {error.strerror}.") from None
