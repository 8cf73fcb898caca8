"""Frames between a worker and its child, however the pipe cuts them."""

from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import ErrorKind
from engine.core.model import Failure, Reply
from engine.worker.frames import Frames, framed, heard, told, value_of


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 20), min_size=1))
def test_frames_come_out_as_they_went_in_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream, frames, found = b"".join(map(framed, bodies)), Frames(), []
    turn = 0
    while stream:
        size = cuts[turn % len(cuts)]
        turn += 1
        found += frames.feed(stream[:size])
        stream = stream[size:]
    assert found == bodies


def test_a_result_is_heard_as_it_was_told() -> None:
    reply = Reply(200, {}, b'{"a":1}')
    failure = Failure(ErrorKind.FUNCTION_ERROR, "ValueError: é", trace="Traceback\n")
    assert heard(told(reply)) == reply
    assert heard(told(failure)) == failure
    assert value_of(b'{"a":1e400}') is not None  # a number that only JSON can hold
