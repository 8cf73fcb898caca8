"""Rows that take their workers with them are given up: with what there is of them, and with what it may have been."""

import ctypes
import logging
from typing import Any

import pytest

from engine import Pool, call
from engine.coordinator import supervise

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]


def holds(row: dict[str, Any]) -> int:
    """Of one row without end, and without letting go of the interpreter."""
    if row["x"] == 3:
        ctypes.PyDLL(None).sleep(3600)
    return int(row["x"]) * 2


def test_a_function_that_holds_the_interpreter_is_named_in_the_note_and_in_its_rows_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervise, "SILENT_S", 3.0)
    caplog.set_level(logging.INFO, "engine")
    rows = [{"x": number} for number in range(12)]
    with Pool(call(holds, into="y"), rows, procs=1) as pool:
        results = pool.run()
    assert [result.value for result in results if result.ok] == [2 * x for x in range(12) if x != 3]
    (failed,) = [result for result in results if not result.ok]
    assert failed.index == 3
    for says in (failed.error, next(text for text in caplog.messages if "silent" in text)):
        assert "holds" in says and 'mode="process"' in says
    assert failed.error.startswith("poison: in flight at ")
