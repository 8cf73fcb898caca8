"""The life of one row: its states, what can happen to it, and what follows, as one table.

Rules of this file:
1. A row's state changes only through ``advance``; what the table does not have raises IllegalEvent and
   changes nothing.
"""

from enum import IntEnum

from engine.core.errors import EngineError


class RowState(IntEnum):
    """Where a row is."""

    WAITING = 0
    LEASED = 1
    FINISHED = 2
    POISON = 3


class RowEvent(IntEnum):
    """What can happen to a row."""

    LEASE = 0
    FINISH = 1
    RELEASE = 2  # given back unsent
    LOSE = 3  # its worker died
    CONDEMN = 4  # its worker died, once too often


TRANSITIONS: dict[RowState, dict[RowEvent, RowState]] = {
    RowState.WAITING: {RowEvent.LEASE: RowState.LEASED},
    RowState.LEASED: {
        RowEvent.FINISH: RowState.FINISHED,
        RowEvent.RELEASE: RowState.WAITING,
        RowEvent.LOSE: RowState.WAITING,
        RowEvent.CONDEMN: RowState.POISON,
    },
    RowState.FINISHED: {},
    RowState.POISON: {},
}


class IllegalEvent(EngineError):
    """Something was to happen to a row that cannot happen in its state. A fault of the engine."""


class LedgerRow:
    """One open row. ``deaths``: worker deaths it was held at. ``told``: the bits of the steps that its worker has told of."""

    __slots__ = ("deaths", "digest", "line", "payload", "row", "state", "told")

    def __init__(self, row: int, line: int, payload: bytes, digest: int, deaths: int = 0) -> None:
        self.row = row
        self.line = line
        self.payload = payload
        self.digest = digest
        self.deaths = deaths
        self.told = 0
        self.state = RowState.WAITING

    def __repr__(self) -> str:
        return f"LedgerRow({self.row}, {self.state.name.lower()}, deaths={self.deaths})"


def advance(row: LedgerRow, event: RowEvent) -> None:
    """Take a row to the state that follows. Raises IllegalEvent, and changes nothing, if there is none."""
    after = TRANSITIONS[row.state].get(event)
    if after is None:
        raise IllegalEvent(
            f"Row {row.row} is {row.state.name.lower()}; {event.name.lower()} cannot happen to it. "
            "This is a fault of the engine: please report it. Nothing committed is lost."
        )
    row.state = after
