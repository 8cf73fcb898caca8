"""Records to whoever takes them as they become durable, and those of an earlier run as the reading passes them."""

from collections.abc import Sequence
from pathlib import Path

from engine.coordinator.streamstore import Replay, StreamStore
from engine.core.commit import Commit, OutcomeRow
from engine.store import Store


def outcome(row: int) -> OutcomeRow:
    return OutcomeRow(row, True, "", 7, b"{%d}" % row, 1, 2.0, 3, 4)


def test_records_are_handed_on_after_their_commit() -> None:
    order: list[object] = []

    class Kept:
        def apply(self, commits: Sequence[Commit]) -> None:
            order.append("kept")

    def out(records: Sequence[tuple[int, bytes]]) -> None:
        order.append(list(records))

    for store, first in ((Kept(), ["kept"]), (None, [])):
        order.clear()
        StreamStore(store, out).apply([Commit(opened=[(1, [4, 5])])])
        StreamStore(store, out).apply([Commit(outcomes=[outcome(5)]), Commit(outcomes=[outcome(4)])])
        assert order == [*first, *first, [(5, b"{5}"), (4, b"{4}")]]


def test_an_earlier_runs_records_come_with_the_rows_that_are_passed_over(tmp_path: Path) -> None:
    handed: list[tuple[int, bytes]] = []
    with Store.open(tmp_path / "state", durability="os") as store:
        store.apply([Commit(outcomes=[outcome(row) for row in (0, 2, 3, 5)])])
        replay = Replay(store, handed.extend)
        replay(0)
        store.apply([Commit(outcomes=[outcome(1)])])  # finished beside it: nobody passes over it
        replay(2)
        replay(5)
    assert handed == [(0, b"{0}"), (2, b"{2}"), (5, b"{5}")]
