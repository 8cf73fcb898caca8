"""What functions print in several threads at once comes out line by line."""

import io
import threading

from engine.worker.home import HALF_CHARS_MAX, WholeLines, whole_lines


def stream() -> tuple[WholeLines, io.BytesIO]:
    raw = io.BytesIO()
    found = whole_lines(io.TextIOWrapper(raw, "utf-8"))
    assert isinstance(found, WholeLines)
    return found, raw


def test_a_line_is_written_when_its_end_comes_and_no_other_thread_comes_between() -> None:
    out, raw = stream()
    begun, other_is_done = threading.Event(), threading.Event()

    def slow() -> None:
        out.write("a")
        begun.set()
        other_is_done.wait(10)
        out.write(" line\nand")
        out.write(" more\n")

    thread = threading.Thread(target=slow)
    thread.start()
    assert begun.wait(10)
    print("an", "other", file=out)
    assert raw.getvalue() == b"an other\n"
    other_is_done.set()
    thread.join()
    assert raw.getvalue() == b"an other\na line\nand more\n"


def test_half_a_line_is_written_when_it_is_flushed() -> None:
    out, raw = stream()
    print("50 %", end="", file=out)
    assert raw.getvalue() == b""
    print(" done", end="", flush=True, file=out)
    assert raw.getvalue() == b"50 % done"
    print(".", file=out)
    assert raw.getvalue() == b"50 % done.\n"


def test_a_line_without_an_end_is_written_when_the_function_has_ended_or_it_has_become_long() -> None:
    out, raw = stream()
    print("half", end="", file=out)
    out.end_line()
    out.end_line()
    assert raw.getvalue() == b"half\n"
    for _ in range(2 * HALF_CHARS_MAX):
        out.write(".")
    assert len(raw.getvalue()) > HALF_CHARS_MAX


def test_what_cannot_be_written_is_escaped_and_raises_nothing() -> None:
    out, raw = stream()
    print("half \ud800", file=out)
    assert raw.getvalue() == b"half \\ud800\n"


def test_a_stream_of_somebody_elses_stays_as_it_is() -> None:
    own = io.StringIO()
    assert whole_lines(own) is own
