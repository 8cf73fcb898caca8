"""Durations and rates as people write them."""

import pytest

from engine.core.errors import UsageError
from engine.core.quantities import duration_s, rate_per_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("5m", 300.0), ("1.5h", 5_400.0), ("250ms", 0.25), (" 2 min ", 120.0), ("7", 7.0), (".5s", 0.5)],
)  # fmt: skip
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-3s", "1e3s", "3 weeks", "1m30s", "nan", "inf", "0s", "400d", "1,5s"]
)
def test_what_is_no_duration_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        duration_s(text, "--duration")
    assert str(caught.value).startswith(f"--duration {text!r} ")


@pytest.mark.parametrize(
    ("text", "rate"), [("100", 100.0), ("2.5/s", 2.5), ("600/m", 10.0), ("90/h", 0.025), ("0.1", 0.1)]
)
def test_a_rate_is_read_per_second(text: str, rate: float) -> None:
    assert rate_per_s(text) == rate


@pytest.mark.parametrize("text", ["0", "-1", "fast", "10/d", "100000000", "1e3"])
def test_a_rate_that_sends_nothing_or_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--rate"):
        rate_per_s(text, "--rate")
    assert rate_per_s("0", zero=True) == 0.0
