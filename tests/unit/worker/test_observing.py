"""Reply headers on their way to the limiter."""

from engine.core.quota import Rates
from engine.providers.limits import LimitReader
from engine.worker.observing import LOOK_AT_ONE_IN, SILENT_REPLIES, TELL_S, Observer


def headers(limit: int, left: int) -> dict[str, str]:
    return {"x-ratelimit-limit-tokens": str(limit), "x-ratelimit-remaining-tokens": str(left)}


class Ear:
    def __init__(self) -> None:
        self.told: list[tuple[Rates, Rates]] = []
        self.is_there = True
        self.observer = Observer(LimitReader("http://h"), self.tell)

    def tell(self, limits: Rates, used: Rates) -> bool:
        if self.is_there:
            self.told.append((limits, used))
        return self.is_there


def test_a_limit_is_told_at_once_and_use_now_and_then_with_the_most_of_that_time() -> None:
    ear = Ear()
    for number, left in enumerate((90, 40, 70, 60)):
        ear.observer.note(headers(100, left), number * TELL_S / 10)
    assert ear.told == [(Rates(tpm=100), Rates(tpm=10))]
    ear.observer.note(headers(100, 65), TELL_S)
    assert ear.told[1:] == [(Rates(tpm=100), Rates(tpm=60))]
    ear.observer.note(headers(50, 45), TELL_S * 1.01)
    assert ear.told[2:] == [(Rates(tpm=50), Rates(tpm=5))]


def test_what_nobody_heard_is_told_again() -> None:
    ear = Ear()
    ear.is_there = False
    ear.observer.note(headers(100, 90), 0.0)
    ear.is_there = True
    ear.observer.note(headers(100, 95), 0.01)
    assert ear.told == [(Rates(tpm=100), Rates(tpm=10))]


def test_a_refusal_is_always_read() -> None:
    ear = Ear()
    for _ in range(SILENT_REPLIES + 1):
        ear.observer.note({}, 0.0)
    ear.observer.note(headers(100, 0), 1.0, is_refusal=True)
    assert ear.told == [(Rates(tpm=100), Rates(tpm=100))]


def test_endpoints_that_say_nothing_are_hardly_listened_to_and_heard_when_they_begin() -> None:
    ear = Ear()
    for _ in range(SILENT_REPLIES):
        ear.observer.note({}, 0.0)
    for _ in range(LOOK_AT_ONE_IN):
        ear.observer.note(headers(100, 90), 1.0)
    assert ear.told
