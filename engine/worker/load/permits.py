"""A load worker's side of a quota: each request waits for its permit, and what it really cost is settled.

Rules of this file:
1. The quota is the machine's own, as for runs: a load test under a limit never takes what runs beside it were given.
2. A refusal pauses the quota for all, though the request itself is never sent again.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from engine.core.measuring import Timing
from engine.core.model import Charge, Failure, Reply
from engine.handover import LimiterAddress
from engine.limiter.client import LimiterClient
from engine.providers.base import Provider
from engine.providers.errors_in_replies import failure_of
from engine.worker.charging import Charging


class Permits:
    """``on_granted(many, generation)``: the first ``many`` requests that wait may go."""

    def __init__(
        self,
        address: LimiterAddress,
        slot: int,
        run: int,
        provider: Provider,
        on_granted: Callable[[int, int], None],
    ) -> None:
        self._charging = Charging(settles=provider.settles)
        self._client = LimiterClient(Path(address.socket), address.token, slot, on_granted, run=run)
        self._client.start(asyncio.get_running_loop())

    def need(self, charge: Charge) -> None:
        """One more request waits."""
        self._client.need(charge.tokens, charge.tokens_in, charge.tokens_out)

    def drop_queue(self) -> None:
        """Nothing waits any more."""
        self._client.drop_queue()

    def settle(
        self, charge: Charge, timing: Timing, result: Reply | Failure, generation: int, *, age_s: float
    ) -> None:
        """A request has ended."""
        if isinstance(result, Reply) and result.status == 429:
            self._client.throttled(failure_of(result).wait_s, generation)
        due = self._charging.settlement(
            charge, charge, max(timing.tokens_in, 0), max(timing.tokens_out, 0), age_s=age_s
        )
        if any(due):
            self._client.settle(*due)

    def close(self) -> None:
        """Leave the limiter."""
        self._client.close()
