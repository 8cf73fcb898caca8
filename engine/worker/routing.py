"""Which endpoint takes a row: one that may be sent to, has room, and carries the least for its weight.

Rules of this file:
1. Decisions only: nothing is sent or queued here. With one endpoint there is nothing to decide.
2. An endpoint that is left alone gets nothing but probes. One of weight 0 gets rows only while no other is well, or where no
   other will serve them.
3. A row goes back to an endpoint that failed it only after a while, or if no other one is well; while that one is on trial
   others are its probes. To one that will not serve it a row never goes back.
"""

import math
from typing import Final

from engine.core.errors import POLICY, ErrorKind, Health
from engine.core.model import Failure
from engine.wire.messages import OutcomeLine
from engine.worker.execute import End, Later, RowRun
from engine.worker.lane import Lane

HOPELESS_S: Final = (
    60.0  # an endpoint that has been ill for so long is not waited for by rows that others refused
)
AVOID_S: Final = 1.0  # a row does not go back within this time to where it failed


class Router:
    """The lanes of one worker, at least one."""

    def __init__(self, lanes: list[Lane]) -> None:
        self.only = lanes[0] if len(lanes) == 1 else None
        self._lanes = lanes
        self._tiers = [
            tier
            for tier in ([one for one in lanes if one.weight > 0], [one for one in lanes if one.weight <= 0])
            if tier
        ]

    def _usable(self, now: float, shut: int) -> list[Lane]:
        """The lanes that are well, of the first tier that has one; without those in ``shut``."""
        for tier in self._tiers:
            found = [lane for lane in tier if not lane.bit & shut and lane.is_well(now)]
            if found:
                return found
        return []

    def _on_trial(self, tried: int) -> int:
        """Those of the lanes ``tried`` that were left alone and have not shown yet that they serve again."""
        return sum(lane.bit for lane in self._lanes if lane.bit & tried and lane.is_on_trial)

    def pick(self, now: float, avoid: int = 0, shut: int = 0, tried: int = 0) -> Lane | None:
        """The lane for one more row, if one has room. ``avoid``, ``shut`` and ``tried``: bits of lanes, see rule 3."""
        only = self.only
        if only is not None:
            return only if only.has_room() else None
        usable = (tried and self._usable(now, shut | self._on_trial(tried))) or self._usable(now, shut)
        if avoid:
            usable = [lane for lane in usable if not lane.bit & avoid] or usable
        best, least = None, math.inf
        for lane in usable:
            load = (lane.engaged + 1) / (lane.weight or 1.0)
            if load < least and lane.has_room():
                best, least = lane, load
        return best

    def diverts(self, lane: Lane, run: RowRun, step: End | Later, failure: Failure, now: float) -> bool:
        """Whether a row that ``lane`` failed goes to another endpoint, instead of what ``step`` says."""
        if self.only is not None:
            return False
        health = lane.health_of(failure)
        if health is Health.OUT and isinstance(step, OutcomeLine):
            return self.shuts(lane, run, step, now)
        if health in (Health.WELL, Health.NOTHING):
            return False
        run.tried |= lane.bit
        if POLICY[failure.kind].costs_attempt and isinstance(step, Later):
            run.failed_here += 1
        if isinstance(step, OutcomeLine):
            # Its retries are used up, by an endpoint that is ill: those that have not failed it may still try.
            not_again = run.tried
        else:
            not_again = lane.bit | (run.avoid if now < run.avoid_until else 0)
        if not any(not one.bit & not_again for one in self._usable(now, run.shut)):
            run.avoid = 0  # after a while it may go anywhere
            return False
        run.avoid, run.avoid_until = not_again, now + AVOID_S
        return True

    def shuts(self, lane: Lane, run: RowRun, outcome: OutcomeLine, now: float) -> bool:
        """``lane`` will never serve this row. Whether another one may; ``outcome`` is the row's if none does."""
        run.shut |= lane.bit
        run.refused = outcome
        return self.has_place(run, now)

    def has_place(self, run: RowRun, now: float) -> bool:
        """Whether there is an endpoint that may still serve the row."""
        # One that is merely too large for an endpoint's quota waits for the others as long as it takes.
        is_patient = run.refused is not None and run.refused.kind == ErrorKind.REQUEST_TOO_LARGE
        patience_s = math.inf if is_patient else HOPELESS_S
        return any(not lane.bit & run.shut and lane.may_serve(now, patience_s) for lane in self._lanes)

    def stuck(self, now: float) -> list[Lane]:
        """Lanes whose rows wait for permits while another lane has some to spare."""
        if self.only is not None:
            return []
        found = []
        for lane in self._lanes:
            if lane.waits_in_vain(now):
                other = self.pick(now, lane.bit)
                if other is not None and other is not lane and other.has_spared(now):
                    found.append(lane)
        return found
