"""What was admitted in the last period, exactly: the proof that no sliding period holds more than a limit.

Rules of this file:
1. Amounts are whole numbers and are never rounded down; times are rounded so that an amount is remembered
   too long, never too short.
2. Nothing here reads a clock: ``now`` is an argument, and a ``now`` that goes back is taken as no time passed.
"""

import math

SLOTS_PER_PERIOD = 1000
# An amount is forgotten 1.003 to 1.004 periods after it was admitted: the 0.3 % (180 ms of a minute) are for
# requests that leave one after the other and arrive closer together.
SLOTS_KEPT = 1004


class Window:
    """The amounts admitted in the last 1.003 periods, in slots of a thousandth of a period.

    Guarantee: if every ``add`` is preceded by a check that ``total + amount <= limit``, then no interval of
    one period, wherever it begins, holds more than ``limit``: its content is a part of what ``total`` was
    at its last ``add``.
    """

    __slots__ = ("_counts", "slot", "slot_s", "total")

    def __init__(self, period_s: float, now: float) -> None:
        self.slot_s = period_s / SLOTS_PER_PERIOD
        self.slot = int(now / self.slot_s)
        self._counts = [0] * SLOTS_KEPT
        self.total = 0

    def advance(self, now: float) -> None:
        """Forget what is older than the window at ``now``."""
        slot = int(now / self.slot_s)
        behind = slot - self.slot
        if behind <= 0:
            return
        counts = self._counts
        if behind >= SLOTS_KEPT:
            self._counts = [0] * SLOTS_KEPT
            self.total = 0
        else:
            for old in range(self.slot + 1, slot + 1):
                place = old % SLOTS_KEPT
                self.total -= counts[place]
                counts[place] = 0
        self.slot = slot

    def add(self, amount: int) -> None:
        """Remember an amount admitted at the time of the last ``advance``."""
        self._counts[self.slot % SLOTS_KEPT] += amount
        self.total += amount

    def add_before(self, amount: int, slots_ago: int) -> None:
        """Remember an amount as admitted that many slots ago; what is older than the window is not kept."""
        if slots_ago < SLOTS_KEPT:
            self._counts[(self.slot - slots_ago) % SLOTS_KEPT] += amount
            self.total += amount

    def give_back(self, amount: int) -> int:
        """Take an amount off again, from the oldest on; returns how much there was to take, at most ``amount``.

        The oldest pay because they leave first: whichever call the amount belonged to, the window then
        remembers at least what is true for every moment to come, as long as that call is still in it.
        """
        left = min(amount, self.total)
        given = left
        counts = self._counts
        for old in range(self.slot + 1, self.slot + 1 + SLOTS_KEPT):
            if not left:
                break
            place = old % SLOTS_KEPT
            part = min(counts[place], left)
            counts[place] -= part
            left -= part
        self.total -= given
        return given

    def content(self) -> list[tuple[int, int]]:
        """What is remembered: (slots ago, amount), the oldest first."""
        counts = self._counts
        return [
            (slots_ago, counts[place])
            for slots_ago in range(SLOTS_KEPT - 1, -1, -1)
            if counts[place := (self.slot - slots_ago) % SLOTS_KEPT]
        ]

    def falls_to(self, total_max: int) -> float:
        """The time from which the total is at most ``total_max`` if nothing is added. Bounds: ``total_max >= 0``."""
        over = self.total - total_max
        slot = self.slot
        while over > 0:
            slot += 1
            over -= self._counts[slot % SLOTS_KEPT]
        at = slot * self.slot_s
        while int(at / self.slot_s) < slot:  # the product was rounded down
            at = math.nextafter(at, math.inf)
        return at
