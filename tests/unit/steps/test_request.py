"""Plain HTTP requests: a row fills in values and can do nothing else."""

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import StepSettings
from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Target, Usage
from engine.providers.http import Http
from engine.providers.row_urls import read_row_url
from engine.steps import make_step
from engine.steps.base import Again, Done

TEXT = st.text() | st.sampled_from(
    ["..", ".", "%2e%2e", "../x", "a/b", "@evil", "\\evil", "?a=1&b=2", "#x", "{{ y }}"]
)


def step(provider: Any, *, schema: Any = None, url: str = "https://host/x", **settings: Any) -> Any:
    target = Target(provider="http", schema=schema)
    return make_step("request", StepSettings(kind="request", url=url, **settings), target, provider)


def sent(provider: Any, row: dict[str, Any], **settings: Any) -> Any:
    step(provider, **settings).start(row)
    return provider.asks[-1]


@pytest.mark.parametrize(
    "url",
    [
        "x{{ url }}",
        "{% set a = 1 %}{{ url }}",
        "{{ url",
        "https://{{ host }}/x",
        "https://host{{ path }}",
        "https://host:{{ port }}/x",
        "https://{% if a %}x{% endif %}/",
        "https://host{# #}.evil/",
        "https://user@host/",
        "https://user:pw@host/",
        "https://host\\@evil/",
        "https://host#x",
        "ftp://host/",
        "file:///etc/passwd",
        "//host/x",
        "/x",
        "host/x",
        "",
        "https://",
        "https://host name/",
        "https://host/a/../b",
        "https://host/%2e%2E/b",
        "https://host/{{ x",
    ],
)
def test_a_url_whose_host_is_not_written_out_is_refused(provider: Any, url: str) -> None:
    with pytest.raises(UsageError):
        step(provider, url=url)


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8000", "https://host", "http://[::1]:80", "HTTPS://Host-1.example"]
)
def test_every_ordinary_origin_is_taken(provider: Any, origin: str) -> None:
    assert sent(provider, {}, url=origin + "/x").url == origin + "/x"
    assert sent(provider, {"q": "1"}, url=origin + "?q={{ q }}").url == origin + "?q=1"


@given(value=TEXT)
def test_a_value_stays_inside_its_segment_and_its_parameter(value: str) -> None:
    from engine.core.model import Ask, Call

    class Provider:
        def build(self, ask: Ask) -> Call:
            return Call("GET", ask.url, (), None)

    url = "https://host:81/a/{{ v }}/b?q={{ v }}&r=1"
    try:
        call = step(Provider(), url=url).start({"v": value}).call
    except RowError as error:
        assert value in (".", "..")
        assert error.kind is ErrorKind.TEMPLATE_ERROR
        return
    parts = urlsplit(call.url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "host:81", "")
    assert [unquote(segment) for segment in parts.path.split("/")] == ["", "a", value, "b"]
    assert parse_qs(parts.query, keep_blank_values=True) == {"q": [value], "r": ["1"]}
    assert call.url.isascii() and call.url.isprintable() and " " not in call.url


def test_the_templates_own_text_in_a_url_is_made_ascii(provider: Any) -> None:
    assert (
        sent(provider, {"a": "ü"}, url=" https://host/sö me%20x/{{ a }}\n").url
        == "https://host/s%C3%B6%20me%20x/%C3%BC"
    )


def test_a_line_break_in_the_urls_own_text_fails_the_row(provider: Any) -> None:
    with pytest.raises(RowError, match="control character"):
        step(provider, url="https://host/a\r\nb").start({})


