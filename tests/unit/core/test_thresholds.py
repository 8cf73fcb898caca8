"""Thresholds and objectives: what is read, what is refused with which sentence, and what breaks a test."""

import pytest

from engine.core.errors import UsageError
from engine.core.thresholds import METRICS, Kind, check, parse_slo, parse_threshold

PLAIN = {"latency", "response_time", "send_lag", "error_rate", "achieved", "failed"}
RESULTS = {
    "error_rate": 0.02,
    "achieved": 0.985,
    "failed": 3,
    "response_time_ms": {"p50": 120.0, "p99": 2_000.5, "p99_9": None, "max": 3_000.0, "mean": 200.0},
    "ttft_ms": None,
    "goodput": 41.5,
}


@pytest.mark.parametrize(
    ("text", "metric", "statistic", "operator", "bound"),
    [
        ("error_rate>1%", "error_rate", None, ">", 0.01),
        ("error_rate >= 0.005", "error_rate", None, ">=", 0.005),
        ("response_time.p99>2s", "response_time", "p99", ">", 2_000.0),
        ("response_time.p99.9<=1.5m", "response_time", "p99_9", "<=", 90_000.0),
        ("latency.p99_9>250us", "latency", "p99_9", ">", 0.25),
        ("latency.mean > 3µs", "latency", "mean", ">", 0.003),
        ("achieved<99%", "achieved", None, "<", 0.99),
        ("achieved>101%", "achieved", None, ">", 1.01),
        ("failed>20", "failed", None, ">", 20.0),
        ("tpot.max>.5s", "tpot", "max", ">", 500.0),
    ],
)
def test_a_threshold_is_read_in_milliseconds_shares_and_numbers(
    text: str, metric: str, statistic: str | None, operator: str, bound: float
) -> None:
    found = parse_threshold(text)
    assert (found.metric, found.statistic, found.operator, found.bound) == (
        metric,
        statistic,
        operator,
        bound,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not like METRIC.STATISTIC<NUMBER with <, <=, > or >=, for example response_time.p99>2s"),
        ("error_rate=1%", "is not like METRIC"),
        ("error_rate>1% and late>3", "'1% and late>3' is no number"),
        (
            "errors>1%",
            "there is no metric named 'errors'. Known: latency, response_time, send_lag, error_rate",
        ),
        ("ttft.p99>1s", "this test does not measure ttft. It measures latency, response_time"),
        (
            "latency>2s",
            "does not say which figure of latency. Add one of p50, p90, p95, p99, p99_9, max, mean",
        ),
        ("latency.p98>2s", "there is no statistic 'p98'. Known: p50"),
        (
            "latency.p99>2",
            "latency is a time and needs a unit. Write it with us, ms, s, m, h, for example 800ms",
        ),
        ("latency.p99>2%", "latency is a time and has no '%'"),
        ("latency.p99>2d", "latency is a time and has no 'd'"),
        ("error_rate.p99>1%", "error_rate is one figure and has no p99. Write error_rate>"),
        ("error_rate>1", "error_rate is a share"),
        ("error_rate>1s", "error_rate is a share. Write it as 1% or 0.01"),
        ("failed>3%", "failed is a plain number and has no '%'"),
        ("failed>-3", "'-3' is no number. Write it like 800ms, 1% or 20"),
        ("failed>1e3", "'1e3' is no number"),
        ("failed>", "'' is no number"),
        ("latency.p99>nan", "'nan' is no number"),
    ],
)
def test_a_threshold_that_cannot_be_read_is_refused_with_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_threshold(text, PLAIN)
    assert str(caught.value).startswith(f"--fail-if {text!r}")
    assert says in str(caught.value)


def test_thresholds_are_held_against_results() -> None:
    texts = ["error_rate>1%", "achieved<98%", "response_time.p99>2s", "response_time.p50>120ms", "failed>=3"]
    findings = check([parse_threshold(text) for text in texts], RESULTS)
    assert [finding.is_broken for finding in findings] == [True, False, True, False, True]
    assert [finding.says for finding in findings] == [
        "error_rate>1%: broken at 2.000%",
        "achieved<98%: kept at 98.500%",
        "response_time.p99>2s: broken at 2,000.500 ms",
        "response_time.p50>120ms: kept at 120.000 ms",
        "failed>=3: broken at 3",
    ]


@pytest.mark.parametrize("text", ["response_time.p99.9>1h", "ttft.p99>1h", "dropped>1000", "latency.max>1h"])
def test_what_was_not_measured_breaks_its_threshold(text: str) -> None:
    (finding,) = check([parse_threshold(text)], RESULTS)
    assert finding.is_broken and finding.value is None
    assert finding.says == f"{text}: nothing was measured, which counts as broken"


@pytest.mark.parametrize(
    ("text", "bound_ms", "share"),
    [
        ("ttft.p99<800ms", 800.0, 0.99),
        ("ttft.p99.9<=2s", 2_000.0, 0.999),
        ("ttft<800ms", 800.0, 1.0),
        ("ttft.max<800ms", 800.0, 1.0),
    ],
)
def test_an_objective_is_a_bound_for_each_request_and_a_share_of_all(
    text: str, bound_ms: float, share: float
) -> None:
    found = parse_slo(text)
    assert (found.metric, found.bound_ms, found.share) == ("ttft", bound_ms, share)
    assert found.met_by(bound_ms - 0.001) and not found.met_by(bound_ms + 0.001)
    assert found.met_by(bound_ms) == ("<=" in text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttft.p99>800ms", "says what requests are to reach: write < or <=, for example ttft.p99<800ms"),
        ("ttft.mean<800ms", "a mean says nothing of single requests"),
        ("error_rate<1%", "a single request has no error_rate; use one of latency, response_time"),
        ("ttft.p99<800", "ttft is a time and needs a unit"),
        ("p99<800ms", "there is no metric named 'p99'"),
    ],
)
def test_an_objective_that_no_request_can_meet_or_miss_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_slo(text)
    assert str(caught.value).startswith(f"--slo {text!r}") and says in str(caught.value)


def test_an_objective_on_a_metric_that_the_test_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match="this test does not measure ttft"):
        parse_slo("ttft.p99<800ms", PLAIN)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_stand_in_a_threshold(metric: str) -> None:
    text = {Kind.TIME: f"{metric}.p95>5ms", Kind.SHARE: f"{metric}>5%", Kind.NUMBER: f"{metric}>5"}[
        METRICS[metric]
    ]
    assert parse_threshold(text).metric == metric
