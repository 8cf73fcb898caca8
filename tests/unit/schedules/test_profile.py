"""Rates in straight lines, their integral and its inverse; and how they are written."""

import math

import pytest

from engine.core.errors import UsageError
from engine.schedules.profile import Piece, Profile, parse_ramp, steady


def test_the_rate_and_what_is_due_follow_the_pieces_and_then_the_last_rate() -> None:
    profile = Profile((Piece(0.0, 100.0, 10.0), Piece(50.0, 50.0, 2.0)))
    assert [profile.rate_at(at_s) for at_s in (0.0, 5.0, 10.0, 12.0, 99.0)] == [0.0, 50.0, 50.0, 50.0, 50.0]
    assert [profile.expected(at_s) for at_s in (0.0, 5.0, 10.0, 12.0, 14.0)] == [
        0.0,
        125.0,
        500.0,
        600.0,
        700.0,
    ]
    assert [profile.time_of(count) for count in (0.0, 125.0, 500.0, 700.0)] == [0.0, 5.0, 10.0, 14.0]
    assert (profile.length_s, profile.total) == (12.0, 600.0)
    assert profile.expected(math.inf) == math.inf


def test_a_nearly_flat_ramp_is_inverted_exactly() -> None:
    flat, ramp = Profile(steady(1_000.0, 3_600.0)), Profile((Piece(1_000.0, 1_000.0 + 1e-9, 3_600.0),))
    for count in (1.0, 1e3, 3.5e6):
        assert ramp.time_of(count) == pytest.approx(flat.time_of(count), rel=1e-12)


def test_what_never_comes_due_has_no_time() -> None:
    assert Profile((Piece(10.0, 0.0, 2.0),)).time_of(10.0) == math.inf
    assert Profile((Piece(10.0, 0.0, 2.0),)).expected(math.inf) == 10.0


def test_a_ramp_is_read_as_it_is_written() -> None:
    assert parse_ramp("100:1000:30s") == Piece(100.0, 1_000.0, 30.0)
    assert parse_ramp("0:600/m:1.5m") == Piece(0.0, 10.0, 90.0)
    assert parse_ramp("5:5:10") == Piece(5.0, 5.0, 10.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("100:30s", "is not like FROM:TO:SECONDS, for example 100:1000:30s"),
        ("a:1:30s", "the rate 'a' is not like"),
        ("-1:1:30s", "the rate '-1' is not like"),
        ("1:1:0s", "the length '0s' must be above 0"),
        ("1:1:3x", "the length '3x' is not like 30s"),
        ("1:1:", "the length '' is not like 30s"),
    ],
)
def test_a_ramp_that_is_not_one_is_refused_with_an_example(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_ramp(text)


@pytest.mark.parametrize(
    "piece", [(-1.0, 1.0, 1.0), (1.0, math.inf, 1.0), (1.0, 1.0, 0.0), (math.nan, 1.0, 1.0)]
)
def test_a_piece_that_cannot_be_sent_is_refused(piece: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError):
        Piece(*piece)
