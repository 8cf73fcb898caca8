"""The mock provider on a socket: answers, order, faults, and the log that is the tests' witness."""

import asyncio
import json
from typing import Any

import pytest
from mockclient import chat, exchange, post, served

from engine.mock.answers import expected_answer
from engine.mock.server import MockServer
from engine.mock.settings import MockSettings, QuotaSettings, parse_capacity, parse_fault


def test_an_answer_depends_on_its_prompt_and_on_nothing_else() -> None:
    replies, _ = served(MockSettings(), chat("one"), chat("two"), chat("one"))
    texts = [json.loads(body)["choices"][0]["message"]["content"] for _, _, body in replies]
    assert texts == [expected_answer("one"), expected_answer("two"), expected_answer("one")]


def test_pipelined_requests_are_answered_in_order_whatever_their_latency() -> None:
    prompts = [f"row {n}" for n in range(20)]
    replies, _ = served(MockSettings(latency="uniform:1:30"), *(chat(prompt) for prompt in prompts))
    texts = [json.loads(body)["choices"][0]["message"]["content"] for _, _, body in replies]
    assert texts == [expected_answer(prompt) for prompt in prompts]


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/responses", {"model": "m", "input": "hi"}, ["output"]),
        ("/v1/embeddings", {"model": "m", "input": "hi"}, ["data", 0, "embedding"]),
        ("/v1/completions", {"model": "m", "prompt": "hi"}, ["choices", 0, "text"]),
        (
            "/v1/messages",
            {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
            ["content"],
        ),
        (
            "/api/chat",
            {"model": "m", "stream": False, "messages": [{"role": "user", "content": "hi"}]},
            ["message"],
        ),
        ("/api/embed", {"model": "m", "input": "hi"}, ["embeddings", 0]),
        (
            "/openai/deployments/d/chat/completions?api-version=1",
            {"messages": [{"role": "user", "content": "hi"}]},
            ["choices", 0, "message"],
        ),
    ],
)
def test_every_api_answers_in_its_own_shape(path: str, body: dict[str, Any], where: list[Any]) -> None:
    replies, _ = served(MockSettings(), post(path, body))
    status, _, data = replies[0]
    assert status == 200
    value = json.loads(data)
    for part in where:
        value = value[part]
    assert value


def test_a_stream_ends_with_done_and_holds_the_whole_answer() -> None:
    replies, _ = served(MockSettings(), chat("hi", stream=True))
    frames = [line[6:] for line in replies[0][2].decode().split("\n\n") if line]
    assert frames[-1] == "[DONE]"
    text = "".join(json.loads(frame)["choices"][0]["delta"].get("content", "") for frame in frames[:-1])
    assert text == expected_answer("hi")


def test_an_answer_to_a_schema_fits_it() -> None:
    schema = {
        "type": "object",
        "properties": {
            "label": {"enum": ["a", "b"]},
            "score": {"type": "integer", "minimum": 3, "maximum": 5},
        },
        "required": ["label", "score"],
    }
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    replies, _ = served(MockSettings(), chat("hi", response_format=shape))
    answer = json.loads(json.loads(replies[0][2])["choices"][0]["message"]["content"])
    assert answer["label"] in ("a", "b")
    assert 3 <= answer["score"] <= 5


@pytest.mark.parametrize(
    ("fault", "status"), [("429", 429), ("503", 503), ("html502", 502), ("insufficient_quota", 429)]
)
def test_a_fault_strikes_the_request_it_is_meant_for(fault: str, status: int) -> None:
    rule = parse_fault(f"{fault},nth=2")
    replies, stats = served(MockSettings(faults=(rule,)), chat("a"), chat("b"), chat("c"))
    assert [reply[0] for reply in replies] == [200, status, 200]
    assert stats["faults"] == {fault: 1}


def test_the_log_counts_rows_repeats_and_windows() -> None:
    _, stats = served(MockSettings(), chat("a"), chat("b"), chat("a"))
    assert (stats["requests"], stats["rows"], stats["replies_repeated"]) == (3, 2, 1)
    assert stats["max_in_60s"] == 3
    assert stats["connections"] == 1


def test_a_wrong_key_and_a_wrong_model_are_refused() -> None:
    settings = MockSettings(api_key="right", models=("m",))
    body = {"model": "other", "messages": [{"role": "user", "content": "x"}]}
    replies, _ = served(
        settings,
        chat("a"),
        post("/v1/chat/completions", body, "Authorization: Bearer right\r\n"),
    )
    assert [reply[0] for reply in replies] == [401, 404]


def test_beyond_its_capacity_it_refuses() -> None:
    async def run() -> list[int]:
        async with MockServer(MockSettings(latency="100ms", capacity=3)) as server:
            found = await asyncio.gather(*(exchange(server.port, chat(str(n))) for n in range(5)))
            return sorted(replies[0][0] for replies in found)

    assert asyncio.run(run()) == [200, 200, 200, 429, 429]


