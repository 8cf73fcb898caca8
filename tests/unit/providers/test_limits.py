"""Limits in reply headers, in every dialect seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.quota import Rates
from engine.providers.limits import LIMIT_MAX, LimitReader, Seen

OPENAI = {
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-limit-tokens": "160000",
    "x-ratelimit-remaining-tokens": "159976",
    "x-ratelimit-reset-tokens": "9ms",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "1000",
    "anthropic-ratelimit-requests-remaining": "990",
    "anthropic-ratelimit-requests-reset": "2026-11-21T10:00:00Z",
    "anthropic-ratelimit-tokens-limit": "2400000",
    "anthropic-ratelimit-tokens-remaining": "2400000",
    "anthropic-ratelimit-input-tokens-limit": "2000000",
    "anthropic-ratelimit-input-tokens-remaining": "1990000",
    "anthropic-ratelimit-output-tokens-limit": "400000",
    "anthropic-ratelimit-output-tokens-remaining": "400000",
}
GROQ = {
    "x-ratelimit-limit-requests": "14400",
    "x-ratelimit-remaining-requests": "14370",
    "x-ratelimit-reset-requests": "2m59.56s",
    "x-ratelimit-limit-tokens": "18000",
    "x-ratelimit-remaining-tokens": "17997",
    "x-ratelimit-reset-tokens": "7.66ms",
}


def read(headers: dict[str, str], origin: str = "https://api.example", **options: object) -> Seen | None:
    return LimitReader(origin, **options).read(headers)  # type: ignore[arg-type]


def test_openais_six() -> None:
    assert read(OPENAI) == (Rates(5_000, 160_000), Rates(1, 24))


def test_anthropics_input_and_output_apart_with_remainders_rounded_to_thousands() -> None:
    assert read(ANTHROPIC) == (Rates(1_000, 0, 2_000_000, 400_000), Rates(10, 0, 9_500, 0))


def test_groqs_requests_are_of_a_day_wherever_they_come_from() -> None:
    assert read(GROQ) == (Rates(tpm=18_000), Rates(tpm=3))
    assert read(GROQ, "https://api.groq.com") == (Rates(tpm=18_000), Rates(tpm=3))


def test_togethers_are_of_a_second_and_only_of_together() -> None:
    headers = {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "0", "x-tokenlimit-limit": "3000"}
    assert read(headers, "https://api.together.xyz") == (Rates(600, 180_000), Rates())
    assert read(headers, "https://api.github.example") is None


def test_mistrals_are_of_a_minute() -> None:
    headers = {
        "x-ratelimit-limit-req-minute": "60",
        "x-ratelimit-remaining-req-minute": "59",
        "x-ratelimit-limit-tokens-minute": "500000",
        "x-ratelimit-remaining-tokens-minute": "499000",
    }
    assert read(headers) == (Rates(60, 500_000), Rates(1, 1_000))


AZURE = {
    "x-ratelimit-limit-requests": "20",
    "x-ratelimit-remaining-requests": "19",
    "x-ratelimit-reset-requests": "10",
    "x-ratelimit-limit-tokens": "120000",
    "x-ratelimit-remaining-tokens": "119000",
}


def test_azures_request_limit_yields_to_a_declared_one() -> None:
    assert read(AZURE, provider="azure") == (Rates(20, 120_000), Rates(1, 1_000))
    assert read(AZURE, provider="azure", declares_rpm=True) == (Rates(tpm=120_000), Rates(tpm=1_000))


@pytest.mark.parametrize("wrong", ["-1", "0", "", "many", "1e3", "12.5", "9" * 40, "\N{SUPERSCRIPT TWO}"])
def test_azures_minus_one_and_other_nonsense_is_no_limit(wrong: str) -> None:
    headers = {**OPENAI, "x-ratelimit-limit-requests": wrong}
    assert read(headers) == (Rates(tpm=160_000), Rates(tpm=24))
    headers = {**OPENAI, "x-ratelimit-remaining-tokens": "-1"}
    assert read(headers) == (Rates(5_000, 160_000), Rates(1))


def test_more_left_than_there_is_is_nothing_used() -> None:
    assert read({**OPENAI, "x-ratelimit-remaining-tokens": "999999999"}) == (Rates(5_000, 160_000), Rates(1))


def test_limits_that_only_later_replies_name_are_read() -> None:
    reader = LimitReader("https://api.example")
    some = {name: value for name, value in OPENAI.items() if "requests" in name}
    assert reader.read(some) == (Rates(5_000), Rates(1))
    assert reader.read(OPENAI) == (Rates(5_000, 160_000), Rates(1, 24))


def test_a_daily_limit_is_known_as_one_as_soon_as_something_of_it_is_used() -> None:
    reader = LimitReader("https://api.example")
    untouched = {**GROQ, "x-ratelimit-remaining-requests": "14400", "x-ratelimit-reset-requests": "0s"}
    assert reader.read(untouched) == (Rates(14_400, 18_000), Rates(0, 3))
    assert reader.read(GROQ) == (Rates(tpm=18_000), Rates(tpm=3))
    assert reader.read(untouched) == (Rates(tpm=18_000), Rates(tpm=3))


def test_replies_without_limits_say_nothing_and_later_ones_are_read_all_the_same() -> None:
    reader = LimitReader("https://api.example")
    assert reader.read({"content-type": "application/json"}) is None
    assert reader.read(OPENAI) is not None
    assert reader.read({"content-type": "application/json"}) is None


@given(st.dictionaries(st.sampled_from([*OPENAI, *ANTHROPIC]), st.text(max_size=20)))
def test_no_header_ever_raises_or_gives_an_absurd_limit(headers: dict[str, str]) -> None:
    seen = read(headers)
    if seen is not None:
        assert all(0 <= limit <= LIMIT_MAX for limit in seen.limits)
        assert all(0 <= used <= max(1, limit) for used, limit in zip(seen.used, seen.limits, strict=True))
