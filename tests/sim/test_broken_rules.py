"""Would the simulation notice? Rules of the engine that protect data or money, each broken in memory: some seed has to fail."""

import math
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock as patches

import pytest
from lives import first_failing, lived

from engine.coordinator.leasing import Leasing
from engine.coordinator.stepbook import StepBook, Then
from engine.core.commit import StepRow
from engine.core.ledger import Ledger, LedgerRow
from engine.limiter.client import LimiterClient
from engine.wire.messages import Abandon, Joined, Lease, Released, RowLine
from engine.worker.chainloop import ChainWorker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_finish = Ledger.finish


def _take_all(self: Ledger, worker: int, lease: int, row: int) -> LedgerRow | None:
    return _finish(self, worker, lease, row) or LedgerRow(row, row + 1, b"{}", row)


def _forget(self: Ledger, rows: list[LedgerRow]) -> None:
    pass


def _send_first(self: Leasing, child: Any, lease: int, rows: list[LedgerRow]) -> None:
    message = Lease(lease=lease, rows=[RowLine(row.row, row.line, row.payload) for row in rows])
    self._hub.send(child.peer, message)
    self._commits.opened(lease, [row.row for row in rows], lambda: None)


def _use_all(self: LimiterClient, message: Joined) -> None:
    self._joined = True
    if message.epoch != self._epoch:
        self._epoch, self._given = message.epoch, 0
    elif message.given < self._given:
        self._link.send(Abandon(upto=self._given))
    self._told = max(message.told, self._given)
    self._granted(message.given, message.generation)
    if self._queue or self._has_settled:
        self._flush_by(0.0)


def _use_again(self: LimiterClient, message: Joined) -> None:
    self._joined = True
    self._epoch, self._given, self._told = message.epoch, 0, message.told
    self._granted(message.given, message.generation)
    if self._queue or self._has_settled:
        self._flush_by(0.0)


def _find_nothing(self: StepBook, rows: list[LedgerRow], then: Then) -> None:
    then([])


def _keep_none(self: StepBook, lines: object) -> list[StepRow]:
    return []


def _give_back_first(self: ChainWorker, rows: Iterable[int] = ()) -> None:
    for waiting in self._waiting:
        for run in waiting:
            self._chains.take_back(run)
        waiting.clear()
    back = [*rows, *(row for row, chain in self._chains.open.items() if not chain.progress.running)]
    for row in back:
        self._chains.forget(row)
    if back:
        self._link.send(Released(rows=back))
        self._flush(self._loop.time())


def _begin_with_anothers(self: ChainWorker, lease: int, line: RowLine) -> None:
    done = self._done.popitem()[1] if self._done else ()
    self._go_on(*self._chains.begin(lease, line, done))


TELLING_SEEDS = (0, 2, 39, 43)


class Rule(NamedTuple):
    """What breaks it, and where that shows."""

    broken: dict[str, Any]
    kind: str = "wide"
    seeds: range = range(60)


RULES = {
    "an outcome is taken only under the lease it was made for": Rule(
        {"engine.core.ledger.Ledger.finish": _take_all},
    ),
    "a dead worker's rows are leased again": Rule({"engine.core.ledger.Ledger._requeue": _forget}),
    "a lease is kept before it is handed out": Rule(
        {"engine.coordinator.leasing.Leasing._open": _send_first}
    ),
    "a lease that comes twice is taken once": Rule({"engine.worker.loop.LEASES_KNOWN": 0}),
    "a word to the limiter that was lost is said again": Rule(
        {"engine.coordinator.limiting.ATTACH_AGAIN_S": math.inf}, "one endpoint", range(88, 92)
    ),
    "a permit that is old is spent": Rule(
        {
            "engine.limiter.client.LimiterClient._on_joined": _use_all,
            "engine.limiter.client.AWAY_S": math.inf,
        },
        "saturated",
    ),
    "a permit is used once, also after joining again": Rule(
        {"engine.limiter.client.LimiterClient._on_joined": _use_again}, "saturated"
    ),
    "finished steps go with the lease of their row": Rule(
        {"engine.coordinator.stepbook.StepBook.find": _find_nothing}, "steps"
    ),
    "steps are kept": Rule({"engine.coordinator.stepbook.StepBook.rows_of": _keep_none}, "steps"),
    "a step that is told twice is counted once": Rule(
        {"engine.coordinator.stepbook._is_news": lambda row, step: True}, "steps"
    ),
    "what is finished of a row is told before the row is given back": Rule(
        {"engine.worker.chainloop.ChainWorker._give_back": _give_back_first}, "steps"
    ),
    "what is finished of a row is its own": Rule(
        {"engine.worker.chainloop.ChainWorker._begin_row": _begin_with_anothers}, "steps"
    ),
}


@pytest.mark.parametrize("seed", TELLING_SEEDS)
def test_with_no_rule_of_steps_broken_all_is_well(seed: int) -> None:
    """These show each of the rules of steps when it is broken in the code itself: see tests/mutants.py."""
    assert lived(seed, "steps").wrong() == {}


@pytest.mark.parametrize("name", RULES)
def test_the_simulation_notices_a_broken_rule(name: str) -> None:
    rule = RULES[name]
    with ExitStack() as stack:
        for place, value in rule.broken.items():
            stack.enter_context(patches.patch(place, value))
        assert first_failing(rule.seeds, rule.kind) is not None, f"nobody noticed: {name}"
