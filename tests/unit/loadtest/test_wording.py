"""Figures as they read: no more digits than measured, and never nothing or all where it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.loadtest import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0"), (0.0004, "0.000"), (0.123, "0.123"), (0.9996, "1.00"), (1.234, "1.23"), (9.994, "9.99"),
        (9.996, "10.0"), (12.34, "12.3"), (99.94, "99.9"), (99.96, "100"), (1234.5, "1,234"),
    ],
)  # fmt: skip
def test_milliseconds_have_three_digits(value: float | None, text: str) -> None:
    assert wording.ms(value) == text


@given(st.floats(0.001, 3.6e6))
def test_milliseconds_read_as_what_they_are(value: float) -> None:
    assert float(wording.ms(value).replace(",", "")) == pytest.approx(value, rel=0.0051, abs=0.00051)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.0, "0%"), (1.0, "100%"), (0.5, "50%"), (0.9931, "99.31%"), (0.999951, ">99.99%"),
        (0.99994, "99.99%"), (0.00001, "<0.01%"), (0.00005, "0.01%"), (0.1, "10%"), (0.1001, "10.01%"),
    ],
)  # fmt: skip
def test_shares_round_neither_to_nothing_nor_to_all(value: float | None, text: str) -> None:
    assert wording.share(value) == text


@given(st.floats(0, 1))
def test_only_all_is_all_and_only_none_is_none(value: float) -> None:
    assert (wording.share(value) == "100%") == (value == 1)
    assert (wording.share(value) == "0%") == (value == 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0.0"), (0.025, "0.025"), (2.5, "2.50"), (99.71, "99.7"), (12345.6, "12,345.6")],
)
def test_rates_keep_what_matters(value: float | None, text: str) -> None:
    assert wording.rate(value) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ([1.0, 2.0], "1.00 – 2.00"),
        ([None, 2.0], "at most 2.00"),
        ([1.0, None], "at least 1.00"),
        ([None, None], "–"),
    ],
)
def test_an_open_end_of_an_interval_is_said_in_words(ends: list[float | None], text: str) -> None:
    assert wording.between(ends) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.44, "0.4 s"),
        (30.0, "30 s"),
        (119.5, "119.5 s"),
        (120, "2 min"),
        (750.2, "12 min 30 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_read_as_people_say_them(value: float, text: str) -> None:
    assert wording.seconds(value) == text


def test_every_time_has_a_name_and_a_meaning() -> None:
    from engine.core.measuring import PLAIN, STREAMED

    assert set(wording.TIMES) == set(wording.MEANINGS) == {*PLAIN, *STREAMED}
