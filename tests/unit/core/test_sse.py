"""Events and lines come out whole, wherever the bytes were cut."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.sse import Event, Events, JsonLines, Lines


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data:  a \n\n", [(b"", b" a ")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [(b"x", b"a"), (b"", b"b")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\ndata\n\n", [(b"", b"\n")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b": a comment\nid: 1\nretry: 5\ndata: a\n\n", [(b"", b"a")]),
        (b"event: x\n\ndata: a\n\n", [(b"", b"a")]),
        (b"data: a\n", []),
        (b"dataset: a\n\n", []),
        (b"\n\n\n", []),
    ],
)
@given(places=st.lists(st.integers(0, 60), max_size=8))
def test_events_are_what_the_standard_says_however_they_are_cut(
    stream: bytes, events: list[tuple[bytes, bytes]], places: list[int]
) -> None:
    reader = Events()
    found = [event for piece in cut(stream, places) for event in reader.feed(piece)]
    assert found == [Event(*event) for event in events]


@given(
    lines=st.lists(st.text("ab\u20ac", max_size=5)),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"])),
    places=st.lists(st.integers(0, 200), max_size=10),
)
def test_lines_are_those_of_the_text_whatever_ends_them(
    lines: list[str], ends: list[str], places: list[int]
) -> None:
    pairs = list(zip(lines, ends, strict=False))
    # An empty line after a lone CR cannot be told from CR LF.
    text = "".join(line + end for line, end in pairs)
    reader = Lines()
    found = [line for piece in cut(text.encode(), places) for line in reader.feed(piece)]
    normal = text.replace("\r\n", "\n").replace("\r", "\n")
    assert found == [line.encode() for line in normal.split("\n")[:-1]]
    assert not reader.has_rest


@given(places=st.lists(st.integers(0, 100), max_size=8))
def test_json_lines_are_events_of_their_own(places: list[int]) -> None:
    values = [{"a": 1}, {"b": "\u20ac\u2028"}, {}]
    stream = b"\n".join(json.dumps(value, ensure_ascii=False).encode() for value in values) + b"\n \n"
    reader = JsonLines()
    found = [json.loads(event.data) for piece in cut(stream, places) for event in reader.feed(piece)]
    assert found == values


def test_a_line_without_an_end_costs_no_more_for_coming_in_many_pieces() -> None:
    reader = Lines()
    for _ in range(50_000):  # joined with every piece it would be gigabytes
        assert reader.feed(b"x" * 1_000) == []
    assert reader.has_rest
    (line,) = reader.feed(b"\n")
    assert len(line) == 50_000_000


@pytest.mark.parametrize(
    "before", [b"", b"event: x\n", b"data: a\n", b"da", b"id: 1\r", b"\xef\xbb\xbf", b":\n"]
)
@pytest.mark.parametrize(
    "piece", [b"data: b\n\n", b"data: \n\n", b"data: b\r\r\n\n", b"data: b\n\ndata: c\n\n"]
)
def test_a_piece_that_is_one_event_is_no_other_for_what_came_before_it(before: bytes, piece: bytes) -> None:
    whole, cut = Events(), Events()
    assert [*cut.feed(before), *cut.feed(piece), *cut.feed(b"data: z\n\n")] == whole.feed(
        before + piece + b"data: z\n\n"
    )
