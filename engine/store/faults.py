"""What is wrong with a run's store, as a sentence that says what to do. Text only.

Rules of this file:
1. Every sentence says what happened, what it means for what was committed, and the next step.
"""

from pathlib import Path

from engine.core.errors import StoreFailure

_STAYS = "Nothing committed before is lost"
_DAMAGED = (
    "The file is damaged. `engine export RUN -o -` prints the records up to the damage; --fresh starts over and "
    "moves the old state aside."
)
_NO_ACCESS = "Look whether the folder is still there and may be read and written by this user."

# By primary result code, SQLite's documentation: "Result and Error Codes".
_ADVICE: dict[int, str] = {
    1: _DAMAGED,  # ERROR: a statement does not fit the tables, and it is the tables that are in a file
    3: _NO_ACCESS,  # PERM
    5: "Another program has the file open and locked: end it, then give the same command again.",  # BUSY
    8: f"{_STAYS}: make the folder writable, then give the same command again.",  # READONLY
    10: f"{_STAYS}, as far as the disk kept it: look at the disk, and at limits of file size and quota, then "
    "give the same command again.",  # IOERR
    11: _DAMAGED,  # CORRUPT
    13: f"{_STAYS}: make room on the disk, then give the same command again to go on.",  # FULL
    14: _NO_ACCESS,  # CANTOPEN
    19: f"{_STAYS}. Something was to be written twice, which is a fault of the engine: please report it, then "
    "give the same command again.",  # CONSTRAINT
    26: _DAMAGED,  # NOTADB
}


def store_failure(code: int, said: str, folder: Path) -> StoreFailure:
    """The failure for an SQLite result code (extended codes too; 0 when unknown) and SQLite's own words."""
    advice = _ADVICE.get(code & 0xFF, f"{_STAYS}: give the same command again to go on.")
    return StoreFailure(f"The run's state in {folder} could not be read or written ({said}). {advice}")


def damaged(what: str, folder: Path) -> StoreFailure:
    """The failure for something in the store that is not what was written; ``what`` is a clause."""
    return StoreFailure(f"In the run's state in {folder}, {what}. {_DAMAGED}")
