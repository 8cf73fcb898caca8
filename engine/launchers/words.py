"""What a child writes, line by line, out of the file that it writes to.

Rules of this file:
1. A child never waits for whoever reads: it writes to a file. The file is kept short: what was read is cut off.
2. Lines are whole. Where there are more than can be shown, the middle is left out, and that is said.
"""

import os
from pathlib import Path
from typing import Final

PIECE_BYTES: Final = 64 * 1024  # read at once
BEHIND_BYTES: Final = 1024 * 1024  # of more than this that waits, the middle is left out
FILE_BYTES_MAX: Final = 8 * 1024 * 1024  # where it is cut off even while the child writes
LINE_BYTES_MAX: Final = 16 * 1024
TAIL_BYTES: Final = 8 * 1024  # kept for the last words


class Words:
    """The file ``path``, which a child appends to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0  # what was read of the file
        self._size = 0  # of the file, when it was last looked at
        self._half = b""  # of a line whose end has not come yet
        self._tail = b""

    def lines(self, *, is_over: bool = False) -> list[str]:
        """What has come since the last time, at most about ``PIECE_BYTES``. ``is_over``: all that is left, half a line too."""
        try:
            data = self._piece(is_over=is_over)
        except OSError:  # the folder is gone
            data = b""
        *whole, self._half = (self._half + data).split(b"\n")
        if self._half and (is_over or len(self._half) > LINE_BYTES_MAX):
            whole, self._half = [*whole, self._half], b""
        return [line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r") for line in whole]

    def _piece(self, *, is_over: bool) -> bytes:
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(self._at)
            data = file.read(PIECE_BYTES)
            left_out = size - self._at - len(data) - PIECE_BYTES
            if left_out > BEHIND_BYTES:
                file.seek(size - PIECE_BYTES)
                _, _, rest = file.read(PIECE_BYTES).partition(b"\n")  # from the beginning of a line
                data += b"\n(... %d bytes are left out)\n" % (left_out + PIECE_BYTES - len(rest)) + rest
                self._at = size
            else:
                if is_over:
                    data += file.read()
                self._at += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        is_still = (
            size == self._size or size > FILE_BYTES_MAX
        )  # who writes just now would lose a line by the cut
        self._size = size
        if self._at >= BEHIND_BYTES and self._at >= size and is_still:
            os.truncate(self._path, 0)
            self._at = self._size = 0
        return data

    def last(self, chars_max: int) -> str:
        """The end of all that was written."""
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(self._at, size - 4 * chars_max))
                data = file.read(4 * chars_max)
        except OSError:
            data = b""
        return (self._tail + data).decode("utf-8", "replace")[-chars_max:].strip()
