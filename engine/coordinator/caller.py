"""A program that runs a job in itself, instead of by a command: where rows come from and records go then.

Rules of this file:
1. What a caller is told comes from threads of the run; it must return soon and never raise.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from engine.core.commit import Counts
from engine.handover import Surroundings
from engine.source import Rows

if TYPE_CHECKING:
    from engine.coordinator.session import Session

Out = Callable[[Sequence[tuple[int, bytes]]], None]  # takes rows' numbers and their records


class Caller(Protocol):
    """Whoever called ``run_job`` and goes on beside it, in a thread of its own."""

    @property
    def source(self) -> Rows:
        """The rows; the run closes it at its end."""

    @property
    def surroundings(self) -> Surroundings:
        """What functions of the caller's own need in the workers."""

    def hand(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Rows that have their outcome: in the order they complete, each once it is durable, each once.

        Rows that an earlier run finished come when the reading passes them. Called from the commit thread, and from
        the reading one.
        """

    def began(self, session: "Session", answers: tuple[str, ...], before: Counts) -> None:
        """The run can be seen and interrupted from now on. ``before``: what earlier runs came to.

        Called on the run's loop, before anything is read or sent; ``session`` is to be called there alone.
        """
