"""The engine from a program: results in order and as they come, and rows that are run again."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pools import ASK, provider, texts

import engine
from engine import Pool, UsageError, ask, request
from engine.mock.answers import expected_answer
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]


def test_results_are_in_the_order_of_the_rows_whatever_the_latencies() -> None:
    with provider("lognormal:30:1.0") as mock, Pool(ASK, texts(600), base_url=mock.base_url, procs=2) as pool:
        results = pool.run()
        assert pool.status == {"total": 600, "completed": 600, "failed": 0, "running": 0, "pending": 0}
    assert [result.index for result in results] == list(range(600))
    assert [result.row for result in results] == texts(600)
    assert [result.value for result in results] == [expected_answer(text) for text in texts(600)]
    assert {result.status for result in results} == {"ok"}
    assert all(result.usage.tokens_in and result.usage.tokens_out for result in results)
    assert all(result.latency_ms and result.attempts == 1 and not result.error for result in results)


def test_one_bad_row_does_not_stop_the_others_and_only_it_is_run_again() -> None:
    bad = "400,match=row 7 "
    rows: list[Any] = [{"text": text} for text in texts(40)]
    rows[11] = {"text": object()}
    with provider("10ms", bad) as mock, Pool(ASK, rows, base_url=mock.base_url, procs=1) as pool:
        results = pool.run()
        failed = [result for result in results if not result.ok]
        assert [(result.index, result.value) for result in failed] == [(7, None), (11, None)]
        assert failed[0].error.startswith("bad_request: ")
        assert failed[1].error.startswith("bad_input: the row cannot be written as JSON")
        assert failed[1].row is rows[11]
        assert pool.status["failed"] == 2
        mock.control({"faults": []})
        before = mock.stats()["requests"]
        again = pool.retry_failed()
        assert [(result.index, result.ok) for result in again] == [(7, True), (11, False)]
        assert again[0].value == expected_answer(texts(40)[7])
        assert mock.stats()["requests"] - before == 1
        assert pool.status == {"total": 40, "completed": 39, "failed": 1, "running": 0, "pending": 0}


def test_failed_rows_of_a_generator_are_run_again_too() -> None:
    bad = "400,match=row 7 "
    with (
        provider("10ms", bad) as mock,
        Pool(ASK, (text for text in texts(20)), base_url=mock.base_url, procs=1) as pool,
    ):
        assert sum(result.ok for result in pool.stream()) == 19
        mock.control({"faults": []})
        assert [(result.index, result.row) for result in pool.retry_failed()] == [(7, texts(20)[7])]
        assert pool.status == {"total": 20, "completed": 20, "failed": 0, "running": 0, "pending": 0}
        assert pool.retry_failed() == []
        with pytest.raises(UsageError, match="can be read only once"):
            pool.run()


def test_a_stream_hands_on_results_while_the_rest_runs() -> None:
    with provider("uniform:20:2000") as mock:
        pool = Pool(ASK, texts(100), base_url=mock.base_url, procs=1, max_flows=100)
        stream = pool.stream()
        first = next(stream)
        early = pool.status
        rest = list(stream)
        pool.close()
    assert early["completed"] and early["completed"] < 50
    assert early["running"] and early["total"] == 100 == sum(early.values()) - 100
    assert {result.index for result in [first, *rest]} == set(range(100))


def test_a_generator_waits_for_results_of_its_earlier_rows() -> None:
    """Rows are sent on as they come: who makes the next one of an answer is not kept waiting."""
    answers: list[str] = []
    come = threading.Event()

    def questions() -> Iterator[str]:
        yield "first"
        assert come.wait(30)
        yield answers[0]

    with Pool(ASK, questions(), provider="mock", base_url="mock:latency=5ms", procs=1) as pool:
        for result in pool.stream():
            answers.append(result.value)
            come.set()
    assert answers == [expected_answer("first"), expected_answer(expected_answer("first"))]


def test_fifty_slow_answers_are_fetched_side_by_side() -> None:
    with provider("2.5s") as mock:
        with Pool(ASK, texts(50), base_url=mock.base_url, max_flows=100, procs=2) as pool:
            pool.run()
        stats = mock.stats()
    assert stats["ok"] == 50
    assert stats["last_s"] - stats["first_s"] + 2.5 < 3.0


def test_a_finished_pool_gives_its_results_again_without_sending_anything(tmp_path: Path) -> None:
    with provider("5ms", "400,match=row 3 ") as mock:
        for _ in range(2):
            with Pool(ASK, texts(30), base_url=mock.base_url, state=tmp_path / "state", procs=1) as pool:
                results = pool.run()
                assert pool.status == {"total": 30, "completed": 29, "failed": 1, "running": 0, "pending": 0}
            assert [result.ok for result in results] == [number != 3 for number in range(30)]
            assert results[5].value == expected_answer(texts(30)[5]) and results[5].attempts == 1
        assert mock.stats()["requests"] == 30
        pool = Pool(ASK, texts(30)[::-1], base_url=mock.base_url, state=tmp_path / "state")
        with pool, pytest.raises(UsageError, match="The input has changed"):
            pool.run()
        assert mock.stats()["requests"] == 30


def test_a_durable_pool_knows_what_was_done_before_it_runs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with provider("5ms", "400,match=row 3 ") as mock:

        def made(**settings: Any) -> Pool:
            return Pool(ASK, texts(10), base_url=mock.base_url, state=state, procs=1, **settings)

        with made() as pool:
            assert pool.status["completed"] == 0
            pool.run()
        assert made().status == {"total": 10, "completed": 9, "failed": 1, "running": 0, "pending": 0}
        assert made(fresh=True).status["completed"] == 0
        pool = Pool(ASK, texts(3), base_url=mock.base_url, state=state)
        with pool, pytest.raises(UsageError, match="there are 3 now, but the row with the index 3 failed"):
            pool.retry_failed()
        assert made().status["failed"] == 1  # it was not opened again
        mock.control({"faults": []})
        with made() as pool:
            assert [result.ok for result in pool.retry_failed()] == [True]


def test_a_column_that_no_row_has_is_refused_before_anything_is_sent() -> None:
    with MockProcess() as mock:
        pool = Pool(ask("{{ txet }}", model="mock"), texts(3), base_url=mock.base_url)
        with pool, pytest.raises(UsageError, match="The template names 'txet'"):
            pool.run()
        assert mock.stats()["requests"] == 0


def test_a_plain_request_gives_the_page() -> None:
    with MockProcess() as mock:
        step = request(mock.origin + "/stats?{{ value }}", method="GET", select="requests")
        with Pool(step, [1, 2, 3], procs=1) as pool:
            results = pool.run()
    assert [result.value for result in results] == [0, 0, 0]
    assert [result.row for result in results] == [1, 2, 3]


def test_a_schemas_properties_are_the_value() -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}, "sure": {"type": "boolean"}}}
    schema["required"] = ["label", "sure"]
    step = ask("{{ text }}", model="mock", schema=schema)
    with Pool(step, ["good"], provider="mock", base_url="mock:latency=1ms", procs=1) as pool:
        (result,) = pool.run()
    assert set(result.value) == {"label", "sure"} and isinstance(result.value["sure"], bool)


def test_both_ways_work_on_a_running_event_loop() -> None:
    async def main() -> tuple[list[engine.Result], list[int], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        with provider("300ms") as mock:
            async with asyncio.timeout(60):
                pool = Pool(ASK, texts(30), base_url=mock.base_url, procs=1)
                results = await pool.arun()
                pool.close()
                other = Pool(ASK, texts(20), base_url=mock.base_url, procs=1)
                streamed = [result.index async for result in other.astream()]
                assert len(other.run()) == 20  # blocks this loop, and works
                other.close()
        ticking.cancel()
        return results, streamed, ticks

    results, streamed, ticks = asyncio.run(main())
    assert [result.index for result in results] == list(range(30))
    assert sorted(streamed) == list(range(20))
    assert ticks > 20