@pytest.mark.parametrize(
    ("template", "row", "url"),
    [
        ("{{ url }}", {"url": "http://h/a b?x=1&y=%20#top"}, "http://h/a b?x=1&y=%20#top"),
        (" {{ row['the url'] }}\n", {"the url": "http://h"}, "http://h"),
        ("{{- url | trim -}}", {"url": " http://h "}, "http://h"),
        (
            "{{ base }}/items/{{ id }}",
            {"base": "https://h:1", "id": "a/../b?c#d"},
            "https://h:1/items/a%2F..%2Fb%3Fc%23d",
        ),
        ("{{ base }}&n={{ n }}", {"base": " http://h/?a=1#top ", "n": 2}, "http://h/?a=1&n=2"),
        ("{{ '{}}' if n else url }}/x", {"n": 0, "url": "http://h"}, "http://h/x"),
        ("{{ url }}{% if n %}/{{ n }}{% endif %}", {"n": "ü", "url": "http://h"}, "http://h/%C3%BC"),
        ("{{ url }}", {"url": None}, ""),
    ],
)
def test_an_address_of_the_rows_own_stands_as_it_is_and_what_follows_is_percent_encoded(
    provider: Any, template: str, row: dict[str, Any], url: str
) -> None:
    made = step(provider, url=template)
    made.start(row)
    assert provider.asks[-1].url == url
    assert made.columns == frozenset(row)


@given(value=TEXT, tail=TEXT)
def test_whatever_stands_in_an_address_of_a_rows_own_is_sent_in_one_form_or_fails_the_row(
    value: str, tail: str
) -> None:
    made = step(Http(Target("http", "{{ u }}/{{ t }}")), url="{{ u }}/{{ t }}")
    for front in ("", "http://", "http://host/"):
        try:
            url = made.start({"u": front + value, "t": tail}).call.url
        except RowError as error:
            assert error.kind is ErrorKind.BAD_REQUEST
            assert (
                front != "http://host/"
                or not value.isascii()
                or set(value) & set("\\\x7f")
                or not value.isprintable()
            )
            continue
        parts = urlsplit(url)
        assert (
            parts.scheme in ("http", "https")
            and parts.hostname
            and not parts.fragment
            and "@" not in parts.netloc
        )
        assert url.isascii() and url.isprintable() and " " not in url
        assert read_row_url(url) == url


@given(value=st.text())
def test_a_header_value_never_carries_a_line_break(value: str) -> None:
    from engine.core.model import Ask, Call

    class Provider:
        def build(self, ask: Ask) -> Call:
            return Call("GET", ask.url, ask.headers, None)

    try:
        call = step(Provider(), headers=(("x-id", "<{{ v }}>"),)).start({"v": value}).call
    except RowError:
        assert any(ord(c) < 32 or ord(c) == 127 for c in value)
        return
    assert call.headers == (("x-id", f"<{value}>"),)
    assert not any(c in call.headers[0][1] for c in "\r\n\0")


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"])
def test_a_row_cannot_add_a_header(provider: Any, value: str) -> None:
    with pytest.raises(RowError, match="header x-id"):
        step(provider, headers=(("x-id", "{{ v }}"),)).start({"v": value})


@pytest.mark.parametrize(
    "header",
    [("bad name", "x"), ("", "x"), ("a\r\nb", "x"), ("x", "a\nb"), ("Host", "x"), ("content-length", "1")],
)
def test_headers_that_cannot_be_are_refused_at_the_start(provider: Any, header: tuple[str, str]) -> None:
    with pytest.raises(UsageError):
        step(provider, headers=(header,))


def test_constant_headers_are_one_tuple_for_all_rows(provider: Any) -> None:
    request = step(provider, headers=(("accept", "text/plain"),), body='{"a": "{{ a }}"}')
    first, second = request.start({"a": 1}).call, request.start({"a": 2}).call
    assert first.headers is second.headers
    assert first.headers == (("content-type", "application/json"), ("accept", "text/plain"))


def test_a_json_body_is_filled_in_with_the_columns_own_types(provider: Any) -> None:
    body = """{"text": "{{ t }}", "n": "{{ n }}", "list": ["{{ l }}", "n={{ n }}", 1.5, null, []], "o": {},
               "odd": "{{ row[\\"a b\\"] }}", "up": "{{ t|upper }}"}"""
    row = {"t": 'a"},{"x', "n": 3, "l": [1, None], "a b": True}
    content = sent(provider, row, body=body).content
    assert json.loads(content) == {
        "text": 'a"},{"x',
        "n": 3,
        "list": [[1, None], "n=3", 1.5, None, []],
        "o": {},
        "odd": True,
        "up": 'A"},{"X',
    }


