"""What is said of endpoints that workers leave alone for a while: once when it begins, once when it is over.

Rules of this file:
1. Each worker judges for itself (``core/breaker.py``); here only words are made of it.
"""

from collections.abc import Callable
from typing import Final

SAY_AGAIN_S: Final = 30.0  # an endpoint that comes and goes is not worth a note each time


class HealthNotes:
    """The endpoints of one run, by what its workers tell."""

    def __init__(self, names: list[str], note: Callable[[str], None]) -> None:
        self._names = names
        self._note = note
        self._troubles: list[dict[int, str]] = [{} for _ in names]  # by slot
        self._said_at = [float("-inf")] * len(names)
        self._is_said = [False] * len(names)

    def heard(self, endpoint: int, slot: int, trouble: str, now: float) -> None:
        """A worker leaves an endpoint alone because of ``trouble``; or not, where that is empty."""
        troubles = self._troubles[endpoint]
        if trouble:
            troubles[slot] = trouble
        elif not troubles.pop(slot, ""):
            return
        name, is_said = self._names[endpoint], self._is_said[endpoint]
        if troubles and not is_said and now - self._said_at[endpoint] >= SAY_AGAIN_S:
            self._said_at[endpoint], self._is_said[endpoint] = now, True
            self._note(f"endpoint {name} is left alone for a while: {trouble}; its rows go to the others")
        elif not troubles and is_said:
            self._is_said[endpoint] = False
            self._note(f"endpoint {name} serves again")

    def gone(self, slot: int) -> None:
        """A worker is no more."""
        for endpoint, troubles in enumerate(self._troubles):
            if troubles.pop(slot, "") and not troubles:
                self._is_said[endpoint] = False  # nobody knows any more