def test_its_capacity_may_change_with_time() -> None:
    settings = MockSettings(capacity=50, capacity_steps=((20.0, 200), (40.0, 20)))
    assert [settings.capacity_after(at) for at in (0.0, 19.9, 20.0, 39.0, 41.0)] == [50, 50, 200, 200, 20]
    assert parse_capacity("50,40:20,20:200") == (settings.capacity, settings.capacity_steps)
    assert parse_capacity("7") == (7, ())
    for wrong in ("x", "5,6", "5,1:x", "-1", "5,1:-1"):
        with pytest.raises(ValueError, match="capacity"):
            parse_capacity(wrong)

    async def run() -> list[int]:
        async with MockServer(MockSettings(latency="20ms", capacity=9, capacity_steps=((0.0, 2),))) as server:
            found = await asyncio.gather(*(exchange(server.port, chat(str(n))) for n in range(4)))
            return sorted(replies[0][0] for replies in found)

    assert asyncio.run(run()) == [200, 200, 429, 429]


def test_garbage_is_refused_and_the_connection_closed() -> None:
    async def run() -> bytes:
        async with MockServer(MockSettings()) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\x00\x01 nonsense\r\n\r\n")
            data = await reader.read()
            writer.close()
            return data

    assert asyncio.run(run()).startswith(b"HTTP/1.1 400")


def test_a_200_that_answers_nothing_is_not_counted_as_an_answer_to_its_row() -> None:
    rule = parse_fault("malformed,nth=1")
    _, stats = served(MockSettings(faults=(rule,)), chat("a"), chat("a"))
    assert stats["replies_repeated"] == 0


def test_the_record_of_a_request_has_its_idempotency_key() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}

    async def run() -> list[dict[str, Any]]:
        async with MockServer(MockSettings(log=True)) as server:
            await exchange(server.port, post("/v1/chat/completions", body, "Idempotency-Key: k-1\r\n"))
            (_, _, data), *_ = await exchange(server.port, b"GET /log HTTP/1.1\r\nHost: x\r\n\r\n")
            return [json.loads(line) for line in data.splitlines()]

    assert [record["key"] for record in asyncio.run(run())] == ["k-1"]


def test_output_counts_against_a_limit_on_output() -> None:
    body = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]}
    limit = QuotaSettings(output_tpm=10)
    replies, _ = served(MockSettings(quota=(limit,)), *(post("/v1/messages", body) for _ in range(2)))
    assert [reply[0] for reply in replies] == [200, 429]


def test_the_log_tells_of_each_request_what_it_cost_what_it_got_and_what_was_played_on_it() -> None:
    settings = MockSettings(
        log=True, latency="20ms", faults=(parse_fault("503,nth=2"),), quota=(QuotaSettings(tpm=10_000),)
    )

    async def run() -> list[dict[str, Any]]:
        async with MockServer(settings) as server:
            await exchange(server.port, chat("one"), chat("two"))
            return [json.loads(line) for line in b"".join(server.brain.log.json_lines()).splitlines()]

    good, bad = asyncio.run(run())
    assert (good["status"], good["full"], good["fault"]) == (200, True, "")
    assert (bad["status"], bad["full"], bad["fault"]) == (503, False, "503")
    assert good["tokens"] > 0
    assert 0.01 < good["done_s"] - good["at_s"] < 2.0


def test_the_log_says_of_a_request_that_was_never_answered_that_it_was_not() -> None:
    async def run() -> dict[str, Any]:
        async with MockServer(MockSettings(log=True, latency="60s")) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(chat("never"))
            while not server.brain.log.requests:
                await asyncio.sleep(0.01)
            writer.close()
            (line,) = b"".join(server.brain.log.json_lines()).splitlines()
            found: dict[str, Any] = json.loads(line)
            return found

    record = asyncio.run(run())
    assert (record["status"], record["full"], record["done_s"]) == (0, False, 0.0)


@pytest.mark.parametrize("path", ["/plain", "/v1/chat/completions", "/nowhere", "/stats"])
def test_head_is_answered_with_the_head_alone_and_the_connection_goes_on(path: str) -> None:
    async def run() -> tuple[bytes, int]:
        async with MockServer(MockSettings()) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            writer.write(b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            told = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return told, server.stats()["in_flight"]  # type: ignore[return-value]

    told, in_flight = asyncio.run(run())
    first, _, second = told.partition(b"\r\n\r\n")
    assert b"content-length: 0" not in first, "it tells what GET would bring"
    assert second.startswith(b"HTTP/1.1 200 OK")
    assert in_flight == 0


def test_head_of_a_stream_brings_no_piece_of_it() -> None:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}

    async def run() -> bytes:
        async with MockServer(MockSettings()) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            asked = post("/v1/chat/completions", body, "Connection: close\r\n")
            writer.write(asked.replace(b"POST", b"HEAD", 1))
            told = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return told

    told = asyncio.run(run())
    assert b"text/event-stream" in told
    assert told.endswith(b"\r\n\r\n") and told.count(b"\r\n\r\n") == 1