@given(value=st.text() | st.none() | st.booleans() | st.integers() | st.lists(st.text(), max_size=3))
def test_no_value_breaks_out_of_its_place_in_the_tree(value: Any) -> None:
    from engine.core.model import Ask, Call

    class Provider:
        def build(self, ask: Ask) -> Call:
            return Call("POST", ask.url, ask.headers, ask.content)

    body = '{"a": "{{ v }}", "b": ["x{{ v }}y"], "c": 1}'
    filled = json.loads(step(Provider(), body=body).start({"v": value}).call.body or b"")
    assert filled["a"] == value
    assert list(filled) == ["a", "b", "c"]
    assert isinstance(filled["b"][0], str) and len(filled["b"]) == 1


@pytest.mark.parametrize("body", ['"{{ a }}"', "[]", "5", '{"a": {"b": ["{{ a }}"]}}'])
def test_any_json_value_can_be_a_body(provider: Any, body: str) -> None:
    assert json.loads(sent(provider, {"a": "x"}, body=body).content) == json.loads(
        body.replace("{{ a }}", "x")
    )


def test_a_missing_column_in_a_body_fails_the_row(provider: Any) -> None:
    for body in ('{"a": "{{ a }}"}', '{"a": "x{{ a }}"}'):
        with pytest.raises(RowError, match="no column 'a'"):
            step(provider, body=body).start({})


def test_a_body_over_the_cap_fails_the_row(provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.steps.request.BODY_BYTES_MAX", 1_000)
    with pytest.raises(RowError, match="longer than 1,000 bytes"):
        step(provider, body='["{{ a }}", "{{ a }}"]').start({"a": "x" * 600})


@pytest.mark.parametrize("body", ["{", '{"a": {{ a }}}', "text {{ a }}", '{"{{ a }}": 1}', '{"a": "{{ a"}'])
def test_a_body_that_is_no_json_is_refused_without_another_type(provider: Any, body: str) -> None:
    with pytest.raises(UsageError):
        step(provider, body=body)
    with pytest.raises(UsageError):
        step(provider, body=body, headers=(("Content-Type", "application/json; charset=utf-8"),))


def test_a_body_of_another_type_is_text_and_a_form_is_escaped(provider: Any) -> None:
    text = sent(provider, {"a": "<ü&"}, body="<a>{{ a }}</a>", headers=(("Content-Type", "text/xml"),))
    assert text.content == "<a><ü&</a>".encode()
    form = (("content-type", "application/x-www-form-urlencoded"),)
    assert sent(provider, {"a": "1&b=2"}, body="a={{ a }}", headers=form).content == b"a=1%26b%3D2"
    assert text.headers == (("Content-Type", "text/xml"),)


def test_without_a_body_none_is_sent_and_no_type_is_claimed(provider: Any) -> None:
    ask = sent(provider, {})
    assert (ask.content, ask.headers) == (None, ())


def test_the_columns_of_all_templates_are_known_before_any_row(provider: Any) -> None:
    request = step(
        provider,
        url="https://host/{{ a }}",
        headers=(("x", "{{ b }}"),),
        body='{"k": ["{{ row[\\"c d\\"] }}{{ e }}"]}',
    )
    assert request.columns == {"a", "b", "c d", "e"}
    assert request.answer_columns == ("response",)


def test_replies_become_columns_the_same_request_again_or_a_failure(provider: Any, reply: Any) -> None:
    asking = step(provider).start({})
    assert asking.absorb(reply("ok")) == Done({"response": "ok"}, Usage(3, 2), "model-1")
    again = asking.absorb(reply("!"))
    assert isinstance(again, Again)
    assert again.call is asking.call
    assert asking.absorb(reply("", status=500)).kind is ErrorKind.SERVER_ERROR


def test_a_schema_checks_what_a_service_says(provider: Any, reply: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    asking = step(provider, schema=schema).start({})
    assert asking.absorb(reply('{"n": 1}')).fields == {"n": 1}
    again = asking.absorb(reply('{"n": "x"}'))
    assert again.call is asking.call
    assert again.failure.kind is ErrorKind.SCHEMA_MISMATCH


def test_a_job_without_a_url_is_refused(provider: Any) -> None:
    with pytest.raises(UsageError, match="--url"):
        make_step("request", StepSettings(kind="request"), Target(provider="http"), provider)
