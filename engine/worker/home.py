"""Makes a process a place where a program's functions find what they find at home: modules, arguments, no input to wait for."""

import io
import os
import sys
import threading
from contextlib import suppress
from typing import Final, TextIO

from engine.handover import Surroundings

HALF_CHARS_MAX: Final = 16_384  # of a line whose end has not come


class WholeLines(io.TextIOWrapper):
    """A stream that functions in several threads print to: a line is written when its end comes, in one piece.

    ``print`` alone writes a line in several, and other threads come between. A line without an end is written by ``flush``,
    when it has become long, and by ``end_line``.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        # Nothing that cannot be said is to fail a row.
        super().__init__(stream.buffer, stream.encoding, "backslashreplace", line_buffering=True)
        self._mine = _Half()
        self._stream = stream  # which would close the buffer when it goes

    def write(self, text: str) -> int:
        """See the base's."""
        mine = self._mine
        whole, end, rest = text.rpartition("\n")
        if end:
            super().write(f"{mine.take()}{whole}\n")
        if rest:
            mine.pieces.append(rest)
            mine.chars += len(rest)
            if mine.chars > HALF_CHARS_MAX:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """See the base's: of this thread's line, as far as it has come."""
        if self._mine.pieces:
            super().write(self._mine.take())
        super().flush()

    def end_line(self) -> None:
        """End this thread's line, if it has begun one."""
        if self._mine.pieces:
            super().write(f"{self._mine.take()}\n")


class _Half(threading.local):
    """What a thread has written of a line."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.chars = 0

    def take(self) -> str:
        half, self.pieces, self.chars = "".join(self.pieces), [], 0
        return half


def end_lines() -> None:
    """To be called when a function has ended: what it printed without an end is a line, too."""
    for stream in (sys.stdout, sys.stderr):
        if type(stream) is WholeLines:
            stream.end_line()


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
