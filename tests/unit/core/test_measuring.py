"""What a load test counts: each request once, failures apart, and the same over any number of processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.measuring import PLAIN, STREAMED, Measures, Timing
from engine.core.thresholds import parse_slo

SLOS = (parse_slo("ttft.p99<100ms"), parse_slo("latency.p90<2s"))


def timing(
    intended: float = 100.0, *, lag: float = 0.001, first: float = 0.05, last: float = 1.05, tokens: int = 11
) -> Timing:
    sent = intended + lag
    return Timing(
        intended=intended, sent=sent, first_byte=sent + first / 2, first_content=sent + first,
        first_answer=sent + first, last_content=sent + last, end=sent + last, stall_us=9_000, tail_us=4_000,
        tokens_in=7, tokens_out=tokens,
    )  # fmt: skip


def ms(measures: Measures, name: str) -> float | None:
    return measures.histograms[name].figures_ms()["max"]


def test_each_time_is_what_its_definition_says() -> None:
    measures = Measures(is_streamed=True)
    measures.ended(timing(lag=0.5), 3.2, "")
    measures.gaps([20_000])
    expected = {
        "latency": 1_050, "response_time": 1_550, "send_lag": 500, "ttfb": 25, "ttft": 50, "ttft_sched": 550,
        "ttfo": 50, "tpot": 100, "chunk_gap": 20, "stall": 9, "tail": 4,
    }  # fmt: skip
    assert {name: ms(measures, name) for name in measures.names} == pytest.approx(expected)
    assert set(expected) == {*PLAIN, *STREAMED}
    assert (measures.counts.tokens_in, measures.counts.tokens_out) == (7, 11)
    second = measures.seconds[3]
    assert (second.intended, second.sent, second.completed, second.failed) == (1, 1, 1, 0)


def test_a_failure_has_a_send_lag_and_no_other_time() -> None:
    measures = Measures(is_streamed=True)
    measures.ended(timing(), 0.0, "reset")
    assert [name for name in measures.names if measures.histograms[name].count] == ["send_lag"]
    assert measures.errors == {"reset": 1}
    assert (measures.counts.failed, measures.counts.completed, measures.counts.tokens_out) == (1, 0, 0)


def test_what_could_not_be_sent_is_a_failure_that_was_not_sent() -> None:
    measures = Measures()
    measures.ended(Timing(intended=5.0, end=6.0), 0.0, "connect_refused")
    assert (measures.counts.intended, measures.counts.sent, measures.counts.failed) == (1, 0, 1)
    assert measures.histograms["send_lag"].count == 0


def test_one_token_has_no_time_per_token_and_thinking_is_not_the_first_answer() -> None:
    measures = Measures(is_streamed=True)
    measures.ended(timing(tokens=1), 0.0, "")
    assert measures.histograms["tpot"].count == 0
    late = timing()
    late.first_answer = late.first_content + 0.4
    measures.ended(late, 0.0, "")
    assert ms(measures, "ttfo") == pytest.approx(450)


def test_a_request_is_good_if_it_meets_every_objective_and_each_is_counted_alone() -> None:
    measures = Measures(SLOS, is_streamed=True)
    for first, last, error in ((0.05, 1.0, ""), (0.5, 1.0, ""), (0.05, 3.0, ""), (0.05, 1.0, "reset")):
        measures.ended(timing(first=first, last=last), 0.0, error)
    measures.dropped(0.5)
    assert measures.met == [2, 2]
    assert measures.counts.good == 1
    assert measures.counts.intended == 5


def test_an_objective_on_what_a_request_does_not_have_is_not_met() -> None:
    measures = Measures((parse_slo("tpot.p90<1s"),), is_streamed=True)
    measures.ended(timing(tokens=1), 0.0, "")
    assert measures.met == [0]


def test_the_warm_up_is_in_no_figure() -> None:
    measures = Measures()
    measures.warmed_up()
    assert measures.counts.warm_up == 1
    assert measures.counts.intended == 0


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),  # the worker
        st.sampled_from(["", "", "reset", "http_5xx", "dropped"]),
        st.floats(0.0, 5.0),
        st.floats(0.0, 0.2),
        st.floats(0.2, 3.0),
        st.integers(-1, 30),
    ),
    max_size=40,
)


def count(measures: Measures, event: tuple[int, str, float, float, float, int]) -> None:
    _, error, at_s, lag, last, tokens = event
    if error == "dropped":
        measures.dropped(at_s)
        return
    measures.ended(timing(lag=lag, last=last, tokens=tokens), at_s, error, is_late=lag > 0.1)
    measures.gaps([round(last * 1000)])


@given(events=EVENTS, every=st.integers(1, 7))
def test_the_sum_over_workers_is_what_one_process_would_have_counted(
    events: list[tuple[int, str, float, float, float, int]], every: int
) -> None:
    alone = Measures(SLOS, is_streamed=True)
    together = Measures(SLOS, is_streamed=True)
    workers = [Measures(SLOS, is_streamed=True) for _ in range(4)]
    for number, event in enumerate(events):
        count(alone, event)
        count(workers[event[0]], event)
        if number % every == 0:
            together.add(workers[event[0]].take())
    for worker in workers:
        together.add(worker.take())
    assert together.counts == alone.counts
    assert (together.errors, together.met) == (alone.errors, alone.met)
    assert together.histograms == alone.histograms
    assert together.seconds == alone.seconds
    counts = alone.counts
    assert counts.intended == counts.completed + counts.failed + counts.dropped


def test_what_no_measures_of_this_kind_made_is_refused() -> None:
    streamed = Measures(is_streamed=True)
    streamed.ended(timing(), 0.0, "")
    with pytest.raises(ValueError, match="no figure named"):
        Measures().add(streamed.take())
