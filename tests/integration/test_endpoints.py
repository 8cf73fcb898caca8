"""One run, several endpoints: each has its own limits, key and health, and rows go where they are served."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from runs import Run, read_rows, run, until, write_rows

from engine.mock.settings import FaultRule, MockSettings, QuotaSettings
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow

RPM = 6_000
SECOND = QuotaSettings(kind="second", rpm=RPM, tolerance=0.1)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator["Stage"]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


class Stage:
    """Mock providers, and a job file that names them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.mocks: list[MockProcess] = []
        self.tables: list[dict[str, Any]] = []

    def endpoint(self, name: str, settings: MockSettings, **table: Any) -> MockProcess:
        mock = self._stack.enter_context(MockProcess(settings))
        self.mocks.append(mock)
        self.tables.append({"name": name, "base_url": mock.base_url, **table})
        return mock

    def start(
        self,
        rows: int,
        *flags: str,
        environment: dict[str, str] | None = None,
        prompt: str | None = "{{ text }}",
        more: bytes = b"",
    ) -> Run:
        source = write_rows(self.folder / "in.jsonl", rows)
        with source.open("ab") as file:
            file.write(more)
        lines = [f"prompt = {json.dumps(prompt)}", 'model = "mock"'] if prompt is not None else []
        for table in self.tables:
            lines += ["[[endpoints]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        (self.folder / "job.toml").write_text("\n".join(lines))
        return Run(
            "run", str(source), "-o", str(self.folder / "out.jsonl"), "--job", str(self.folder / "job.toml"),
            "--procs", "2", "--json", "--no-progress", *flags, environment=environment,
        )  # fmt: skip

    def rows_by_mock(self) -> list[int]:
        return [int(mock.stats()["ok"]) for mock in self.mocks]


def by_name(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in summary["endpoints"]}


def test_each_quota_is_used_to_its_limit_and_none_is_exceeded(stage: Stage) -> None:
    for name, rpm in (("east", RPM), ("west", RPM // 4)):
        quota = QuotaSettings(kind="second", rpm=rpm, tolerance=0.2)
        stage.endpoint(name, MockSettings(latency="50ms", quota=(quota,)), rpm=rpm)
    summary = stage.start(750).summary()
    assert summary["ok"] == 750
    assert summary["throttled"] == 0
    stats = [mock.stats() for mock in stage.mocks]
    assert [one["throttled"] for one in stats] == [0, 0]
    assert sum(one["ok"] for one in stats) == 750
    assert stats[0]["ok"] == pytest.approx(600, abs=30)
    for one, rpm in zip(stats, (RPM, RPM // 4), strict=True):
        assert one["requests"] / (one["last_s"] - one["first_s"]) > 0.93 * rpm / 60
    found = by_name(summary)
    assert found["east"]["requests"] == stats[0]["requests"]
    assert found["west"]["quota"]["rpm_used"] > 0.9
    assert [row["id"] for row in read_rows(stage.folder / "out.jsonl")] == list(range(750))


def test_rows_of_an_endpoint_that_dies_go_to_the_other_and_it_serves_again_when_it_is_back(
    stage: Stage,
) -> None:
    stage.endpoint("east", MockSettings(latency="20ms"))
    west = stage.endpoint("west", MockSettings(latency="20ms"))
    started = stage.start(100_000, "--in-flight", "8")
    until(lambda: west.stats()["ok"] > 200)
    west.control({"faults": [{"name": "reset"}]})
    until(lambda: west.stats()["faults"].get("reset", 0) >= 10)
    struck = west.stats()["faults"]["reset"]
    east_before = stage.rows_by_mock()[0]
    until(lambda: stage.rows_by_mock()[0] > east_before + 400)
    assert west.stats()["faults"]["reset"] < struck + 20  # probes, and nothing else
    until(lambda: "left alone: the connection broke" in run("status", str(stage.folder / "out.jsonl")).out)
    west.control({"faults": []})
    before = west.stats()["ok"]
    until(lambda: west.stats()["ok"] > before + 200)
    started.kill(signal.SIGINT)
    summary = started.summary()
    assert summary["failed"] == 0
    assert by_name(summary)["west"]["cooldowns"] >= 2  # each worker finds out for itself
    assert "endpoint west is left alone for a while" in started.err
    assert "endpoint west serves again" in started.err


def test_an_endpoint_that_was_never_there_costs_no_row_an_answer(stage: Stage) -> None:
    stage.tables.append({"name": "gone", "base_url": "http://127.0.0.1:9/v1"})
    stage.endpoint("here", MockSettings(latency="20ms"))
    summary = stage.start(500).summary()
    assert (summary["ok"], summary["failed"]) == (500, 0)
    assert by_name(summary)["gone"]["ok"] == 0
    assert summary["requests"] < 600


def test_a_key_that_one_endpoint_refuses_sends_its_rows_to_the_other(stage: Stage) -> None:
    stage.endpoint("bad", MockSettings(latency="20ms", api_key="right"), api_key_env="BAD_KEY")
    stage.endpoint("good", MockSettings(latency="20ms", api_key="other"), api_key_env="GOOD_KEY")
    started = stage.start(300, environment={"BAD_KEY": "wrong-canary", "GOOD_KEY": "other"})
    summary = started.summary()
    assert (summary["ok"], summary["failed"], summary["exit_code"]) == (300, 0, 0)
    assert by_name(summary)["bad"]["requests"] <= 40  # sixteen at first, and what was on its way
    assert "endpoint bad is left alone for a while: the key was refused" in started.err
    assert "canary" not in started.err + started.out


def test_keys_that_all_endpoints_refuse_stop_the_run_and_leave_its_rows_open(stage: Stage) -> None:
    for name in ("east", "west"):
        stage.endpoint(name, MockSettings(latency="20ms", api_key="right"), api_key_env="KEY")
    summary = stage.start(300, environment={"KEY": "wrong"}).summary()
    assert summary["exit_code"] == 3
    assert (summary["ok"], summary["failed"], summary["open"]) == (0, 0, 300)
    assert "the key was refused" in summary["stopped"]


def test_an_account_without_money_is_left_alone_at_once_and_the_run_goes_on(stage: Stage) -> None:
    poor = stage.endpoint("poor", MockSettings(latency="20ms", faults=(FaultRule("insufficient_quota"),)))
    stage.endpoint("rich", MockSettings(latency="20ms"))
    summary = stage.start(400).summary()
    assert (summary["ok"], summary["failed"]) == (400, 0)
    assert poor.stats()["requests"] <= 16


def test_an_endpoint_that_throttles_is_given_the_time_it_asks_for(stage: Stage) -> None:
    storm = FaultRule("storm", start_s=0.3, end_s=30.0, retry_after="20")
    tired = stage.endpoint("tired", MockSettings(latency="20ms", faults=(storm,)), rpm=60_000)
    stage.endpoint("fresh", MockSettings(latency="20ms", quota=(SECOND,)), rpm=RPM)
    summary = stage.start(900).summary()
    assert (summary["ok"], summary["failed"]) == (900, 0)
    assert summary["requests"] <= 1.25 * 900
    assert summary["seconds"] < 19.0
    assert by_name(summary)["fresh"]["throttled"] == 0
    assert tired.stats()["throttled"] > 0


def test_weights_divide_rows_where_there_is_a_choice(stage: Stage) -> None:
    stage.endpoint("heavy", MockSettings(latency="50ms"), weight="75%")
    stage.endpoint("light", MockSettings(latency="50ms"), weight="25%")
    summary = stage.start(1_200, "--in-flight", "32").summary()
    assert summary["ok"] == 1_200
    assert stage.rows_by_mock()[0] == pytest.approx(900, abs=60)


def test_an_endpoint_of_weight_0_is_for_need_only(stage: Stage) -> None:
    main = stage.endpoint("main", MockSettings(latency="20ms"))
    spare = stage.endpoint("spare", MockSettings(latency="20ms"), weight=0)
    started = stage.start(3_000, "--in-flight", "16")
    until(lambda: main.stats()["ok"] > 300)
    assert spare.stats()["requests"] == 0
    main.control({"faults": [{"name": "500"}]})
    summary = started.summary()
    assert (summary["ok"], summary["failed"]) == (3_000, 0)
    assert spare.stats()["ok"] > 1_000


def test_the_last_rows_do_not_wait_for_a_slow_quota_while_another_is_idle(stage: Stage) -> None:
    stage.endpoint("slow", MockSettings(latency="20ms"), rpm=12)
    stage.endpoint("fast", MockSettings(latency="20ms"), rpm=60_000)
    summary = stage.start(200).summary()
    assert summary["ok"] == 200
    assert summary["seconds"] < 8.0  # a slow permit takes five seconds, and some rows stood there in line


def test_a_call_too_dear_for_one_endpoint_goes_to_another(stage: Stage) -> None:
    stage.endpoint("small", MockSettings(latency="20ms"), tpm=2_000)
    large = stage.endpoint("large", MockSettings(latency="20ms"), tpm=1_000_000)
    long = json.dumps({"id": 40, "text": "long " * 5_000}).encode() + b"\n"
    summary = stage.start(40, more=10 * long).summary()
    assert (summary["ok"], summary["failed"]) == (50, 0)
    assert large.stats()["ok"] >= 10


def test_a_resumed_run_may_have_another_endpoint_and_not_another_model(stage: Stage) -> None:
    stage.endpoint("east", MockSettings(latency="20ms"))
    first = stage.start(2_000, "--in-flight", "4")
    until(lambda: stage.mocks[0].stats()["ok"] > 100)
    first.kill(signal.SIGINT)
    first.wait()
    stage.endpoint("west", MockSettings(latency="20ms"))
    second = stage.start(2_000).summary()
    assert second["ok"] == 2_000
    assert second["resumed"] >= 100
    assert stage.mocks[1].stats()["ok"] > 100
    stage.tables[1]["model"] = "another"
    third = stage.start(2_000)
    assert third.wait() == 2
    assert "endpoints" in third.err


def test_a_key_is_sent_to_its_own_endpoint_only(stage: Stage) -> None:
    for name in ("east", "west"):
        stage.endpoint(
            name, MockSettings(latency="20ms", api_key=f"key-{name}"), api_key_env=f"{name.upper()}_KEY"
        )
    started = stage.start(200, environment={"EAST_KEY": "key-east", "WEST_KEY": "key-west"})
    summary = started.summary()
    assert (summary["ok"], summary["retries"]) == (200, 0)
    assert min(stage.rows_by_mock()) > 10


def test_limits_of_one_endpoint_are_set_by_its_name(stage: Stage) -> None:
    east = stage.endpoint("east", MockSettings(latency="20ms"), rpm=600)
    stage.endpoint("west", MockSettings(latency="20ms"), rpm=600)
    started = stage.start(100_000)
    until(lambda: min(stage.rows_by_mock()) > 10)
    output = str(stage.folder / "out.jsonl")
    refused = run("ctl", output, "set", "rpm=6000")
    assert refused.wait() == 2
    assert "east.rpm" in refused.err
    assert "east.rpm is 6,000 now" in run("ctl", output, "set", "east.rpm=6000").out
    before, other = stage.rows_by_mock()
    until(lambda: east.stats()["ok"] > before + 150, 5.0)
    assert stage.rows_by_mock()[1] < other + 60
    started.kill(signal.SIGINT)
    started.wait()


def test_rows_wait_while_all_endpoints_are_ill_and_none_is_lost(stage: Stage) -> None:
    for name in ("east", "west"):
        stage.endpoint(name, MockSettings(latency="20ms"))
    started = stage.start(2_000, "--in-flight", "16")
    until(lambda: min(stage.rows_by_mock()) > 100)
    for mock in stage.mocks:
        mock.control({"faults": [{"name": "502"}]})
    until(lambda: min(mock.stats()["faults"].get("502", 0) for mock in stage.mocks) >= 5)
    before = sum(mock.stats()["requests"] for mock in stage.mocks)
    time.sleep(2.0)
    assert (
        sum(mock.stats()["requests"] for mock in stage.mocks) - before <= 60
    )  # probes, and a few on their way
    for mock in stage.mocks:
        mock.control({"faults": []})
    summary = started.summary()
    assert (summary["ok"], summary["failed"]) == (2_000, 0)


def test_plain_http_endpoints_share_rows_as_well(stage: Stage) -> None:
    for name in ("a", "b"):
        mock = stage.endpoint(name, MockSettings(latency="20ms"))
        del stage.tables[-1]["base_url"]
        stage.tables[-1]["url"] = f"{mock.origin}/echo?q={{{{ id }}}}"
    summary = stage.start(200, "--provider", "http", "--in-flight", "8", prompt=None).summary()
    assert (summary["ok"], summary["failed"]) == (200, 0)
    assert min(one["requests"] for one in summary["endpoints"]) > 50


def test_a_killed_worker_and_a_killed_limiter_cost_no_row_and_no_quota(
    stage: Stage, limiter_dir: Path
) -> None:
    for name in ("east", "west"):
        stage.endpoint(name, MockSettings(latency="50ms", quota=(SECOND,)), rpm=RPM)
    started = stage.start(1_500)
    until(lambda: min(stage.rows_by_mock()) > 100)
    started.children("engine.worker")[0].kill()
    until(lambda: min(stage.rows_by_mock()) > 250)
    for path in limiter_dir.glob("*/info.json"):
        psutil.Process(json.loads(path.read_text())["pid"]).kill()
    summary = started.summary(120.0)
    assert (summary["ok"], summary["failed"]) == (1_500, 0)
    assert [mock.stats()["throttled"] for mock in stage.mocks] == [0, 0]
    assert sum(mock.stats()["requests"] for mock in stage.mocks) <= 1_500 + summary["in_doubt"]
    assert started.err.count("the limiter ended") == 2


def test_a_dead_endpoint_costs_no_row_even_without_retries(stage: Stage) -> None:
    stage.tables.append({"name": "gone", "base_url": "http://127.0.0.1:9/v1"})
    stage.endpoint("here", MockSettings(latency="20ms"))
    summary = stage.start(300, "--retries", "0").summary()
    assert (summary["ok"], summary["failed"]) == (300, 0)


def test_calls_that_wait_for_slow_permits_leave_their_room_to_the_others(stage: Stage) -> None:
    stage.endpoint("slow", MockSettings(latency="20ms"), rpm=12)
    stage.endpoint("fast", MockSettings(latency="20ms"))
    summary = stage.start(300, "--in-flight", "2").summary()
    assert summary["ok"] == 300
    assert summary["seconds"] < 15.0
    assert max(mock.stats()["in_flight_max"] for mock in stage.mocks) <= 2


def test_workers_that_may_not_try_a_dead_endpoint_send_their_rows_to_the_other(stage: Stage) -> None:
    stage.tables.append({"name": "gone", "base_url": "http://127.0.0.1:9/v1"})
    stage.endpoint("spare", MockSettings(latency="200ms", faults=(FaultRule("500", 0.1),)), weight=0)
    summary = stage.start(600, "--procs", "20", "--in-flight", "40").summary()
    assert (summary["ok"], summary["failed"]) == (600, 0)


def test_a_pause_while_an_endpoint_is_ill_costs_no_row(stage: Stage) -> None:
    east = stage.endpoint("east", MockSettings(latency="20ms"))
    west = stage.endpoint("west", MockSettings(latency="20ms", api_key="right"), api_key_env="WEST_KEY")
    started = stage.start(2_000, "--in-flight", "8", environment={"WEST_KEY": "right"})
    until(lambda: min(stage.rows_by_mock()) > 100)
    east.control({"faults": [{"name": "reset"}]})
    until(lambda: east.stats()["faults"].get("reset", 0) > 10)
    output = str(stage.folder / "out.jsonl")
    assert run("ctl", output, "pause").wait() == 0
    time.sleep(0.5)
    before = west.stats()["requests"]
    time.sleep(1.0)
    assert west.stats()["requests"] == before
    east.control({"faults": []})
    assert run("ctl", output, "resume").wait() == 0
    summary = started.summary()
    assert (summary["ok"], summary["failed"]) == (2_000, 0)


def test_a_row_that_one_endpoint_cannot_be_asked_goes_to_another(stage: Stage) -> None:
    other = stage.endpoint("other", MockSettings(latency="20ms"), provider="anthropic")
    stage.endpoint("mine", MockSettings(latency="20ms"))
    lines = b"".join(
        b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":'
        b'{"model":"mock","messages":[{"role":"user","content":"row %d"}]}}\n' % (number, number)
        for number in range(60)
    )
    flags = ("--input-format", "openai-batch", "--max-tokens", "20")
    summary = stage.start(0, *flags, prompt=None, more=lines).summary()
    assert (summary["ok"], summary["failed"]) == (60, 0)
    assert other.stats()["requests"] == 0
