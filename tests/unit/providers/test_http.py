"""Plain HTTP: where requests may go, and what is taken out of replies."""

from typing import Any

import pytest

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Answer, Ask, Charge, Failure, Reply, Target
from engine.providers.http import Http


def made(**fields: Any) -> Http:
    return Http(
        Target("http", **{"base_url": "https://api.example.org/items/{{ id }}", "method": "GET", **fields})
    )


@pytest.mark.parametrize(
    ("template", "origin"),
    [
        ("https://api.example.org/items/{{ id }}?q={{ q }}", "https://api.example.org"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("HTTPS://API.example.org:443?x={{ x }}", "https://api.example.org"),
        ("http://[::1]:80/x", "http://[::1]"),
    ],
)
def test_the_origin_is_the_constant_beginning_of_the_template(template: str, origin: str) -> None:
    assert made(base_url=template).origin == origin


@pytest.mark.parametrize(
    "template",
    [
        "",
        "x{{ url }}",
        "{% if a %}http://h{% endif %}/",
        "https://{{ host }}/x",
        "https://host{{ x }}/",
        "ftp://h/",
        "https://me:pw@h/",
        "h/x",
    ],
)
def test_a_template_whose_host_is_not_written_out_is_refused(template: str) -> None:
    with pytest.raises(UsageError) as raised:
        made(base_url=template)
    assert "pw" not in str(raised.value)


def test_a_rendered_request_is_sent_as_it_is() -> None:
    ask = Ask(url="https://api.example.org/items/1?q=%20", headers=(("x-a", "b"),), content=b"12345")
    call = made(method="put").build(ask)
    assert (call.method, call.url, call.headers, call.body) == ("PUT", ask.url, ask.headers, b"12345")
    assert call.headers is ask.headers
    assert call.charge == Charge(2, 0, 2)
    assert made().build(Ask(url="https://api.example.org/")).charge == Charge()


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/items/1",
        "http://api.example.org/items/1",
        "https://api.example.org:8443/items/1",
        "https://api.example.org.evil.example/",
        "https://api.example.org@evil.example/",
        "https://api.example.org:443@evil.example/",
        "https://me:pw@api.example.org/",
        "https://api.example.org\\@evil.example/",
        "//api.example.org/x",
        "https://api.example.org/a b",
        "https://api.example.org/a\r\nx: y",
        "https://api.example.org/\x00",
        "https://api.example.org/ä",
        "https://api.example.org/a\\b",
        "https://api.example.org/" + "x" * 70_000,
        "https://[::1",
        "",
        "not a url",
    ],
)
def test_a_url_that_leads_elsewhere_or_cannot_be_sent_fails_its_row(url: str) -> None:
    with pytest.raises(RowError) as raised:
        made().build(Ask(url=url))
    assert raised.value.kind is ErrorKind.BAD_REQUEST


def test_a_template_that_begins_with_an_expression_has_no_origin_and_each_row_names_its_own() -> None:
    roaming = made(base_url=" {{ url }}")
    assert roaming.origin == ""
    one = roaming.build(Ask(url=" HTTPS://B\u00fccher.example:443/a b?q=\u00fc#top\n"))
    assert one.url == "https://xn--bcher-kva.example/a%20b?q=%C3%BC"
    assert roaming.build(Ask(url="http://127.0.0.1:9")).url == "http://127.0.0.1:9/"


@pytest.mark.parametrize(
    "url", ["", "/x", "ftp://h/", "http://me:pw@h/", "http://[fe80::1]/", "http://169.254.0.1/"]
)
def test_a_row_that_names_no_page_it_may_fails_with_a_sentence_that_quotes_nothing_of_it(url: str) -> None:
    with pytest.raises(RowError, match="the row's URL ") as raised:
        made(base_url="{{ url }}").build(Ask(url=url))
    assert raised.value.kind is ErrorKind.BAD_REQUEST
    assert "pw" not in raised.value.message


@pytest.mark.parametrize(
    ("status", "body"), [(402, b""), (429, b'{"error": {"code": "insufficient_quota", "message": "no"}}')]
)
def test_a_page_of_a_row_that_wants_money_says_nothing_of_an_account(status: int, body: bytes) -> None:
    for template, kind in (
        ("{{ url }}", ErrorKind.BAD_REQUEST),
        ("http://h/{{ x }}", ErrorKind.QUOTA_EXHAUSTED),
    ):
        failure = made(base_url=template).parse(Reply(status, {}, body))
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.status) == (kind, status)


@pytest.mark.parametrize(
    "url", ["https://API.example.org/x", "https://api.example.org:443/x", "https://api.example.org?x=1"]
)
def test_the_same_origin_written_differently_is_accepted(url: str) -> None:
    assert made().build(Ask(url=url)).url == url


@pytest.mark.parametrize(
    "header",
    [
        ("x", "a\r\nb"),
        ("x", "a\nb"),
        ("x", "a\x00b"),
        ("x", "\ud800"),
        ("x\n", "a"),
        ("", "a"),
        ("x y", "a"),
        ("x:", "a"),
    ],
)
def test_a_header_that_would_break_the_request_fails_its_row(header: tuple[str, str]) -> None:
    provider = made()
    good = Ask(url="https://api.example.org/", headers=(("x", "tab\tand ünïcode"),))
    assert provider.build(good).headers is good.headers
    with pytest.raises(RowError) as raised:
        provider.build(Ask(url="https://api.example.org/", headers=(header,)))
    assert raised.value.kind is ErrorKind.BAD_REQUEST


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b"gr\xc3\xbcn", {}, "grün"),
        (b"gr\xfcn", {"content-type": "text/plain; charset=iso-8859-1"}, "grün"),
        (b"gr\xfcn", {"content-type": 'text/plain; charset="latin1"'}, "grün"),
        (b"gr\xfcn", {}, "gr\ufffdn"),
        (b"a", {"content-type": "text/plain; charset=klingon"}, "a"),
        (b"a", {"content-type": "text/plain; charset=base64"}, "a"),
        (b"", {}, ""),
        (b'{"a":1}', {"content-type": "application/json"}, '{"a":1}'),
    ],
)
def test_without_a_path_the_answer_is_the_replys_text(
    body: bytes, headers: dict[str, str], text: str
) -> None:
    assert made().parse(Reply(200, headers, body)) == Answer(text)


@pytest.mark.parametrize(
    ("select", "value"),
    [("a", {"b": [1, None]}), ("a.b", [1, None]), ("a.b.0", 1), ("a.b.1", None), ("0", "zero"), ("x y", 2)],
)
def test_a_path_leads_to_any_value_of_the_json(select: str, value: Any) -> None:
    body = b'{"a":{"b":[1,null]},"0":"zero","x y":2}'
    assert made(select=select).parse(Reply(200, {}, body)) == Answer(value)


@pytest.mark.parametrize(
    "select", ["b", "a.c", "a.b.2", "a.b.-1", "a.b.x", "a.b.0.y", "a.b.99999999999999999999", "a.b.²"]
)
def test_a_path_that_leads_nowhere_is_a_bad_reply_that_names_it(select: str) -> None:
    failure = made(select=select).parse(Reply(200, {}, b'{"a":{"b":[1,null]}}'))
    assert isinstance(failure, Failure)
    assert failure.kind is ErrorKind.BAD_REPLY
    assert "--select" in failure.message


@pytest.mark.parametrize(
    "fields", [{"select": "a..b"}, {"select": "."}, {"method": "GET /x"}, {"method": ""}]
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        made(**fields)
