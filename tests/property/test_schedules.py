"""Schedules over arbitrary profiles, seeds and numbers of workers: one order, one owner, one process."""

from itertools import islice, pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from engine.schedules import Schedule, numbered_arrivals
from engine.schedules.profile import Piece, Profile

RATES = st.just(0.0) | st.floats(0.01, 5_000.0)
PIECES = st.lists(st.builds(Piece, RATES, RATES, st.floats(0.01, 1_000.0)), min_size=1, max_size=5).filter(
    lambda pieces: any(piece.rate_from_per_s or piece.rate_to_per_s for piece in pieces)
)
SCHEDULES = st.builds(
    Schedule,
    st.sampled_from(["constant", "poisson", "gamma", "trace"]),
    PIECES.map(tuple),
    seed=st.integers(0, 2**64),
    duration_s=st.none() | st.floats(0.01, 100.0),
    requests=st.integers(1, 500),
    burstiness=st.floats(0.05, 50.0),
    offsets_s=st.lists(st.floats(0, 1e6), min_size=1, max_size=50).map(lambda found: tuple(sorted(found))),
    speed=st.floats(0.01, 100.0),
)


@settings(max_examples=200, deadline=None)
@given(schedule=SCHEDULES, workers=st.integers(1, 9))
def test_every_index_has_one_owner_and_the_same_time_for_any_number_of_workers(
    schedule: Schedule, workers: int
) -> None:
    alone = list(numbered_arrivals(schedule, 0, 1))
    assert [index for index, _ in alone] == list(range(len(alone)))
    parts = [list(numbered_arrivals(schedule, worker, workers)) for worker in range(workers)]
    assert sorted(pair for part in parts for pair in part) == alone
    for part in parts:
        assert all(a < b for (a, _), (b, _) in pairwise(part))


@settings(max_examples=200, deadline=None)
@given(schedule=SCHEDULES)
def test_times_ascend_within_the_test(schedule: Schedule) -> None:
    found = list(islice(numbered_arrivals(schedule, 0, 1), 500))
    times_s = [at_s for _, at_s in found]
    assert all(a <= b for a, b in pairwise(times_s))
    assert all(0 <= at_s <= schedule.end_s * (1 + 1e-9) for at_s in times_s)
    assert len(found) <= (schedule.requests or 0)


@settings(max_examples=300, deadline=None)
@given(pieces=PIECES, share=st.floats(0, 1.5))
def test_the_inverse_of_the_integral_is_exact(pieces: list[Piece], share: float) -> None:
    profile = Profile(tuple(pieces))
    count = profile.total * share
    at_s = profile.time_of(count)
    if at_s < float("inf"):
        assert profile.expected(at_s) == pytest.approx(count, rel=1e-9, abs=1e-9)
    else:
        assert count >= profile.total


@settings(max_examples=200, deadline=None)
@given(pieces=PIECES, at_s=st.floats(0, 5_000.0), more_s=st.floats(0, 100.0))
def test_what_is_due_never_falls_and_grows_by_the_rate(
    pieces: list[Piece], at_s: float, more_s: float
) -> None:
    profile = Profile(tuple(pieces))
    before, after = profile.expected(at_s), profile.expected(at_s + more_s)
    fastest = max(max(piece.rate_from_per_s, piece.rate_to_per_s) for piece in pieces)
    assert before - 1e-6 <= after <= before + fastest * more_s + 1e-6 * max(1.0, before)
