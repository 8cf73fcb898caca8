"""How requests in flight are divided over workers."""

from hypothesis import given
from hypothesis import strategies as st

from engine.coordinator.supervise import shares


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 32))
def test_the_shares_of_all_workers_add_up_to_the_limit_and_nobody_has_none(
    in_flight: int, procs: int, gate: int
) -> None:
    parts = shares(in_flight, procs, gate)
    assert len(parts) == min(procs, in_flight)
    assert sum(share for share, _ in parts) == in_flight
    assert sum(gated for _, gated in parts) == gate
    assert min(share for share, _ in parts) >= 1
    assert max(share for share, _ in parts) - min(share for share, _ in parts) <= 1
