"""Would the simulation notice? Rules of the engine that protect data or money, each broken in memory: some seed has to fail."""

import math
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock as patches

import pytest
from lives import first_failing

from engine.coordinator.leasing import Leasing
from engine.core.ledger import Ledger, LedgerRow
from engine.limiter.client import LimiterClient
from engine.wire.messages import Abandon, Joined, Lease, RowLine

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
}


@pytest.mark.parametrize("name", RULES)
def test_the_simulation_notices_a_broken_rule(name: str) -> None:
    rule = RULES[name]
    with ExitStack() as stack:
        for place, value in rule.broken.items():
            stack.enter_context(patches.patch(place, value))
        assert first_failing(rule.seeds, rule.kind) is not None, f"nobody noticed: {name}"
