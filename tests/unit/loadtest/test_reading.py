"""Files that claim to hold results: read, or refused with a sentence, whatever they hold."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from modelled import Endpoint, run

from engine.core.errors import UsageError
from engine.loadtest import reading
from engine.loadtest.compare import compare
from engine.loadtest.reading import read_results, results_of

GOOD = run(Endpoint(50, lambda draw: draw.expovariate(10.0)), 40.0, 20.0, 1, streamed=True).results()


def test_results_are_read_back_as_they_were() -> None:
    assert read_results(json.dumps(GOOD).encode(), "x") == results_of(GOOD)
    assert results_of(GOOD).is_streamed


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"{" * 100_000, b"[" * 100_000, b'{"a":' * 100_000,
     b'{"rows": 3, "ok": 3}', json.dumps(GOOD).encode()[:-5]],
)  # fmt: skip
def test_what_is_no_results_is_refused_with_the_name_and_the_way_to_make_some(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"x\.json .*engine load --out"):
        read_results(data, "x.json")


@pytest.mark.parametrize(
    "wrong",
    [{"verdict": "FINE"}, {"sent": -1}, {"sent": 1e400}, {"sent": 10**30}, {"latency_ms": None}, {"error_rate": 2},
     {"achieved_rate": "1"}, {"series": [1]}, {"series": [{"intended": -1}]}, {"histograms": {"latency": 3}},
     {"latency_ms": {"p50": -1}}, {"latency_ms": {"ci": {"p50": [1]}}}, {"slo": [{}]}, {"window_s": 10**400}],
)  # fmt: skip
def test_a_field_of_another_type_or_beyond_its_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_results(json.dumps({**GOOD, **wrong}).encode(), "x")


def test_a_file_beyond_the_cap_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BYTES_MAX", 1_000)
    with pytest.raises(UsageError, match="larger than"):
        read_results(json.dumps(GOOD).encode(), "x")


def test_a_damaged_histogram_is_refused_by_its_name() -> None:
    broken = results_of({**GOOD, "histograms": {"latency": "AAAA"}})
    with pytest.raises(UsageError, match="histogram of latency"):
        compare(broken, broken)


def test_names_reach_a_terminal_without_control_characters() -> None:
    with pytest.raises(UsageError) as caught:
        read_results(b'{"verdict": "\\u001b[2J"}', "x\x1b[2J")
    assert "\x1b" not in str(caught.value)


FIGURES = [
    "sent",
    "completed",
    "failed",
    "dropped",
    "intended",
    "achieved_rate",
    "goodput",
    "output_tokens_per_s",
    "window_s",
]
EXTREMES = st.sampled_from([0, 1, 2, 3, 2**31, 2**53, 5e-324, 1e-9, 1e15])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    figures=st.dictionaries(st.sampled_from(FIGURES), EXTREMES),
    seconds=st.lists(st.dictionaries(st.sampled_from(["intended", "sent", "completed", "failed", "dropped"]),
                                     st.sampled_from([0, 1, 5, 2**53])), max_size=60),
    latency=st.dictionaries(st.sampled_from(["p50", "p95", "p99", "mean"]), EXTREMES),
    keep=st.booleans(),
)  # fmt: skip
def test_whatever_figures_a_file_states_a_comparison_ends_with_findings(
    figures: dict[str, Any], seconds: list[dict[str, int]], latency: dict[str, float], keep: bool
) -> None:
    changed: dict[str, Any] = {
        **GOOD,
        **figures,
        "series": seconds,
        "latency_ms": {**GOOD["latency_ms"], **latency},
    }
    if not keep:
        changed["histograms"] = {}
    try:
        odd = read_results(json.dumps(changed).encode(), "x")
    except UsageError:
        return
    for old, new in ((odd, results_of(GOOD)), (results_of(GOOD), odd)):
        json.dumps(compare(old, new).plain(), allow_nan=False)
