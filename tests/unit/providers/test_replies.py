"""Texts and numbers out of replies."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.providers.replies import MESSAGE_CHARS_MAX, clean, count, plain_text, read_json, total


@given(st.text(max_size=700))
def test_a_clean_text_is_one_short_printable_line(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) <= MESSAGE_CHARS_MAX
    assert cleaned.isprintable()
    assert cleaned == cleaned.strip()


def test_what_steers_a_terminal_is_taken_out() -> None:
    assert clean("a\x1b[31mred\x07\r\nb\u202ec\u2028d\x9be") == "a [31mred b c d e"


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abcdef0123456789.",
        "bad header Authorization: Bearer abc.def.ghi",
        "no access with api_key=0123456789abcdef",
    ],
)
def test_what_looks_like_a_key_is_masked(text: str) -> None:
    cleaned = clean(text)
    assert "[secret]" in cleaned
    assert "abcdef" not in cleaned and "abc.def" not in cleaned


def test_ordinary_words_about_keys_stay() -> None:
    assert clean("Incorrect API key provided.") == "Incorrect API key provided."
    assert clean("ask-me-anything desk-top") == "ask-me-anything desk-top"


def test_a_page_is_named_by_its_title_or_its_words() -> None:
    assert (
        plain_text(b"<html><TITLE>\n 504 Gateway\tTime-out</TITLE></html>")
        == "an HTML page, '504 Gateway Time-out'"
    )
    assert plain_text(b"<html><style>b{c:d}</style><p>Busy</p></html>") == "an HTML page, 'Busy'"
    assert plain_text(b"<html></html>") == "an HTML page"
    assert plain_text(b"a < b") == "a < b"


@pytest.mark.parametrize(
    "body", [b"<" * 1_000_000, b"<style" * 200_000, b"<title>" * 200_000, b"<html>" + b"< " * 500_000]
)
def test_a_huge_page_is_read_at_once(body: bytes) -> None:
    start = time.process_time()
    assert len(plain_text(body)) <= MESSAGE_CHARS_MAX
    assert time.process_time() - start < 1.0


def test_counts_are_clamped() -> None:
    assert [count(value) for value in (0, 7, 7.9, 10**9, 10**9 + 1, 10**18, float("inf"))] == [
        0,
        7,
        7,
        10**9,
        -1,
        -1,
        -1,
    ]
    assert [count(value) for value in (-1, -0.5, float("nan"), True, "7", None, [])] == [-1] * 7
    assert total(-1, 5, 7) == 12 and total(-1, -1) == -1 and total(10**9, 10**9) == 10**9


@given(st.binary(max_size=200))
def test_reading_json_never_raises(body: bytes) -> None:
    read_json(body)


def test_half_a_pair_is_mended_everywhere() -> None:
    assert read_json(b'{"a\\ud800": ["\\udc00", {"b": "\\ud83d\\ude00"}]}') == {
        "a\ufffd": ["\ufffd", {"b": "\U0001f600"}]
    }
