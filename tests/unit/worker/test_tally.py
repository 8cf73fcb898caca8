"""What workers count."""

from typing import Any

from engine.worker.tally import TallyBook


def count(book: TallyBook, **changes: Any) -> None:
    one: dict[str, Any] = {
        "repeated": False,
        "replied": True,
        "ok": True,
        "throttled": False,
        "latency_ms": 200.4,
        "tokens_in": 10,
        "tokens_out": 5,
        "charged": 20,
    }
    book.count(**{**one, **changes})


def test_counts_are_taken_once() -> None:
    book = TallyBook()
    count(book)
    count(book, ok=False, throttled=True, latency_ms=-1.0, repeated=True)
    tally = book.take(in_flight=3, waiting=2, starved_s=0.0)
    assert (tally.requests, tally.retries, tally.throttled, tally.ok_replies, tally.replies) == (
        2,
        1,
        1,
        1,
        2,
    )
    assert (tally.tokens_in, tally.tokens_out, tally.charged_tokens) == (20, 10, 40)
    assert list(tally.latencies) == [(200.0, 1)]
    assert book.take(in_flight=0, waiting=0, starved_s=0.0).requests == 0


def test_failures_have_no_latency_and_short_latencies_keep_a_decimal() -> None:
    book = TallyBook()
    count(book, latency_ms=-1.0)
    count(book, latency_ms=1.26)
    assert list(book.take(in_flight=0, waiting=0, starved_s=0.0).latencies) == [(1.3, 1)]
