"""Waits out of headers and messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.providers.headers import RESET_HEADERS, WAIT_S_MAX, duration_s, hint_in, wait_of

NOW = "Sat, 21 Nov 2026 03:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after-ms": "644"}, 0.644),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "-5", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "999999999"}, 120.0),
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1_000"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "999999999"}, 120.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Sat, 21 Nov 2026 03:00:42 GMT", "date": NOW}, 42.0),
        ({"retry-after": "Sat, 21 Nov 2026 05:00:00 GMT", "date": NOW}, 120.0),
        ({"retry-after": "Sat, 21 Nov 2026 02:59:00 GMT", "date": NOW}, None),
        ({"retry-after": "Sat, 21 Nov 2026 03:00:42 GMT"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 03:00:42 GMT", "date": "yesterday"}, None),
        ({"retry-after": "Sat, 99 Nov 2026 99:00:42 GMT", "date": NOW}, None),
        ({"retry-after": "Saturday, 21-Nov-26 03:00:05 GMT", "date": NOW}, 5.0),
        ({"retry-after": "2026-11-21T03:00:05Z", "date": NOW}, 5.0),
        ({"retry-after": "2026-13-45T99:99:99Z", "date": NOW}, None),
    ],
)
def test_the_wait_a_server_names_is_read_in_every_form(headers: dict[str, str], wait_s: float | None) -> None:
    assert wait_of(headers) == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 120.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2.5s"}, 2.5),
        ({"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "2.5s"}, None),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "5"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12ms"}, 0.012),
        ({"x-rate-limit-reset-tokens": "55"}, 55.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "3"}, 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795230010", "date": NOW}, 10.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795230010"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "4s",
            },
            4.0,
        ),
        (
            {
                "anthropic-ratelimit-output-tokens-remaining": "0",
                "anthropic-ratelimit-output-tokens-reset": "2026-11-21T03:00:08+00:00",
                "date": NOW,
            },
            8.0,
        ),
        (
            {
                "anthropic-ratelimit-output-tokens-remaining": "0",
                "anthropic-ratelimit-output-tokens-reset": "2026-11-21T03:00:08Z",
            },
            None,
        ),
    ],
)
def test_an_empty_buckets_reset_is_the_last_resort(headers: dict[str, str], wait_s: float | None) -> None:
    assert wait_of(headers) == (None if wait_s is None else pytest.approx(wait_s))
    assert wait_of(headers, resets=False) is None
    if wait_s is not None:
        assert wait_of({**headers, "retry-after": "0.25"}) == 0.25


def test_what_the_body_says_comes_between_retry_after_and_resets() -> None:
    resets = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "9s"}
    assert wait_of(resets, hint_s=2.0) == 2.0
    assert wait_of({**resets, "retry-after": "1"}, hint_s=2.0) == 1.0
    assert wait_of(resets, hint_s=float("nan")) == 9.0
    assert wait_of(resets, hint_s=-3.0) == 9.0


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("Please try again in 644ms. Visit https://example.org", 0.644),
        ("Please try again in 18.642s.", 18.642),
        ("try again in 6m0s", 360.0),
        ("Please retry in 38.2s.", 38.2),
        ("Please retry after 33 seconds.", 33.0),
        ("Retry after 1 second", 1.0),
        ("retry after 2 minutes", 120.0),
        ("retry in 500 milliseconds", 0.5),
        ("try again in 1 hour", 3600.0),
        ("please try again later", None),
        ("try again in a while", None),
        ("retry after 7 sheep", None),
        ("", None),
    ],
)
def test_a_wait_in_a_message_is_read(text: str, wait_s: float | None) -> None:
    assert hint_in(text) == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3723.0),
        ("500µs", 0.0005),
        ("38s", 38.0),
        ("5", None),
        ("-5s", None),
        ("1d", None),
        ("s", None),
        ("1..5s", None),
    ],
)
def test_go_durations_are_read(text: str, seconds: float | None) -> None:
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@given(
    st.dictionaries(
        st.sampled_from(
            ["retry-after", "retry-after-ms", "date", *(name for pair in RESET_HEADERS for name in pair)]
        ),
        st.text(max_size=80) | st.from_regex(r"[0-9TZ:. a-zA-Z,+-]{0,40}", fullmatch=True),
    ),
    st.floats() | st.none(),
)
def test_no_header_makes_a_wait_beyond_its_bounds(headers: dict[str, str], hint_s: float | None) -> None:
    wait_s = wait_of(headers, hint_s=hint_s)
    assert wait_s is None or 0.0 < wait_s <= WAIT_S_MAX


@pytest.mark.parametrize(
    "text", ["try again in " + "1" * 5_000, "retry " * 5_000, "1h" * 5_000, "try again in " + "1m" * 2_000]
)
def test_a_long_message_is_searched_at_once(text: str) -> None:
    hint = hint_in(text)  # the test's time-out is the assertion against a search that explodes
    assert hint is None or hint >= 0.0
