"""Every fault, as a client sees it."""

import asyncio
import gzip
import json
import random
import time
from typing import Any

import pytest
from mockclient import chat, exchange, post, served

from engine.mock.answers import expected_answer
from engine.mock.faults import Faults
from engine.mock.server import MockServer
from engine.mock.settings import FAULT_NAMES, MockSettings, parse_fault

MESSAGES = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
OLLAMA = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def faulty(*texts: str, **more: Any) -> MockSettings:
    return MockSettings(faults=tuple(map(parse_fault, texts)), **more)


def raw(settings: MockSettings, request: bytes, *, wait_s: float = 5.0, bytes_max: int = 1 << 20) -> bytes:
    """All bytes that come back until the connection ends, or so many, or for so long."""

    async def run() -> bytes:
        async with MockServer(settings) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            data = b""
            try:
                async with asyncio.timeout(wait_s):
                    while len(data) < bytes_max and (piece := await reader.read(65_536)):
                        data += piece
            except TimeoutError:
                pass
            finally:
                writer.close()
            return data

    return asyncio.run(run())


def body_of(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[2]


def test_every_name_in_the_table_can_be_parsed() -> None:
    for name in FAULT_NAMES:
        rule = parse_fault(f"{name},url=http://x/" if name == "redirect" else name)
        assert rule.name == name


@pytest.mark.parametrize("text", ["nonsense", "200", "429=2", "429,nope=1", "redirect", "slow,wait_s=-1"])
def test_a_fault_that_cannot_be_played_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mock settings"):
        parse_fault(text)


# --- which request it strikes -------------------------------------------------------------------------------


def test_a_rule_strikes_by_number_time_attempt_and_text() -> None:
    def picked(text: str, **case: Any) -> bool:
        seen = {"number": 1, "since_s": 0.0, "attempt": 1, "body": b"hello", **case}
        return Faults((parse_fault(text),), random.Random(0)).pick(**seen) is not None

    assert picked("500,nth=1+3") and picked("500,nth=1+3", number=3) and not picked("500,nth=1+3", number=2)
    assert picked("500,start_s=5,end_s=9", since_s=5.0) and not picked("500,start_s=5,end_s=9", since_s=9.0)
    assert picked("500,attempts=2", attempt=2) and not picked("500,attempts=2", attempt=3)
    assert picked("500,match=ell") and not picked("500,match=xyz")


def test_a_probability_strikes_about_so_many() -> None:
    faults = Faults((parse_fault("500=0.2"),), random.Random(1))
    struck = sum(faults.pick(number, 0.0, 1, b"") is not None for number in range(2000))
    assert 330 < struck < 470


def test_rules_after_a_freeze_or_a_brownout_still_strike() -> None:
    settings = faulty("freeze,end_s=0.02", "brownout,factor=1", "503,nth=2")
    replies, _ = served(settings, chat("a"), chat("b"))
    assert [status for status, _, _ in replies] == [200, 503]


# --- what it does --------------------------------------------------------------------------------------------


def test_a_freeze_holds_replies_to_requests_from_before_it_too() -> None:
    async def run() -> tuple[float, float]:
        settings = faulty("freeze,start_s=0.05,end_s=0.3", latency="100ms")
        async with MockServer(settings) as server:
            began = time.monotonic()
            await exchange(server.port, chat("before"))  # due at 0.1 s
            return time.monotonic() - began, began

    took_s, _ = asyncio.run(run())
    assert 0.29 <= took_s < 1.0


def test_a_brownout_makes_replies_slower() -> None:
    began = time.monotonic()
    served(faulty("brownout,factor=10", latency="20ms"), chat("a"))
    assert time.monotonic() - began >= 0.2


def test_a_storm_refuses_everything_and_says_how_long() -> None:
    settings = faulty("storm,end_s=30")
    (status, headers, _), *_ = served(settings, chat("a"))[0]
    assert (status, headers["retry-after"]) == (429, "30")
    (_, headers, _), *_ = served(faulty("storm,end_s=30,retry_after=none"), chat("a"))[0]
    assert "retry-after" not in headers
    (_, headers, _), *_ = served(faulty("storm,retry_after=-1"), chat("a"))[0]
    assert headers["retry-after"] == "-1"


@pytest.mark.parametrize("fault", ["reset", "reset_body"])
def test_a_reset_is_a_real_one(fault: str) -> None:
    with pytest.raises(ConnectionResetError):
        raw(faulty(fault), chat("a"))


def test_a_truncated_body_is_shorter_than_its_length_says() -> None:
    data = raw(faulty("truncate"), chat("a"))
    stated = int(data.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert 0 < len(body_of(data)) < stated


def test_a_wrong_length_is_longer_or_shorter_than_the_body() -> None:
    longer = raw(faulty("wrong_length"), chat("a"))
    stated = int(longer.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(body_of(longer)) == stated - 50
    shorter = raw(faulty("wrong_length,value=short"), chat("a"), wait_s=0.1)
    stated = int(shorter.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(body_of(shorter)) == stated + 5


def test_a_hanging_request_is_never_answered() -> None:
    assert raw(faulty("hang"), chat("a"), wait_s=0.1) == b""


def test_a_slow_body_comes_byte_by_byte_and_whole() -> None:
    began = time.monotonic()
    replies, _ = served(faulty("slow,wait_s=0.0005"), chat("a"))
    assert time.monotonic() - began > 0.1
    assert json.loads(replies[0][2])["choices"][0]["message"]["content"] == expected_answer("a")


@pytest.mark.parametrize(
    ("fault", "status", "inside"),
    [
        ("html502", 502, b"<html>"),
        ("malformed", 200, b'"half'),
        ("empty", 200, b""),
        ("wrong200", 200, b"captive portal"),
        ("array200", 200, b"[1, 2, 3]"),
        ("insufficient_quota", 429, b"insufficient_quota"),
        ("too_large", 429, b"Request too large"),
        ("content_filter_400", 400, b"content_filter"),
        ("redirect,url=http://other/", 307, b""),
        ("418", 418, b"error"),
    ],
)
def test_a_reply_is_replaced(fault: str, status: int, inside: bytes) -> None:
    replies, stats = served(faulty(fault), chat("a"))
    assert replies[0][0] == status
    assert inside in replies[0][2]
    assert stats["replies_repeated"] == 0 and stats["faults"] == {fault.split(",")[0]: 1}


def test_a_huge_body_an_endless_one_and_a_bomb_are_what_they_say() -> None:
    assert len(body_of(raw(faulty("huge,size=200000"), chat("a"), wait_s=1.0))) == 200_000
    assert len(raw(faulty("endless"), chat("a"), bytes_max=3_000_000)) >= 3_000_000
    (_, headers, body), *_ = served(faulty("gzip_bomb,size=1000000"), chat("a"))[0]
    assert headers["content-encoding"] == "gzip"
    assert (len(gzip.decompress(body)), len(body) < 10_000) == (1_000_000, True)


def test_a_second_reply_follows_the_first_unasked() -> None:
    data = raw(faulty("extra_reply"), chat("a"), wait_s=0.1)
    assert data.count(b"HTTP/1.1 200") == 2


def test_ten_thousand_headers_come() -> None:
    assert raw(faulty("many_headers"), chat("a")).count(b"\r\nx-h-") == 10_000


def test_a_stale_connection_answers_and_is_closed() -> None:
    data = raw(faulty("stale"), chat("a"))
    assert expected_answer("a").encode() in data


@pytest.mark.parametrize(
    ("value", "inside"), [("null", b'"prompt_tokens":null'), ("-1", b'"prompt_tokens":-1')]
)
def test_a_usage_lies(value: str, inside: bytes) -> None:
    replies, _ = served(faulty(f"usage,value={value}"), chat("a"))
    assert inside in replies[0][2]
    missing, _ = served(faulty("usage,value=missing"), chat("a"))
    assert b"usage" not in missing[0][2]
    json.loads(missing[0][2])


# --- models that decline, and streams that break ------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "fault", "inside"),
    [
        ("/v1/chat/completions", OLLAMA, "refusal", b'"refusal":"I cannot'),
        ("/v1/chat/completions", OLLAMA, "content_filter", b'"finish_reason":"content_filter"'),
        ("/v1/responses", {"model": "m", "input": "hi"}, "refusal", b'"type":"refusal"'),
        ("/v1/responses", {"model": "m", "input": "hi"}, "content_filter", b'"reason":"content_filter"'),
        ("/v1/messages", MESSAGES, "refusal", b'"stop_reason":"refusal"'),
    ],
)
def test_a_model_declines_in_its_own_shape(
    path: str, body: dict[str, Any], fault: str, inside: bytes
) -> None:
    replies, stats = served(faulty(fault), post(path, body), post(path, body))
    assert [status for status, _, _ in replies] == [200, 200]
    assert inside in replies[0][2]
    assert stats["replies_repeated"] == 0  # nothing a row was answered with


def test_an_error_of_anthropic_has_its_shape() -> None:
    replies, _ = served(faulty("529"), post("/v1/messages", MESSAGES))
    error = json.loads(replies[0][2])
    assert (replies[0][0], error["type"], error["error"]["type"]) == (529, "error", "overloaded_error")


@pytest.mark.parametrize(
    ("path", "body", "inside"),
    [
        ("/v1/chat/completions", OLLAMA, b'data: {"error":{"message"'),
        ("/v1/responses", {"model": "m", "input": "hi"}, b"event: error\n"),
        ("/v1/messages", MESSAGES, b"event: error\n"),
        ("/api/chat", OLLAMA, b'{"error":"an error'),
    ],
)
def test_a_stream_reports_an_error_in_its_providers_words_and_ends(
    path: str, body: dict[str, Any], inside: bytes
) -> None:
    replies, _ = served(faulty("sse_error"), post(path, {**body, "stream": True}))
    assert replies[0][2].count(inside) == 1
    assert b"[DONE]" not in replies[0][2]


def test_a_stream_is_cut_off_without_its_end() -> None:
    data = raw(faulty("sse_cut"), chat("hi", stream=True))
    assert data.startswith(b"HTTP/1.1 200")
    assert not data.endswith(b"0\r\n\r\n")
