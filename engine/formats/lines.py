"""Lines of a text input, split at the newline byte only, in blocks, with bounded memory.

Rules of this file:
1. A line ends at ``\\n``: not at U+2028, U+0085, a form feed or a lone carriage return, which text may hold.
2. A line over the cap is hashed and dropped while it is read; it is never held.
3. A compressed input that ends too early or is damaged costs the rest of the file, never what came before it.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import BinaryIO, NamedTuple, cast

from engine.core.errors import UsageError

CHUNK_BYTES = 256 * 1024
BOM = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Block(NamedTuple):
    """Whole lines in order, without their newlines; ``number`` is the first one's, from 1.

    With ``bad`` set it is one line that cannot be used. Its data is then the line, or the line's digest when
    it was too long to keep.
    """

    number: int
    lines: list[bytes]
    bad: str = ""


def size_text(size: int) -> str:
    """A number of bytes for people: ``16 MB``, ``1.5 MB``, ``300 bytes``. MB are 2^20 bytes."""
    if size < 1024 * 1024:
        return f"{size} bytes" if size < 10 * 1024 else f"{size // 1024} kB"
    return f"{size / (1024 * 1024):.4g} MB"


def blocks(stream: BinaryIO, *, line_bytes_max: int) -> Iterator[Block]:
    """All lines of a stream. A last line without a newline is a line; a byte order mark is taken off.

    Bounds: holds at most ``line_bytes_max`` plus two chunks. Raises UsageError for UTF-16, OSError for a
    stream that cannot be read any further.
    """
    for block in _split(stream, line_bytes_max):
        if block.number == 1 and block.lines:
            first = block.lines[0]
            if first.startswith(_UTF16_MARKS):
                raise UsageError(
                    "The input is UTF-16, not UTF-8. Convert it first: iconv -f UTF-16 -t UTF-8 IN > OUT."
                )
            block.lines[0] = first.removeprefix(BOM)
        yield block


def _split(stream: BinaryIO, line_bytes_max: int) -> Iterator[Block]:
    # read1 returns what a pipe has now; read would wait for a whole chunk of slowly produced rows.
    read = cast(Callable[[int], bytes], getattr(stream, "read1", stream.read))
    # With a chunk no larger than the cap, only a line that crosses chunks can be over it.
    size = min(CHUNK_BYTES, line_bytes_max)
    number = 1
    tail = _Tail(line_bytes_max)
    while True:
        try:
            chunk = read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            # zlib.error and a wrong checksum mean damage, EOFError a file that was cut.
            data, _ = tail.take(b"")
            yield Block(
                number,
                [data],
                f"line {number}: the compressed input is cut off or damaged here; "
                "the rows from here on are missing",
            )
            return
        if not chunk:
            break
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            tail.add(chunk)
            continue
        last = lines.pop()
        if tail.held:
            lines[0], is_over = tail.take(lines[0])
            if is_over:
                yield Block(number, [lines.pop(0)], _too_long(number, line_bytes_max))
                number += 1
        yield Block(number, lines)
        number += len(lines)
        tail.add(last)
    if tail.held:
        data, is_over = tail.take(b"")
        yield Block(number, [data], _too_long(number, line_bytes_max) if is_over else "")


def _too_long(number: int, line_bytes_max: int) -> str:
    return f"line {number} is longer than {size_text(line_bytes_max)}, the limit for one row"


class _Tail:
    """The beginning of a line whose end has not been read yet; only its digest once it is over the cap."""

    __slots__ = ("_bytes_max", "_hash", "_parts", "held")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self._hash: blake2b | None = None
        self.held = 0  # bytes of the line so far, kept or not

    def add(self, part: bytes) -> None:
        if not part:
            return
        self.held += len(part)
        if self._hash is not None:
            self._hash.update(part)
            return
        self._parts.append(part)
        # One byte more than the cap may be a carriage return before the newline.
        if self.held > self._bytes_max + 1:
            self._hash = blake2b(b"".join(self._parts), digest_size=16)
            self._parts.clear()

    def take(self, end: bytes) -> tuple[bytes, bool]:
        """The whole line and False, or its digest and True where it is over the cap; begins anew."""
        self.add(end)
        if self._hash is not None:
            line, is_over = self._hash.digest(), True
        else:
            line = b"".join(self._parts)
            is_over = len(line) - line.endswith(b"\r") > self._bytes_max
        self._parts.clear()
        self._hash = None
        self.held = 0
        return line, is_over
