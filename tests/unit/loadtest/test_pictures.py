"""What the charts of a page show: rates per whole second, bounded numbers of points, and curves up to the last value."""

import pytest
from loadtests import calm, outcome, plan, timing

from engine.core.measuring import Measures
from engine.loadtest import pictures
from engine.loadtest.results import results_of


def steady(seconds: float, warmup_s: float = 0.0) -> list[pictures.Stretch]:
    asked = plan(warmup_s=warmup_s)
    measures = Measures()
    for index in range(int(seconds * 10)):
        at_s = warmup_s + index / 10
        measures.ended(timing(at_s, latency_s=0.1 if index % 100 else 3.0), at_s, "")
    return pictures.stretches(results_of(asked, outcome(measures, window_s=seconds)))


def test_a_second_that_is_partly_of_the_window_has_the_rate_of_that_part() -> None:
    chart = pictures.rates(steady(5.5, warmup_s=2.5))
    for trace in chart.traces:
        assert [y for _, y in trace.points] == pytest.approx([10.0] * 6)


@pytest.mark.parametrize(
    ("seconds", "each"), [(pictures.POINTS_MAX, 1), (pictures.POINTS_MAX + 1, 2), (3_600, 20)]
)
def test_a_long_test_is_put_together_to_a_bounded_number_of_points(seconds: int, each: int) -> None:
    parts = steady(seconds)
    assert len(parts) <= pictures.POINTS_MAX
    assert len(parts[0].entries) == each
    assert sum(part.total("sent") for part in parts) == seconds * 10
    assert {round(y, 6) for _, y in pictures.rates(parts).traces[1].points} == {10.0}


def test_seconds_put_together_show_their_middle_p50_and_their_worst_p99() -> None:
    part = steady(3_600)[0]
    assert part.time_ms("latency_p50_ms") == pytest.approx(100, rel=0.01)
    assert part.time_ms("latency_p99_ms") == pytest.approx(3_000, rel=0.01)
    assert part.name == "0:00 – 0:20"


def test_a_second_without_a_success_is_a_gap() -> None:
    asked = plan()
    measures = Measures()
    for at_s, error in ((0.1, ""), (1.1, "reset"), (2.1, "")):
        measures.ended(timing(at_s), at_s, error)
    parts = pictures.stretches(results_of(asked, outcome(measures, window_s=3.0)))
    p99, p50 = pictures.times(parts, "latency").traces
    assert [y is None for _, y in p50.points] == [y is None for _, y in p99.points] == [False, True, False]
    failed = pictures.failures(parts).traces[1]
    assert [y for _, y in failed.points] == [None, 1.0, None]


def test_the_curve_ends_with_the_largest_value_and_never_falls() -> None:
    asked = plan(is_streamed=True)
    measures = calm(asked, 1_000)
    chart = pictures.percentiles(results_of(asked, outcome(measures)))
    assert chart is not None
    assert [trace.name for trace in chart.traces] == [
        "latency",
        "response time",
        "TTFT",
        "TTFT from schedule",
    ]
    for trace in chart.traces:
        values = [y for _, y in trace.points]
        assert values == sorted(values)
    assert chart.traces[0].points[-1][1] == pytest.approx(
        measures.histograms["latency"].max_us / 1000, rel=0.001
    )
    assert chart.traces[0].points[-1][0] == chart.traces[0].points[-2][0] == pytest.approx(0.999)


def test_there_is_no_curve_without_a_success() -> None:
    assert pictures.percentiles(results_of(plan(), outcome(calm(plan(), 9, failed=9)))) is None
