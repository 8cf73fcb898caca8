"""What a reply is: a success, or exactly one error; and the stamps of a stream, wherever its bytes are cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply, Target
from engine.providers import make_provider
from engine.worker.failures import SHORTAGE
from engine.worker.load.exchanges import AnswerExchange, Exchange, StreamExchange

CALL = Call("POST", "http://127.0.0.1/", (), b"{}")
EVENTS = b"text/event-stream"
ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def said(text: str) -> dict[str, object]:
    return {"choices": [{"delta": {"content": text}}]}


def event(body: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def plain() -> Exchange:
    exchange = Exchange(lambda exchange, result: None)
    exchange.begin(CALL, 0.0, 100.0)
    exchange.timing.sent = exchange.sent = 100.0
    return exchange


def answers() -> AnswerExchange:
    provider = make_provider(Target("openai", base_url="http://127.0.0.1:9/v1", model="m"))
    exchange = AnswerExchange(lambda exchange, result: None, provider)
    exchange.begin(CALL, 0.0, 100.0)
    exchange.timing.sent = exchange.sent = 100.0
    return exchange


def streams(dialect: str = "chat") -> StreamExchange:
    exchange = StreamExchange(lambda exchange, result: None, dialect)
    exchange.begin(CALL, 0.0, 100.0)
    exchange.timing.sent = exchange.sent = 100.0
    return exchange


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, ""), (204, ""), (302, "http_3xx"), (404, "http_4xx"), (429, "http_429"), (500, "http_5xx"), (503, "http_5xx")],
)  # fmt: skip
def test_a_plain_reply_is_judged_by_its_status(status: int, error: str) -> None:
    assert plain().judge(Reply(status, {}, b"not json"), 101.0) == error


@pytest.mark.parametrize(
    ("kind", "sent", "first_byte", "error"),
    [
        (ErrorKind.DNS, 0.0, 0.0, "dns"),
        (ErrorKind.CONNECT_REFUSED, 0.0, 0.0, "connect_refused"),
        (ErrorKind.TIMEOUT, 0.0, 0.0, "connect_timeout"),
        (ErrorKind.TIMEOUT, 100.0, 0.0, "timeout_first_token"),
        (ErrorKind.TIMEOUT, 100.0, 100.5, "timeout_total"),
        (ErrorKind.TLS, 0.0, 0.0, "tls"),
        (ErrorKind.CONNECTION_RESET, 100.0, 0.0, "reset"),
        (ErrorKind.PROTOCOL_ERROR, 100.0, 0.0, "protocol"),
        (ErrorKind.BODY_TOO_LARGE, 100.0, 100.5, "too_large"),
        (ErrorKind.REDIRECT_REFUSED, 100.0, 100.5, "http_3xx"),
    ],
)
def test_a_failure_of_the_network_has_its_own_name(
    kind: ErrorKind, sent: float, first_byte: float, error: str
) -> None:
    exchange = plain()
    exchange.sent, exchange.first_byte = sent, first_byte
    status = 302 if kind is ErrorKind.REDIRECT_REFUSED else 0
    assert exchange.judge(Failure(kind, "it failed", status=status), 101.0) == error


def test_what_this_machine_is_short_of_is_no_refusal_of_the_endpoints() -> None:
    exchange = plain()
    exchange.sent = 0.0
    failure = Failure(ErrorKind.CONNECT_REFUSED, f"{SHORTAGE}: 127.0.0.1:80 (Too many open files)")
    assert exchange.judge(failure, 101.0) == "client_internal"
    assert not exchange.timing.is_sent


def test_a_stream_that_said_it_is_whole_is_a_success_though_its_connection_stays_open() -> None:
    exchange = streams()
    exchange.on_headers(200, {}, 100.0)
    exchange.on_data(event(said("a")) + event(USAGE) + DONE, 100.1)
    assert exchange.judge(Failure(ErrorKind.TIMEOUT, "the body stalled"), 160.0) == ""
    assert (exchange.timing.end, exchange.timing.tokens_out) == (100.1, 3)


def test_an_answer_says_what_it_cost() -> None:
    exchange = answers()
    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": USAGE["usage"]}
    assert exchange.judge(Reply(200, {}, json.dumps(body).encode()), 101.0) == ""
    assert (exchange.timing.tokens_in, exchange.timing.tokens_out) == (7, 3)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>gateway</html>", "bad_json"),
        (b'{"choices": []}', "bad_json"),
        (b'{"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}', "empty_response"),
        (b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}', "refused"),
    ],
)
def test_a_reply_of_200_that_is_no_answer_is_a_failure(body: bytes, error: str) -> None:
    assert answers().judge(Reply(200, {}, body), 101.0) == error


def test_the_tokens_of_one_answer_are_never_those_of_the_one_before() -> None:
    exchange = answers()
    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": USAGE["usage"]}
    exchange.judge(Reply(200, {}, json.dumps(body).encode()), 101.0)
    exchange.judge(Failure(ErrorKind.CONNECTION_RESET, "reset"), 102.0)
    assert exchange.timing.tokens_out == -1


def test_a_role_chunk_is_no_first_token_and_what_follows_the_content_is_no_part_of_it() -> None:
    exchange = streams()
    assert exchange.on_headers(200, {}, 100.001)
    exchange.on_data(event(ROLE), 100.001)
    exchange.on_data(event(said("Hello")), 100.2)
    exchange.on_data(event(said(" world")), 100.25)
    exchange.on_data(event(said("!")), 100.4)
    exchange.on_data(event(USAGE) + DONE, 100.9)
    assert exchange.judge(Reply(200, {}, b""), 100.9) == ""
    timing = exchange.timing
    assert (timing.first_content, timing.first_answer, timing.last_content, timing.end) == (
        100.2,
        100.2,
        100.4,
        100.4,
    )
    assert exchange.gaps_us == pytest.approx([50_000, 150_000], abs=1)
    assert timing.stall_us == pytest.approx(150_000, abs=1)
    assert timing.tail_us == pytest.approx(500_000, abs=1)
    assert (timing.tokens_in, timing.tokens_out) == (7, 3)


def test_reasoning_is_the_first_token_and_not_the_first_answer() -> None:
    exchange = streams()
    exchange.on_headers(200, {}, 100.0)
    exchange.on_data(event({"choices": [{"delta": {"reasoning_content": "hm"}}]}), 100.1)
    exchange.on_data(event(said("so")) + DONE, 100.3)
    assert exchange.judge(Reply(200, {}, b""), 100.3) == ""
    assert (exchange.timing.first_content, exchange.timing.first_answer) == (100.1, 100.3)


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([event(said("a"))], "truncated_stream"),
        ([event(ROLE) + DONE], "empty_response"),
        ([event(said("a")), event({"error": {"message": "overloaded"}})], "sse_error_event"),
        ([b"data: {broken\n\n" + DONE], "sse_error_event"),
        ([event(said("a"))[:-9]], "truncated_stream"),
        ([b'{"choices": [{"message": {"content": "whole"}}]}'], "bad_reply"),
        ([b'\n{"choices":', b' [{"message": {"content": "whole"}}]}\n'], "bad_reply"),
        ([b'[{"error": "not like this"}]'], "bad_reply"),
    ],
)
def test_a_stream_that_is_not_a_whole_answer_is_a_failure(pieces: list[bytes], error: str) -> None:
    exchange = streams()
    exchange.on_headers(200, {}, 100.0)
    for piece in pieces:
        exchange.on_data(piece, 100.1)
    assert exchange.judge(Reply(200, {}, b""), 100.2) == error


@pytest.mark.parametrize("kind", [ErrorKind.CONNECTION_RESET, ErrorKind.PROTOCOL_ERROR])
def test_a_stream_whose_connection_breaks_is_truncated(kind: ErrorKind) -> None:
    exchange = streams()
    exchange.on_headers(200, {}, 100.0)
    exchange.on_data(event(said("a")), 100.1)
    assert exchange.judge(Failure(kind, "broken off"), 100.2) == "truncated_stream"


def test_a_stream_that_stalls_before_its_first_token_is_told_from_one_that_stalls_after_it() -> None:
    late = Failure(ErrorKind.TIMEOUT, "too late")
    before, after = streams(), streams()
    for exchange in (before, after):
        exchange.on_headers(200, {}, 100.0)
        exchange.on_data(event(ROLE), 100.0)
    after.on_data(event(said("a")), 100.1)
    assert before.judge(late, 130.0) == "timeout_first_token"
    assert after.judge(late, 130.0) == "timeout_total"


def test_a_refused_stream_is_judged_by_its_status() -> None:
    exchange = streams()
    assert not exchange.on_headers(429, {}, 100.0)
    assert exchange.judge(Reply(429, {}, b"{}"), 100.1) == "http_429"


def test_json_that_came_compressed_instead_of_a_stream_is_a_bad_reply() -> None:
    assert streams().judge(Reply(200, {}, b'{"choices": []}'), 101.0) == "bad_reply"


def test_lines_of_json_that_are_cut_off_are_a_stream_all_the_same() -> None:
    exchange = streams("ollama")
    exchange.on_headers(200, {}, 100.0)
    exchange.on_data(b'{"message": {"content": "a"}, "done": false}\n', 100.1)
    assert exchange.judge(Reply(200, {}, b""), 101.0) == "truncated_stream"


def test_a_slot_begins_anew_with_each_request() -> None:
    exchange = streams()
    exchange.on_headers(200, {}, 100.0)
    exchange.on_data(event(said("a")) + event(said("b")) + DONE, 100.1)
    exchange.on_data(b"", 100.2)
    exchange.judge(Reply(200, {}, b""), 100.2)
    exchange.begin(CALL, 1.0, 101.0)
    timing = exchange.timing
    assert (timing.first_content, timing.last_content, timing.first_answer, timing.stall_us) == (
        0.0,
        0.0,
        0.0,
        0,
    )
    assert (timing.tokens_out, exchange.gaps_us, exchange.streamed_bytes) == (-1, [], 0)
    exchange.on_headers(200, {}, 101.0)
    exchange.on_data(b"{}", 101.1)
    assert exchange.streamed_bytes == 2
    assert exchange.judge(Reply(200, {}, b""), 101.2) == "bad_reply"


@given(st.lists(st.integers(1, 40), max_size=60))
def test_it_does_not_matter_where_the_bytes_of_a_stream_are_cut(sizes: list[int]) -> None:
    data = event(ROLE) + event(said("Grüße 🙂")) + event(said(" an alle")) + event(USAGE) + DONE
    exchange = streams()
    exchange.on_headers(200, {}, 100.0)
    at = 0
    for size in [*sizes, len(data)]:
        if data[at : at + size]:
            exchange.on_data(data[at : at + size], 100.1)
        at += size
    assert exchange.judge(Reply(200, {}, b""), 100.2) == ""
    assert (exchange.timing.first_content, exchange.timing.tokens_out) == (100.1, 3)
