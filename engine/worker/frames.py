"""What goes through the pipes between a worker and a child of its own that runs a function: a length, then JSON.

Rules of this file:
1. Nothing is pickled: arguments and results are the JSON that rows are made of.
"""

from typing import Any, Final

import msgspec

from engine.core.errors import ErrorKind, RowError
from engine.core.model import Failure, Reply
from engine.formats.rows import decode_json

HEAD_BYTES: Final = 4
LEVELS_MAX: Final = 100_000  # what one of our processes has checked is not bounded again
READY: Final = b"!"
_RETURNED: Final = b"+"
_FAILED: Final = b"-"

_decode_failure = msgspec.json.Decoder(tuple[str, str, str]).decode


def framed(body: bytes) -> bytes:
    """A frame. Bounds: less than 4 GiB."""
    return len(body).to_bytes(HEAD_BYTES, "big") + body


def told(result: Reply | Failure) -> bytes:
    """A result as a frame's body."""
    if isinstance(result, Failure):
        return _FAILED + msgspec.json.encode((str(result.kind), result.message, result.trace))
    return _RETURNED + result.body


def heard(body: bytes) -> Reply | Failure:
    """The result that a frame's body tells."""
    if body[:1] == _RETURNED:
        return Reply(200, {}, body[1:])
    kind, message, trace = _decode_failure(body[1:])
    return Failure(ErrorKind(kind), message, trace=trace)


def value_of(data: bytes) -> Any:
    """The value of JSON that one of our processes wrote."""
    try:
        return decode_json(data, LEVELS_MAX)
    except RowError as error:
        raise AssertionError(f"a frame holds {error.message}") from None


class Frames:
    """Frames out of a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are whole now."""
        buffer = self._buffer
        buffer += data
        found = []
        while len(buffer) >= HEAD_BYTES:
            end = HEAD_BYTES + int.from_bytes(buffer[:HEAD_BYTES], "big")
            if len(buffer) < end:
                break
            found.append(bytes(buffer[HEAD_BYTES:end]))
            del buffer[:end]
        return found
