"""The bytes of a request: valid HTTP/1.1 for whatever a call holds, or refused."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from engine.core.model import Call
from engine.worker.head import Heads

ORIGIN = URL("http://127.0.0.1:8000")
KEY = "run-1-0"


class Seen:
    """What a server's parser makes of a request."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.url = b""
        self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.method = parser.get_method().decode()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().lower(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]


def written(
    method: str = "POST",
    path: str = "/v1/x",
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes | None = b"{}",
    origin: URL = ORIGIN,
    always: list[tuple[str, str]] | None = None,
    absolute: bool = False,
) -> bytes:
    url = str(origin) + path
    heads = Heads(origin, always or [], absolute=absolute)
    return heads.request(Call(method, url, headers, body), URL(url, encoded=True), KEY)


def test_a_request_is_written_byte_for_byte() -> None:
    headers = (("Content-Type", "application/json"),)
    assert written(headers=headers, body=b'{"a": "\xc3\xa4"}', always=[("Authorization", "Bearer k")]) == (
        b"POST /v1/x HTTP/1.1\r\n"
        b"Host: 127.0.0.1:8000\r\n"
        b"Content-Type: application/json\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Accept: */*\r\n"
        b"User-Agent: throughput-engine\r\n"
        b"Authorization: Bearer k\r\n"
        b"Idempotency-Key: run-1-0\r\n"
        b"Content-Length: 11\r\n"
        b"\r\n"
        b'{"a": "\xc3\xa4"}'
    )


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://api.example.com", "api.example.com"),
        ("https://api.example.com:443", "api.example.com"),
        ("https://api.example.com:8443", "api.example.com:8443"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_the_host_is_named_with_its_port_unless_that_is_the_usual_one(origin: str, host: str) -> None:
    assert Seen(written(origin=URL(origin))).all("host") == [host]


@pytest.mark.parametrize(
    ("method", "length"), [("GET", []), ("HEAD", []), ("DELETE", []), ("POST", ["0"]), ("PUT", ["0"])]
)
def test_a_request_without_a_body_says_so_where_one_is_expected(method: str, length: list[str]) -> None:
    seen = Seen(written(method=method, body=None))
    assert (seen.method, seen.all("content-length"), seen.complete) == (method, length, 1)


def test_a_key_wins_over_a_header_of_the_same_name_whatever_its_case() -> None:
    seen = Seen(written(headers=(("AUTHORIZATION", "row"),), always=[("Authorization", "Bearer k")]))
    assert seen.all("authorization") == ["Bearer k"]


def test_a_header_given_twice_is_sent_twice_and_a_default_gives_way() -> None:
    seen = Seen(written(headers=(("X-A", "1"), ("x-a", "2"), ("accept", "text/html"), ("Host", "virtual"))))
    assert seen.all("x-a") == ["1", "2"]
    assert seen.all("accept") == ["text/html"]
    assert seen.all("host") == ["virtual"]


@pytest.mark.parametrize(
    "headers",
    [
        (("X-A", "1\r\nX-Evil: 2"),),
        (("X-A", "1\nX-Evil: 2"),),
        (("X-A", "1\x00"),),
        (("X-A", "1\x08"),),
        (("X-A\r\nX-Evil", "1"),),
        (("X A", "1"),),
        (("", "1"),),
        (("Content-Length", "5"),),
        (("Transfer-Encoding", "chunked"),),
        (("Connection", "close"),),
    ],
)
def test_a_header_that_would_break_the_framing_is_refused(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ValueError, match="header"):
        written(headers=headers)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX-Evil: 1", "/\x00", "/ä"])
def test_an_address_that_would_break_the_request_line_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="address"):
        written(path=path)


def test_a_proxy_for_plain_http_is_told_the_whole_address() -> None:
    assert Seen(written(path="/v1/x?a=1", absolute=True)).url == b"http://127.0.0.1:8000/v1/x?a=1"


def test_what_is_remembered_of_one_call_never_reaches_another() -> None:
    heads = Heads(ORIGIN, [])
    one, two = URL("http://127.0.0.1:8000/one"), URL("http://127.0.0.1:8000/two")
    plain: tuple[tuple[str, str], ...] = (("X-A", "1"),)
    other: tuple[tuple[str, str], ...] = (("X-A", "2"),)
    for target, headers, method in (
        (one, plain, "POST"),
        (two, plain, "POST"),
        (two, other, "POST"),
        (two, other, "PUT"),
    ):
        seen = Seen(heads.request(Call(method, str(target), headers, b"x"), target, KEY))
        assert (seen.url.decode(), seen.all("x-a"), seen.method) == (target.path, [headers[0][1]], method)


_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(_TEXT, _TEXT), max_size=4), st.binary(max_size=50))
def test_whatever_headers_hold_the_server_sees_one_request_with_its_body_or_none_is_sent(
    headers: list[tuple[str, str]], body: bytes
) -> None:
    try:
        data = written(headers=tuple(headers), body=body)
    except ValueError:
        return
    seen = Seen(data)
    assert (seen.complete, seen.body, seen.all("content-length")) == (1, body, [str(len(body))])
    assert len(seen.headers) <= len(headers) + 6


def test_who_wants_no_idempotency_keys_sends_none() -> None:
    call = Call("POST", "http://127.0.0.1:8000/a", (("A", "b"),), b"{}")
    data = Heads(ORIGIN, [], keyed=False).request(call, URL("http://127.0.0.1:8000/a"), "")
    seen = Seen(data)
    assert (seen.complete, seen.body) == (1, b"{}")
    assert "idempotency-key" not in data.lower().decode()
    assert b"\r\n\r\n{}" in data
