"""What ``engine load`` refuses before anything is sent, each with a sentence; and what its flags come to."""

from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import UsageError
from engine.loadtest.model import LoadPlan, OnLate
from engine.loadtest.plan import DURATION_S, measured_by, plan_of

URL = {"url": "http://127.0.0.1:9/"}
MODEL = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "prompt": "hi"}


def plan(environment: dict[str, str] | None = None, **flags: Any) -> LoadPlan:
    return plan_of(flags, environment or {}).plan


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({}, "nothing to send to"),
        (URL, "no load"),
        (URL | {"rate": "0"}, "above 0"),
        (URL | {"rate": "fast"}, "not like 100"),
        (URL | {"rate": "10", "concurrency": 5}, "exclude each other"),
        (URL | MODEL | {"rate": "10"}, "one of them"),
        (MODEL | {"rate": "10", "method": "GET"}, "--method is for plain HTTP"),
        (URL | {"rate": "10", "stream": True}, "--stream is for models"),
        (URL | {"rate": "10", "duration": "5 weeks"}, "--duration"),
        (URL | {"rate": "10", "duration": "-5s"}, "--duration"),
        (URL | {"rate": "10", "requests": 0}, "--requests 0"),
        (URL | {"rate": "10", "warmup": "30s", "duration": "30s"}, "leaves nothing to measure"),
        (URL | {"rate": "10", "timeout": "soon"}, "--timeout"),
        (URL | {"rate": "10", "arrival": "uniform"}, "--arrival 'uniform'"),
        (URL | {"rate": "10", "burstiness": 2.0}, "--arrival gamma"),
        (URL | {"rate": "10", "arrival": "gamma", "burstiness": 0.0}, "--burstiness"),
        (URL | {"rate": "10", "on_late": "wait"}, "--on-late 'wait'"),
        (URL | {"concurrency": 4, "on_late": "drop"}, "nothing is late"),
        (URL | {"concurrency": 4, "arrival": "poisson"}, "does not go with"),
        (URL | {"ramp": ["10:20"]}, "FROM:TO:SECONDS"),
        (URL | {"ramp": ["0:0:5s"]}, "rate of 0"),
        (URL | {"find_max": True, "concurrency": 4}, "chooses its own rates"),
        (URL | {"find_max": True, "requests": 4}, "chooses its own rates"),
        (URL | {"rate": "10", "slo": ["ttft.p99<800ms"]}, "does not measure ttft"),
        (URL | {"rate": "10", "slo": ["latency.p99<800"]}, "needs a unit"),
        (URL | {"concurrency": 10, "fail_if": ["achieved<99%"]}, "does not measure achieved"),
        (URL | {"rate": "10", "fail_if": ["latency p99 over 2s"]}, "not like METRIC"),
        (URL | {"rate": "10", "fail_if": ["speed>1%"]}, "no metric named 'speed'"),
        (URL | {"rate": "10", "speed": 2.0}, "--speed goes with --trace"),
        (URL | {"rate": "10", "rpm": "auto"}, "numbers"),
        (URL | {"rate": "10", "requests": 10**20}, "--requests"),
        (URL | {"rate": "10", "seed": 10**20}, "--seed"),
        (URL | {"rate": "10", "seed": -1}, "--seed"),
        (URL | {"rate": "10", "procs": "1000000000"}, "too many"),
        (URL | {"rate": "10", "ca_file": "/nowhere.pem"}, "--ca-file"),
        (URL | {"rate": "10", "max_tokens": "5"}, "--max-tokens is for models"),
        (URL | {"ramp": ["10:0:1s"], "requests": 100}, "never comes to 100"),
        (URL | {"find_max": True, "on_late": "foo"}, "--on-late 'foo'"),
        (URL | {"find_max": True, "burstiness": 2.0}, "--arrival gamma"),
        (URL | {"rate": "10", "wire": "fast"}, "--wire 'fast'"),
        ({"url": "ftp://127.0.0.1/", "rate": "10"}, "URL"),
        ({"url": "{{ url }}", "rate": "10"}, "of one endpoint"),
        ({"url": "http://127.0.0.1:9/{{ id }}", "rate": "10"}, "names 'id', and there is no data"),
        (MODEL | {"prompt": "{{ text }}", "rate": "10"}, "names 'text', and there is no data"),
        ({"base_url": "http://127.0.0.1:9/v1", "prompt": "hi", "rate": "10"}, "no model"),
        ({"base_url": "http://127.0.0.1:9/v1", "model": "m", "rate": "10"}, "source of the question"),
        (MODEL | {"rate": "10", "endpoint": "embeddings", "stream": True}, "streams nothing"),
        (MODEL | {"rate": "10", "data": "/nowhere/rows.jsonl"}, "/nowhere/rows.jsonl"),
        (MODEL | {"base_url": "https://api.openai.com/v1", "rate": "1"}, "OPENAI_API_KEY"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_with_a_sentence(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(flags, {})
    assert says in str(caught.value)


def test_a_data_file_with_no_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(UsageError, match="has no rows"):
        plan(**MODEL, rate="10", data=str(tmp_path / "rows.jsonl"))


def test_a_row_that_no_request_can_be_made_of_is_refused_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"other": 1}\n')
    with pytest.raises(UsageError, match="Row 2 of the data cannot be sent"):
        plan(**MODEL | {"prompt": "{{ text }}"}, rate="10", data=str(tmp_path / "rows.jsonl"))


def test_a_line_that_is_no_row_is_refused_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\nnot json\n')
    with pytest.raises(UsageError, match=r"Row 2 of the data|Line 2"):
        plan(**MODEL | {"prompt": "{{ text }}"}, rate="10", data=str(tmp_path / "rows.jsonl"))


def test_without_an_end_a_test_lasts_half_a_minute_a_ramp_as_long_as_it_is() -> None:
    assert plan(**URL, rate="10").duration_s == DURATION_S
    assert plan(**URL, ramp=["10:100:30s", "100:100:1m"]).duration_s == 90.0
    assert plan(**URL, rate="10", requests=5).duration_s is None
    assert plan(**URL, concurrency=4).duration_s == DURATION_S
    assert plan(**URL, find_max=True).duration_s == 10.0


def test_a_test_may_end_with_its_time_or_its_count_whichever_is_first() -> None:
    both = plan(**URL, rate="10", requests=5, duration="1h")
    assert both.schedule is not None
    assert (both.schedule.requests, both.schedule.duration_s) == (5, 3600.0)


def test_the_lean_wire_carries_load_tests_unless_told_otherwise() -> None:
    assert plan(**URL, rate="10").job.wire == "lean"
    assert plan(**URL, rate="10", wire="aiohttp").job.wire == "aiohttp"
    assert plan({"ENGINE_WIRE": "aiohttp"}, **URL, rate="10").job.wire == "aiohttp"


def test_a_url_is_fetched_with_get_and_with_post_where_there_is_a_body() -> None:
    assert plan(**URL, rate="10").job.target.method == "GET"
    assert plan(**URL, rate="10", body='{"a": 1}').job.target.method == "POST"
    assert plan(**URL, rate="10", body='{"a": 1}', method="put").job.target.method == "PUT"


def test_a_closed_loop_has_no_more_workers_than_slots() -> None:
    assert plan(**URL, concurrency=2, procs="8").job.procs == 2


def test_what_a_test_measures_depends_on_what_it_sends() -> None:
    streamed = plan(**MODEL, rate="10", stream=True, slo=["ttft.p99<800ms"], fail_if=["tpot.mean>20ms"])
    assert streamed.is_streamed and streamed.objectives[0].metric == "ttft"
    assert "output_tokens_per_s" not in measured_by(plan(**URL, rate="10"))
    assert "ttft" not in measured_by(plan(**MODEL, rate="10"))


def test_a_streamed_request_says_so_and_asks_for_its_usage() -> None:
    from engine.providers import make_provider
    from engine.worker.load.calls import Calls

    job = plan(**MODEL, rate="10", stream=True).job
    body = Calls(job, make_provider(job.target), ())[0].body or b""
    assert b'"stream":true' in body
    assert b'"include_usage":true' in body


def test_rows_are_taken_in_turn(tmp_path: Path) -> None:
    from engine.providers import make_provider
    from engine.worker.load.calls import Calls

    (tmp_path / "rows.csv").write_text("text\none\ntwo\n")
    made = plan(**MODEL | {"prompt": "{{ text }}"}, rate="10", data=str(tmp_path / "rows.csv"))
    calls = Calls(made.job, make_provider(made.job.target), made.rows)
    assert [b"one" in (calls[number].body or b"") for number in range(4)] == [True, False, True, False]
    assert calls[0] is calls[2], "a call is made once"


def test_a_search_starts_from_the_rate_that_was_given() -> None:
    assert plan_of(URL | {"find_max": True, "rate": "40"}, {}).search_from == 40.0
    assert plan_of(URL | {"find_max": True}, {}).search_from == 10.0
    assert plan_of(URL | {"rate": "40"}, {}).search_from == 0.0


def test_late_requests_are_caught_up_unless_told_otherwise() -> None:
    assert plan(**URL, rate="10").on_late is OnLate.CATCH_UP
    assert plan(**URL, rate="10", on_late="drop").on_late is OnLate.DROP


def test_a_trace_of_one_moment_is_a_burst_and_a_speed_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("7\n7\n7\n")
    made = plan(**URL, trace=str(tmp_path / "trace"))
    assert made.schedule is not None and made.schedule.offsets_s == (0.0, 0.0, 0.0)
    with pytest.raises(UsageError, match="speed of 0"):
        plan(**URL, trace=str(tmp_path / "trace"), speed=0.0)


def test_a_key_in_the_query_of_a_url_is_in_no_result() -> None:
    made = plan(url="http://127.0.0.1:9/a?api_key=SECRET&x", rate="10")
    assert made.asked["url"] == "http://127.0.0.1:9/a?api_key=…&x"
    assert "SECRET" in made.job.target.base_url


def test_what_results_repeat_of_the_command_has_no_header_and_no_body() -> None:
    made = plan(**URL, rate="10", header=["X-Token: abc123"], body='{"secret": "abc123"}')
    assert "abc123" not in str(made.asked)
    assert (made.asked["rate"], made.asked["loop"], made.asked["arrival"]) == (10.0, "open", "constant")
