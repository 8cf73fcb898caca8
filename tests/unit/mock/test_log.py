"""The log's windows, which other tests trust."""

from hypothesis import given
from hypothesis import strategies as st

from engine.mock.log import TruthLog


@given(st.lists(st.floats(0.0, 5.0), max_size=40), st.sampled_from([0.5, 1.0, 60.0]))
def test_the_logs_windows_are_those_of_a_slow_count(gaps: list[float], window_s: float) -> None:
    log, now, times = TruthLog(), 100.0, []
    for gap in gaps:
        now += gap
        times.append(now)
        log.arrived(now, "chat", None, 3)
    slow = max((sum(start <= t < start + window_s for t in times) for start in times), default=0)
    assert log.max_requests(window_s) == slow
    assert log.max_tokens(window_s) == 3 * slow
