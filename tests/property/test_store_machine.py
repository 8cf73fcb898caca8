"""The store against a dict: groups of commits, readers, deaths and restarts in any order."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.store import Commit, Counts, OutcomeRow, Store, move_aside

KINDS = ["", "timeout", "bad_reply"]


class StoreMachine(RuleBasedStateMachine):
    """A run that leases, finishes, gives back, dies and is taken up again."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        """A new store and an empty model."""
        self.place = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.folder = self.place / "run"
        self.store = Store.open(self.folder, durability="os")
        self.done: dict[int, OutcomeRow] = {}
        self.leases: dict[int, set[int]] = {}
        self.next_lease = 1
        self.next_row = 0
        self.in_doubt = 0
        self.total: int | None = None
        self.is_finished = False
        self.spent = [0, 0, 0]  # by outcomes that were forgotten

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.place)

    # --- one commit each, as data, and what it does to the model --------------------------------------------

    def open_lease(self, data: st.DataObject) -> Commit:
        leased = set().union(*self.leases.values())
        known = [row for row in range(self.next_row) if row not in leased and row not in self.done]
        again = data.draw(st.sets(st.sampled_from(known), max_size=4)) if known else set()
        count = data.draw(st.integers(0, 5))
        rows = sorted(again) + list(range(self.next_row, self.next_row + count))
        self.next_row += count
        lease, self.next_lease = self.next_lease, self.next_lease + 1
        self.leases[lease] = set(rows)
        return Commit(opened=[(lease, rows)])

    def finish_some(self, data: st.DataObject) -> Commit:
        held = sorted(set().union(*self.leases.values()) - self.done.keys())
        rows = data.draw(st.sets(st.sampled_from(held), max_size=80)) if held else set()
        outcomes = []
        for row in data.draw(st.permutations(sorted(rows))):
            kind = data.draw(st.sampled_from(KINDS))
            record = data.draw(st.binary(max_size=30))
            cost = data.draw(st.integers(0, 9))
            outcomes.append(
                OutcomeRow(row, not kind, kind, row * 17 - 100, record, cost, 1.5, cost - 1, cost * 2)
            )
        self.done.update((outcome.row, outcome) for outcome in outcomes)
        return Commit(outcomes=outcomes, closed=self.close_done())

    def close_done(self) -> list[int]:
        closed = [lease for lease, rows in self.leases.items() if rows <= self.done.keys()]
        for lease in closed:
            del self.leases[lease]
        return closed

    def give_back(self, data: st.DataObject) -> Commit:
        released = []
        for lease, rows in self.leases.items():
            given = (
                data.draw(st.sets(st.sampled_from(sorted(rows - self.done.keys()))))
                if rows - self.done.keys()
                else set()
            )
            if given:
                rows -= given
                released.append((lease, sorted(given)))
        return Commit(released=released, closed=self.close_done())

    def lose_worker(self, data: st.DataObject) -> Commit:
        lost = data.draw(st.sets(st.sampled_from(sorted(self.leases)))) if self.leases else set()
        doubted = sum(len(self.leases.pop(lease) - self.done.keys()) for lease in sorted(lost))
        self.in_doubt += doubted
        return Commit(closed=sorted(lost), in_doubt=doubted)

    def know_total(self, data: st.DataObject) -> Commit:
        self.total = data.draw(st.integers(0, 10**9))
        return Commit(total_rows=self.total)

    @rule(data=st.data(), what=st.lists(st.sampled_from("LLFFFGDT"), min_size=1, max_size=8))
    def apply(self, data: st.DataObject, what: list[str]) -> None:
        make = {
            "L": self.open_lease,
            "F": self.finish_some,
            "G": self.give_back,
            "D": self.lose_worker,
            "T": self.know_total,
        }
        self.store.apply([make[letter](data) for letter in what])

    # --- what else happens ----------------------------------------------------------------------------------

    @rule(kind=st.sampled_from([None, "timeout", "poison"]))
    def forget_failed(self, kind: str | None) -> None:
        self.settle()  # a run forgets failures at its start, when no lease is open any more
        forgotten = [row for row in self.done.values() if not row.ok and kind in (None, row.kind)]
        assert self.store.forget_failed(kind) == len(forgotten)
        for row in forgotten:
            del self.done[row.row]
            self.spent[0] += row.attempts
            self.spent[1] += max(0, row.tokens_in)
            self.spent[2] += row.tokens_out
        if forgotten:
            self.is_finished = False

    @rule(durability=st.sampled_from(["os", "fsync"]))
    def restart(self, durability: str) -> None:
        self.store.close()
        self.store = Store.open(self.folder, durability=durability)
        self.settle()

    @rule()
    def die_and_restart(self) -> None:
        """What a killed process leaves behind is the two files; the shared memory is made anew."""
        copy = self.place / "copy"
        copy.mkdir(mode=0o700)
        for name in ("store.db", "store.db-wal"):
            shutil.copy(self.folder / name, copy / name)
        self.store.close()
        shutil.rmtree(self.folder)
        copy.rename(self.folder)
        self.store = Store.open(self.folder, durability="os")
        self.settle()

    def settle(self) -> None:
        doubted = len(set().union(*self.leases.values()) - self.done.keys())
        assert self.store.recover() == doubted
        self.leases = {}
        self.in_doubt += doubted

    @rule()
    def finish(self) -> None:
        self.store.finish()
        self.is_finished = True

    @precondition(lambda self: len(self.done) > 3)
    @rule()
    def start_over(self) -> None:
        self.store.close()
        aside = move_aside(self.folder)
        assert aside is not None
        with Store.view(aside) as old:
            self.agrees(old)
        shutil.rmtree(self.place)
        self.begin()

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def the_store_says_what_was_committed(self) -> None:
        self.agrees(self.store)

    @rule()
    def a_view_says_the_same(self) -> None:
        with Store.view(self.folder) as view:
            self.agrees(view)

    def agrees(self, store: Store) -> None:
        rows = [self.done[row] for row in sorted(self.done)]
        assert list(store.finished()) == [(row.row, row.digest, row.ok) for row in rows]
        assert list(store.records()) == [row.record for row in rows]
        failed = {kind: sum(row.kind == kind for row in rows) for kind in KINDS[1:]}
        assert store.counts() == Counts(
            sum(row.ok for row in rows),
            {kind: count for kind, count in failed.items() if count},
            self.spent[0] + sum(row.attempts for row in rows),
            self.spent[1] + sum(max(0, row.tokens_in) for row in rows),
            self.spent[2] + sum(row.tokens_out for row in rows),
        )
        assert store.in_doubt_total() == self.in_doubt
        assert store.total_rows() == self.total
        assert store.is_finished() == self.is_finished


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
