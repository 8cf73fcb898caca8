"""Rows that are opened again: what is forgotten of them, within a transaction that somebody else began.

Rules of this file:
1. Statements only: when a transaction begins and ends is the store's to say.
2. What rows cost stays counted, whatever is forgotten of them.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from engine.store.schema import STEP_NUMBERS

_BEGUN = "again"  # in meta, while all rows are run again from some step: what exactly was begun
_STEP = f"DELETE FROM step WHERE place % {STEP_NUMBERS} = ?"  # noqa: S608  a number of our own
_STEP_OF_OTHERS_THAN_OK = (
    f"{_STEP} AND place / {STEP_NUMBERS} NOT IN (SELECT row FROM outcome INDEXED BY finished WHERE ok = 1)"  # noqa: S608
)


def open_failed(writer: sqlite3.Connection, kind: str | None) -> int:
    """Drop the outcomes of failed rows, of one kind or of all; how many."""
    forgotten = 0
    known = writer.execute("SELECT kind FROM tally WHERE kind != '' AND rows > 0").fetchall()
    for (failed,) in known:
        if kind is None or failed == kind:
            deleted = writer.execute("DELETE FROM outcome WHERE ok = 0 AND kind = ?", (failed,))
            forgotten += deleted.rowcount
            writer.execute("UPDATE tally SET rows = 0 WHERE kind = ?", (failed,))
    if forgotten:
        writer.execute("UPDATE run SET finished = 0")
    return forgotten


def drop_steps_of_others_than_ok(writer: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Drop what these steps have come to in every row that is open, or failed and may be opened later."""
    writer.executemany(_STEP_OF_OTHERS_THAN_OK, [(number,) for number in numbers])


def open_all(writer: sqlite3.Connection, numbers: Sequence[int], begun: dict[str, Any]) -> bool:
    """Drop every outcome and what these steps have come to; False, and nothing is dropped, where just that has begun."""
    text = json.dumps(begun, sort_keys=True)
    if writer.execute("SELECT 1 FROM meta WHERE key = ? AND value = ?", (_BEGUN, text)).fetchone():
        return False
    writer.executemany(_STEP, [(number,) for number in numbers])
    writer.execute("DELETE FROM outcome")
    writer.execute("UPDATE tally SET rows = 0")
    writer.execute("UPDATE run SET finished = 0")
    writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_BEGUN, text))
    return True


def close_run(writer: sqlite3.Connection) -> None:
    """Every row has its outcome: the run is finished, and so is what was begun again."""
    writer.execute("UPDATE run SET finished = 1")
    writer.execute("DELETE FROM meta WHERE key = ?", (_BEGUN,))


def keep_identity(writer: sqlite3.Connection, identity: dict[str, Any]) -> None:
    """Keep what makes a resumed run the same job."""
    writer.execute("UPDATE run SET identity = ?", (json.dumps(identity, sort_keys=True),))
