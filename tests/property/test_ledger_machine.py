"""The ledger against a naive model: lists, dicts and the rules as sentences."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.core.ledger import Ledger, LedgerRow

POISON, GROUP = 3, 4
WORKERS = st.integers(1, 4)


@dataclass
class Model:
    """What should be: waiting rows in order, rows held by (worker, lease), deaths by row."""

    fresh: list[int] = field(default_factory=list)
    suspects: list[int] = field(default_factory=list)
    held: dict[int, dict[int, list[int]]] = field(default_factory=dict)  # worker -> lease -> rows
    deaths: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    closed: list[int] = field(default_factory=list)

    def rows_of(self, worker: int) -> list[int]:
        return [row for rows in self.held.get(worker, {}).values() for row in rows]

    def is_suspect(self, row: int) -> bool:
        return self.deaths[row] >= POISON - 1

    def take_out(self, worker: int, lease: int, row: int) -> None:
        rows = self.held[worker][lease]
        rows.remove(row)
        if not rows:
            del self.held[worker][lease]
            self.closed.append(lease)

    def put_in_front(self, rows: list[int]) -> None:
        self.fresh = [row for row in rows if not self.is_suspect(row)] + self.fresh
        self.suspects = [row for row in rows if self.is_suspect(row)] + self.suspects


class LedgerMachine(RuleBasedStateMachine):
    """Workers come, ask, finish, give back, die and say things out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(poison_deaths=POISON, suspect_group=GROUP)
        self.model = Model()
        self.offered = 0
        self.last_lease = 0
        self.stale = 0
        self.incarnation = dict.fromkeys(range(1, 5), 1)

    def worker(self, slot: int) -> int:
        """A worker number that is new for every incarnation in a slot."""
        return slot * 1000 + self.incarnation[slot]

    @rule(count=st.integers(1, 12), size=st.integers(0, 9))
    def offer(self, count: int, size: int) -> None:
        new = range(self.offered, self.offered + count)
        self.ledger.offer(LedgerRow(row, row + 1, b"x" * size, row) for row in new)
        self.model.deaths.update(dict.fromkeys(new, 0))
        self.model.fresh += new
        self.offered += count

    @rule(slot=WORKERS, rows_max=st.integers(0, 10), bytes_max=st.sampled_from([1, 20, 1000]))
    def lease(self, slot: int, rows_max: int, bytes_max: int) -> None:
        model, worker = self.model, self.worker(slot)
        held = model.rows_of(worker)
        trying = any(model.is_suspect(row) for each in model.held for row in model.rows_of(each))
        lease = self.ledger.lease(worker, rows_max, bytes_max)
        if lease is None:
            blocked = any(map(model.is_suspect, held)) or (held and model.suspects and not trying)
            assert rows_max == 0 or blocked or not model.fresh
            if not held and rows_max:
                assert not model.fresh and not model.suspects, "an empty worker is always served"
            return
        rows = [row.row for row in lease.rows]
        assert (lease.worker, 1 <= len(rows) <= rows_max) == (worker, True)
        assert lease.id > self.last_lease
        assert len(rows) == 1 or sum(len(row.payload) for row in lease.rows) <= bytes_max
        if model.is_suspect(rows[0]):
            assert not held and len(rows) <= GROUP
            assert len(rows) == 1 or all(model.deaths[row] < POISON for row in rows)
            assert rows == model.suspects[: len(rows)]
            assert not (trying and model.fresh), "one worker at a time tries suspects while fresh rows wait"
            del model.suspects[: len(rows)]
        else:
            assert rows == model.fresh[: len(rows)]
            assert not any(map(model.is_suspect, held))
            assert not model.suspects or held or trying, "an empty worker takes the suspects first"
            del model.fresh[: len(rows)]
        assert [row.deaths for row in lease.rows] == [model.deaths[row] for row in rows]
        self.last_lease = lease.id
        model.held.setdefault(worker, {})[lease.id] = rows

    @precondition(lambda self: any(self.model.held.values()))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        held = [(w, lease, r) for w, by in self.model.held.items() for lease, rs in by.items() for r in rs]
        worker, lease, row = data.draw(st.sampled_from(held))
        finished = self.ledger.finish(worker, lease, row)
        assert finished is not None and finished.row == row
        self.model.take_out(worker, lease, row)
        self.model.ended.add(row)

    @rule(slot=WORKERS, age=st.integers(0, 1), lease=st.integers(0, 30), row=st.integers(0, 60))
    def finish_out_of_turn(self, slot: int, age: int, lease: int, row: int) -> None:
        worker = self.worker(slot) - age
        if row in self.model.held.get(worker, {}).get(lease, []):
            return
        assert self.ledger.finish(worker, lease, row) is None
        self.stale += 1

    @rule(slot=WORKERS, rows=st.sets(st.integers(0, 60), max_size=12))
    def release(self, slot: int, rows: set[int]) -> None:
        model, worker = self.model, self.worker(slot)
        expected = []
        back: list[int] = []
        for lease, held in list(model.held.get(worker, {}).items()):
            given = [row for row in held if row in rows]
            if given:
                expected.append((lease, given))
                back += given
            for row in given:
                model.take_out(worker, lease, row)
        assert self.ledger.release(worker, rows) == expected
        model.put_in_front(back)
        self.stale += len(rows) - len(back)

    @rule(slot=WORKERS)
    def die(self, slot: int) -> None:
        model, worker = self.model, self.worker(slot)
        held = model.rows_of(worker)
        for row in held:
            model.deaths[row] += 1
        poisoned = [row for row in held if len(held) == 1 and model.deaths[row] >= POISON]
        requeued = [row for row in held if row not in poisoned]
        lost = self.ledger.lost(worker)
        assert (lost.requeued, [row.row for row in lost.poisoned]) == (requeued, poisoned)
        model.closed += model.held.pop(worker, {})
        model.put_in_front(requeued)
        model.ended |= set(poisoned)
        self.incarnation[slot] += 1

    @rule(slot=WORKERS, rows_max=st.integers(3, 10))
    def ask_and_die(self, slot: int, rows_max: int) -> None:
        """Deaths often, so that rows come to be suspects, alone and poison within one run of the machine."""
        self.lease(slot, rows_max, 1000)
        self.die(slot)

    @rule()
    def take_closed(self) -> None:
        assert sorted(self.ledger.take_closed()) == sorted(self.model.closed)
        self.model.closed = []

    @invariant()
    def every_row_is_in_one_place_and_the_figures_say_so(self) -> None:
        self.ledger.validate()
        model, ledger = self.model, self.ledger
        held = [row for worker in model.held for row in model.rows_of(worker)]
        assert sorted([*model.fresh, *model.suspects, *held, *model.ended]) == list(range(self.offered))
        assert ledger.waiting_count == len(model.fresh) + len(model.suspects)
        assert ledger.suspect_count == len(model.suspects)
        assert ledger.leased_count == len(held)
        assert ledger.is_idle == (not held and not model.fresh and not model.suspects)
        assert ledger.stale_refused == self.stale
        for worker in model.held:
            assert ledger.held_by(worker) == len(model.rows_of(worker))

    def teardown(self) -> None:
        """Once nobody dies any more no row is starved: suspects end beside ever new rows, then everything does."""
        rounds = self.offered + 8
        busy = [slot for slot in range(1, 5) if self.ledger.held_by(self.worker(slot))]
        slots = busy or [1, 2, 3, 4]  # those who died may never be replaced
        while rounds and any(map(self.model.is_suspect, set(range(self.offered)) - self.model.ended)):
            self.offer(20, 1)
            self.work(slots)
            rounds -= 1
        assert rounds, f"suspects are starved:\n{self.ledger.story()}"
        for _ in range(self.offered):
            if self.ledger.is_idle:
                return
            self.work(slots)
        assert self.ledger.is_idle, self.ledger.story()

    def work(self, slots: list[int]) -> None:
        """Every worker asks for two rows, and then ends two that it has held for longest, so it is never empty."""
        for slot in slots:
            self.lease(slot, 2, 1000)
            self.lease(slot, 2, 1000)
            worker = self.worker(slot)
            held = [(lease, row) for lease, rows in self.model.held.get(worker, {}).items() for row in rows]
            for lease, row in held[:2]:
                assert self.ledger.finish(worker, lease, row) is not None
                self.model.take_out(worker, lease, row)
                self.model.ended.add(row)
        self.every_row_is_in_one_place_and_the_figures_say_so()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
