"""The report on a terminal: the verdict first, nothing wider than the terminal, nothing foreign unsanitised."""

from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadtests import calm, notes, outcome, plan

from engine.core.load_errors import LoadError
from engine.core.measuring import Measures
from engine.loadtest import model
from engine.loadtest.results import results_of
from engine.loadtest.summary import COLUMNS, text
from engine.loadtest.wording import KINDS
from engine.schedules import Schedule
from engine.schedules.profile import Piece

SLOS = ("ttft.p99<800ms", "latency.p90<1ms")
FAIL_IF = ("response_time.p99>2s", "error_rate>1%")


def whole() -> tuple[model.LoadPlan, model.Tested]:
    asked = plan(is_streamed=True, slos=SLOS, fail_if=FAIL_IF, warmup_s=2.0)
    measures = calm(asked, 1_000, failed=30)
    measures.dropped(4.0, 12)
    for _ in range(200):
        measures.warmed_up()
    return asked, outcome(measures, notes(last_sent_s=11.99), notes(1, cpu_s=9.8), lasted_s=12.1)


def test_the_verdict_is_the_first_line_and_its_reasons_follow() -> None:
    lines = text(results_of(*whole())).splitlines()
    assert lines[0] == "CLIENT-LIMITED: these figures are not the endpoint's alone"
    assert lines[1].startswith("  - Only 98.81% of the asked rate was achieved: 100.0 of 101.2 requests/s")
    asked = plan()
    assert text(results_of(asked, outcome(calm(asked)))).startswith("VALID: the client kept up\n\n")


def test_every_part_of_the_results_is_told() -> None:
    said = text(results_of(*whole()))
    for part in (
        "http://127.0.0.1:9/v1, m", "100.0/s asked, 100.0/s achieved (98.81%)", "10 s measured", "2 s of warm-up",
        "1,012 intended, 1,000 sent, 970 completed, 30 failed, 12 dropped", "200 in the warm-up",
        "3% of the requests that were attempted", "30  http_5xx", "p99.9", "TTFT from schedule", "gap of chunks",
        "6,790 in, 19,400 out", "from usage", "MISSED  latency.p90<1ms: 0%", "90% asked",
        "kept    response_time.p99>2s:", "BROKEN  error_rate>1%: 3.000%", "A test that is not VALID passes none.",
        "95% sure",
    ):  # fmt: skip
        assert part in said, part


def test_figures_stand_in_columns() -> None:
    lines = text(results_of(*whole())).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("times in ms"))
    rows = lines[start : start + 11]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [row[:18].strip() for row in rows[1:4]] == ["latency", "response time", "send lag"]


def test_what_is_nothing_takes_no_line() -> None:
    asked = plan(None)
    said = text(results_of(asked, outcome(calm(asked))))
    for word in (
        "errors",
        "failed",
        "dropped",
        "tokens",
        "objectives",
        "thresholds",
        "goodput",
        "sent late",
        "warm-up",
    ):
        assert word not in said, word
    assert "100.0/s, as replies came (closed loop)" in said


def test_a_test_without_any_request_has_a_report() -> None:
    said = text(results_of(plan(), outcome(Measures(), window_s=0.0, lasted_s=0.0)))
    assert said.startswith("INVALID") and "No request was due" in said and "times in ms" not in said


def test_tokens_that_only_some_replies_counted_say_so() -> None:
    asked, found = whole()
    found.measures.counts = replace(found.measures.counts, counted_tokens=900)
    assert "(from usage in 900 of 970 replies)" in " ".join(text(results_of(asked, found)).split())


RESULTS = results_of(*whole())
FOREIGN = st.text(st.characters(codec="utf-8"), max_size=300)


@settings(max_examples=50, deadline=None)
@given(FOREIGN, FOREIGN)
def test_nothing_foreign_can_move_the_cursor(first: str, second: str) -> None:
    found = deepcopy(RESULTS)
    found["test"]["url"] = "\x1b[2J" + first
    found["reasons"].append("\x1b]0;" + second)
    found["errors"][second] = 1
    for one in (*found["slo"], *found["thresholds"]):
        one["text"] = first
    said = text(found).split("\n")
    assert all(line.isprintable() for line in said)


@given(st.text(" abcdef", max_size=400), st.integers(80, 140))
def test_no_sentence_is_wider_than_the_terminal(words: str, columns: int) -> None:
    found = deepcopy(RESULTS)
    found["reasons"].append(" ".join(word[:40] for word in words.split()))
    assert max(map(len, text(found).splitlines())) <= COLUMNS
    assert max(map(len, text(found, columns).splitlines())) <= columns


def test_sentences_take_the_width_there_is_from_80_to_140_columns() -> None:
    found = deepcopy(RESULTS)
    found["reasons"].append("word " * 80)
    found["find_max"] = {"says": "word " * 80, "rate": None, "probes": []}
    widths = [max(map(len, text(found, columns).splitlines())) for columns in (0, 100, 140, 1_000)]
    assert (widths[0] <= 80, 90 < widths[1] <= 100, 130 < widths[2] <= 140) == (True, True, True)
    assert text(found, 1_000) == text(found, 140)
    assert text(found, 0) == text(found)


def test_what_a_random_schedule_came_to_by_chance_is_told() -> None:
    asked = plan(
        schedule=Schedule("poisson", (Piece(110.0, 110.0, 1.0),), duration_s=10.0),
        asked={"arrival": "poisson"},
    )
    said = text(results_of(asked, outcome(calm(asked))))
    assert "110.0/s asked (100.0/s by chance), 100.0/s achieved (100%)" in said
    assert "by chance" not in text(RESULTS)


def test_errors_whose_names_do_not_say_it_are_explained() -> None:
    asked = plan()
    said = text(results_of(asked, outcome(calm(asked, failed=3, error="bad_reply"))))
    assert "3  bad_reply: the server answered with JSON instead of a stream" in said
    assert set(KINDS) <= set(LoadError)


@pytest.mark.parametrize("many", [10**6, 10**9])
def test_large_figures_still_fit(many: int) -> None:
    asked, found = whole()
    found.measures.counts = replace(
        found.measures.counts,
        intended=many,
        sent=many,
        completed=many,
        failed=many,
        dropped=many,
        late=many,
        tokens_in=many,
        tokens_out=many,
    )
    for _ in range(5):
        found.measures.histograms["latency"].record(3_599_999_999)
    assert max(map(len, text(results_of(asked, found)).splitlines())) <= COLUMNS
