"""Signals before a command has begun: a sentence and exit 4 on the spot; from its beginning on they are the command's."""

import os
import signal
from collections.abc import Iterator

import pytest

from engine.cli.early import begin, ended_by_signals


class Ended(Exception):
    """The process would be gone."""


@pytest.fixture(autouse=True)
def usual_interrupt() -> Iterator[None]:
    """What a shell starts in the background ignores interrupts, and so would these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    found: list[object] = []

    def leave(code: int) -> None:
        found.append(code)
        raise Ended

    monkeypatch.setattr(os, "write", lambda number, data: found.append((number, data)))
    monkeypatch.setattr(os, "_exit", leave)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_beginning_ends_with_a_sentence(
    said: list[object], number: signal.Signals
) -> None:
    with pytest.raises(Ended), ended_by_signals("nothing was sent."):
        signal.raise_signal(number)
    assert said == [(2, b"engine: nothing was sent.\n"), 4]


def test_a_signal_after_the_beginning_is_the_commands(said: list[object]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with ended_by_signals("outer."), ended_by_signals("inner."):
        begin()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert said == []
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_ignored(said: list[object]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_signals("nothing was sent."):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert said == []
