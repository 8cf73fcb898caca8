"""Lines end at the newline byte, and a huge one is never held."""

import io

import pytest

from engine.core.errors import UsageError
from engine.formats.jsonl import JSONL
from engine.formats.lines import blocks, size_text


class Dripping(io.BytesIO):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read(3)


def read(data: bytes, cap: int = 20, kind: type[io.BytesIO] = io.BytesIO) -> list[tuple[bytes, int, bool]]:
    return [(row.payload, row.line, bool(row.bad)) for row in JSONL.reader(kind(data), row_bytes_max=cap)]


@pytest.mark.parametrize("kind", [io.BytesIO, Dripping])
def test_only_newlines_end_a_line(kind: type[io.BytesIO]) -> None:
    lines = ["a\u2028b", "a\u0085b", "a\x0bb", "a\x0cb", "a\x1eb", "a\rb"]
    data = "\n".join(lines).encode()
    assert [row[0].decode() for row in read(data, kind=kind)] == lines


@pytest.mark.parametrize("kind", [io.BytesIO, Dripping])
def test_a_mark_blank_lines_and_carriage_returns_go_and_line_numbers_stay_true(
    kind: type[io.BytesIO],
) -> None:
    data = b'\xef\xbb\xbf{"a":1}\r\n\r\n \t\n{"a":2}'
    assert read(data, kind=kind) == [(b'{"a":1}', 1, False), (b'{"a":2}', 4, False)]


@pytest.mark.parametrize("kind", [io.BytesIO, Dripping])
@pytest.mark.parametrize(("length", "is_bad"), [(19, False), (20, False), (21, True), (500, True)])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_the_cap_is_exact_and_neighbours_stay(
    kind: type[io.BytesIO], length: int, is_bad: bool, end: bytes
) -> None:
    rows = read(b"first\n" + b"x" * length + end + (b"last\n" if end else b""), kind=kind)
    assert [row[1:] for row in rows] == [(1, False), (2, is_bad), (3, False)][: 3 if end else 2]


def test_two_long_lines_that_differ_only_at_their_end_are_told_apart() -> None:
    one, other = (read(b"x" * 1000 + last)[0][0] for last in (b"a", b"b"))
    assert one != other
    assert len(one) < 20


def test_utf16_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="iconv"):
        list(blocks(io.BytesIO('{"a":1}'.encode("utf-16")), line_bytes_max=100))


def test_sizes_are_said_in_words_of_people() -> None:
    assert size_text(16 * 1024 * 1024) == "16 MB"
    assert size_text(300) == "300 bytes"
    assert size_text(20 * 1024) == "20 kB"
