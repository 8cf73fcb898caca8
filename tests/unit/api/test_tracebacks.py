"""Tracebacks of functions: the lines of source that only the caller knows."""

import linecache

import pytest

from engine.api.tracebacks import with_lines

TRACE = """Traceback (most recent call last):
  File "/tmp/ipykernel_1/77.py", line 2, in f
  File "/srv/job.py", line 9, in g
    return there[1]
           ~~~~~^^^
  File "/tmp/ipykernel_1/77.py", line 9, in h
  File "<stdin>", line 1, in i
ZeroDivisionError: division by zero
"""


def test_lines_of_a_cell_are_put_in_and_others_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = ["def f(n):\n", "    return 1 / n\n"]
    monkeypatch.setitem(linecache.cache, "/tmp/ipykernel_1/77.py", (30, None, cell, "/tmp/ipykernel_1/77.py"))
    first, *rest = TRACE.splitlines(keepends=True)
    assert with_lines(TRACE) == "".join([first, rest[0], "    return 1 / n\n", *rest[1:]])


def test_without_a_cell_a_traceback_stays_as_it_is() -> None:
    assert with_lines(TRACE) == TRACE
    assert with_lines("") == ""
