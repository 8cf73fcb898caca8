"""Histogram logs that HdrHistogram's own tools read: one line per interval, in the V2 compressed encoding.

Rules of this file:
1. Text in and text out; the caller has the file and the wall clock.
2. Whatever is read may be hostile: sizes are bounded before anything is unpacked, and ValueError says what is wrong.

The format is that of Tene's HdrHistogram (HistogramLogWriter, version 1.3, and the V2 encoding of
AbstractHistogram). Values are microseconds; interval maxima stand in milliseconds, times in seconds.
"""

import base64
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from engine.core.histogram import VALUE_US_MAX, Histogram

COOKIE = 0x1C849313  # V2 with counts of up to 64 bits
COOKIE_COMPRESSED = 0x1C849314
OUTER = struct.Struct(">ii")  # cookie, bytes that follow
INNER = struct.Struct(">iiiiqqd")  # cookie, bytes of counts, offset, digits, lowest, highest, ratio
LONGEST_NUMBER = 9  # bytes; the last one has eight bits of its own
BYTES_MAX = INNER.size + 9 * 300_000  # five digits up to an hour, every bucket filled
US_PER_MS = 1000


class Interval(NamedTuple):
    """One line of a log."""

    start_s: float
    length_s: float
    histogram: Histogram
    tag: str = ""


def heading(wall_s: float, said: str = "") -> str:
    """The first lines. ``wall_s`` is the start in seconds since 1970, which intervals count from; ``said`` a comment."""
    day = datetime.fromtimestamp(wall_s, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")
    comment = "".join(f"#[{line}]\n" for line in said.splitlines())
    return (
        f"{comment}#[Histogram log format version 1.3]\n"
        f"#[StartTime: {wall_s:.3f} (seconds since epoch), {day}]\n"
        f"#[BaseTime: {wall_s:.3f} (seconds since epoch)]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    )


def line(interval: Interval) -> str:
    """One interval as a line. Raises ValueError for a tag that the format cannot hold."""
    tag = interval.tag
    if any(mark in tag for mark in ", \r\n\t"):
        raise ValueError(f"the tag {tag!r} of a histogram must have no comma and no space")
    head = f"Tag={tag}," if tag else ""
    peak_ms = interval.histogram.max_us / US_PER_MS
    return (
        f"{head}{interval.start_s:.3f},{interval.length_s:.3f},{peak_ms:.3f},{encoded(interval.histogram)}\n"
    )


def intervals(text: str) -> Iterator[Interval]:
    """The intervals of a log, with times as they stand there. Raises ValueError for a line that is none."""
    for number, one in enumerate(text.splitlines(), 1):
        if not one.strip() or one.startswith(("#", '"')):
            continue
        head, tag = one, ""
        if one.startswith("Tag="):
            tag, _, head = one[4:].partition(",")
        parts = head.split(",")
        try:
            start_s, length_s = float(parts[0]), float(parts[1])
            yield Interval(start_s, length_s, decoded(parts[3]), tag)
        except (ValueError, IndexError) as error:
            raise ValueError(f"line {number} of the histogram log cannot be read: {error}") from None


def encoded(histogram: Histogram) -> str:
    """A histogram as the text of the V2 compressed encoding."""
    counts = bytearray()
    at = 0
    for index, count in histogram.buckets():
        if index > at:
            _put(counts, at - index)  # a negative number is so many empty buckets
        _put(counts, count)
        at = index + 1
    inner = INNER.pack(COOKIE, len(counts), 0, histogram.digits, 1, VALUE_US_MAX, 1.0)
    packed = zlib.compress(inner + counts)
    return base64.b64encode(OUTER.pack(COOKIE_COMPRESSED, len(packed)) + packed).decode()


def decoded(text: str) -> Histogram:
    """The histogram of such a text; its exact sum and extremes are lost, the middles and ends of buckets stand in.

    Raises ValueError for another encoding, or values beyond an hour.
    """
    data = base64.b64decode(text, validate=True)
    if len(data) < OUTER.size:
        raise ValueError("the histogram is cut off")
    cookie, length = OUTER.unpack_from(data)
    if cookie & ~0xF0 != COOKIE_COMPRESSED & ~0xF0 or length != len(data) - OUTER.size:
        raise ValueError("this is no compressed histogram of version 2")
    try:
        unpacker = zlib.decompressobj()
        inner = unpacker.decompress(data[OUTER.size :], BYTES_MAX)
    except zlib.error as error:
        raise ValueError(f"the histogram does not unpack: {error}") from None
    if len(inner) < INNER.size or not unpacker.eof:
        raise ValueError("the histogram is cut off, or larger than an hour's")
    cookie, length, offset, digits, lowest, _, _ = INNER.unpack_from(inner)
    if cookie & ~0xF0 != COOKIE & ~0xF0 or offset or lowest != 1 or length != len(inner) - INNER.size:
        raise ValueError("this is no histogram of whole microseconds")
    found = Histogram(digits)
    at = 0
    for number in _numbers(inner, INNER.size):
        if number < 0:
            at -= number
        else:
            if number:
                found.record_bucket(at, number)
            at += 1
    return found


def _put(out: bytearray, number: int) -> None:
    """Append a signed number: small ones of either sign short (ZigZag), seven bits a byte, the lowest first."""
    code = (number << 1) ^ (number >> 63)
    for _ in range(LONGEST_NUMBER - 1):
        if code <= 0x7F:
            break
        out.append(code & 0x7F | 0x80)
        code >>= 7
    out.append(code)


def _numbers(data: bytes, start: int) -> Iterator[int]:
    """All signed numbers from a place on. Raises ValueError when the last one is cut off."""
    code, size = 0, 0
    for byte in memoryview(data)[start:]:
        is_last = size == LONGEST_NUMBER - 1
        code |= (byte if is_last else byte & 0x7F) << 7 * size
        size += 1
        if is_last or byte <= 0x7F:
            yield (code >> 1) ^ -(code & 1)
            code, size = 0, 0
    if size:
        raise ValueError("a count of the histogram is cut off")
