"""Server-sent events, and JSON lines, out of bytes that are cut anywhere.

Rules of this file:
1. What comes out does not depend on where the bytes were cut. An event is only out once its end is in.
2. Linear in the length of the stream, whatever it holds: what has no end yet is not joined again with every piece.

The form of events: WHATWG's HTML standard, 9.2.6. Fields other than ``event`` and ``data`` mean nothing here.
"""

from typing import NamedTuple


class Event(NamedTuple):
    """One event: its name, empty where it has none, and its data."""

    name: bytes
    data: bytes


class Lines:
    """Whole lines, without their ends: LF, CR LF or CR."""

    __slots__ = ("_held_cr", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of the line that has no end yet
        self._held_cr = False  # the last piece ended with a CR: an LF that follows belongs to it

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that end within this piece."""
        if self._held_cr and data:
            self._held_cr = False
            data = data[1:] if data[0] == 10 else data
        if b"\r" in data:
            self._held_cr = data[-1] == 13
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            if data:
                self._parts.append(data)
            return []
        lines = data.split(b"\n")
        if self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts.clear()
        rest = lines.pop()
        if rest:
            self._parts.append(rest)
        return lines

    @property
    def is_between(self) -> bool:
        """Whether the next piece begins a line, whatever it is."""
        return not self._parts and not self._held_cr

    @property
    def has_rest(self) -> bool:
        """Whether there is the beginning of a line that has no end yet."""
        return bool(self._parts)


class Events:
    """Events of a stream of ``text/event-stream``."""

    __slots__ = ("_data", "_is_first", "_lines", "_name")

    def __init__(self) -> None:
        self._lines = Lines()
        self._name = b""
        self._data: list[bytes] = []
        self._is_first = True

    @property
    def is_between(self) -> bool:
        """Whether the next piece begins an event, whatever it is."""
        return not self._data and not self._name and self._lines.is_between

    def feed(self, data: bytes) -> list[Event]:
        """The events that end within this piece."""
        # Most pieces are one event of one line. To see that costs a third of what taking the piece apart does.
        if (
            data[:6] == b"data: "
            and data[-2:] == b"\n\n"
            and data.find(b"\n", 6, -2) < 0
            and b"\r" not in data
            and not self._data
            and not self._name
            and self._lines.is_between
        ):
            self._is_first = False
            return [Event(b"", data[6:-2])]
        found: list[Event] = []
        pending = self._data
        for line in self._lines.feed(data):
            if self._is_first:
                self._is_first = False
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line:
                if pending:
                    found.append(Event(self._name, pending[0] if len(pending) == 1 else b"\n".join(pending)))
                    pending.clear()
                self._name = b""
            elif line.startswith(b"data:"):
                pending.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b"event:"):
                self._name = line[7:] if line[6:7] == b" " else line[6:]
            elif line == b"data":
                pending.append(b"")
        return found


class JsonLines:
    """One event a line, as Ollama streams them; empty lines mean nothing."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = Lines()

    @property
    def is_between(self) -> bool:
        """Whether the next piece begins a line, whatever it is."""
        return self._lines.is_between

    def feed(self, data: bytes) -> list[Event]:
        """The lines that end within this piece."""
        return [Event(b"", line) for line in self._lines.feed(data) if line.strip()]
