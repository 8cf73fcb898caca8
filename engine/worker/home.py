"""Makes a process a place where a program's functions find what they find at home: modules, arguments, no input to wait for."""

import io
import os
import sys
import threading
from contextlib import suppress
from typing import TextIO

from engine.handover import Surroundings


class WholeLines(io.TextIOWrapper):
    """A stream that functions in several threads print to: a line is written when its end comes, in one piece.

    ``print`` alone writes a line in several, and other threads come between. A line without an end is written by ``flush``.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        # Nothing that cannot be said is to fail a row.
        super().__init__(stream.buffer, stream.encoding, "backslashreplace", line_buffering=True)
        self._mine = threading.local()
        self._stream = stream  # which would close the buffer when it goes

    def write(self, text: str) -> int:
        """See the base's."""
        whole, end, rest = text.rpartition("\n")
        half = getattr(self._mine, "half", "")
        if end:
            self._mine.half = rest
            super().write(f"{half}{whole}\n")
        else:
            self._mine.half = half + rest
        return len(text)

    def flush(self) -> None:
        """See the base's: of this thread's line, as far as it has come."""
        half = getattr(self._mine, "half", "")
        if half:
            self._mine.half = ""
            super().write(half)
        super().flush()


def whole_lines(stream: TextIO) -> TextIO:
    """The same stream for whole lines; what is none of Python's own as it is."""
    return WholeLines(stream) if type(stream) is io.TextIOWrapper else stream


def settle_in(surroundings: Surroundings) -> None:
    """To be called once, before functions are looked for."""
    if surroundings.import_path:
        known = set(surroundings.import_path)
        sys.path[:] = [*surroundings.import_path, *(one for one in sys.path if one not in known)]
    if surroundings.argv:
        sys.argv[:] = surroundings.argv
    if (
        surroundings.folder
    ):  # the program may have gone elsewhere since, and this be a worker that replaces another
        with suppress(OSError):
            os.chdir(surroundings.folder)
    sys.stdout, sys.stderr = whole_lines(sys.stdout), whole_lines(sys.stderr)
    # Standard input is the parent's pipe: a function that reads from it finds it empty instead of waiting for ever.
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as the process lives
