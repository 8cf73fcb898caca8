"""Lines on their way to a person who may not read them."""

import threading

from engine.coordinator.relay import WAITING_MAX, Relay


def test_lines_are_shown_in_order_and_all_of_them_before_the_end() -> None:
    shown: list[str] = []
    one = Relay(shown.append)
    for number in range(100):
        one.put([f"{number} a", f"{number} b"])
    one.close()
    assert shown == [f"{number} {part}" for number in range(100) for part in "ab"]


def test_nobody_waits_for_who_does_not_read() -> None:
    shown: list[str] = []
    read = threading.Event()

    def show(line: str) -> None:
        read.wait(30)
        shown.append(line)

    one = Relay(show)
    for number in range(WAITING_MAX + 500):
        one.put([str(number)])
    read.set()
    one.close()
    assert shown[:3] == ["0", "1", "2"] and len(shown) <= WAITING_MAX + 2
    assert "lines of functions were left out" in shown[-1]


def test_a_reader_that_is_gone_ends_the_showing_and_nothing_else() -> None:
    def show(line: str) -> None:
        raise BrokenPipeError

    one = Relay(show)
    one.put(["a", "b"])
    one.close()
    one.put(["c"])


def test_without_lines_there_is_no_thread() -> None:
    before = threading.active_count()
    one = Relay(print)
    one.put([])
    assert threading.active_count() == before
    one.close()
