"""Which step of a row is next: what waits for what, what is spared, what cannot run any more.

Rules of this file:
1. A step waits for the earlier steps that give a name it takes, or that its condition names. Steps that do not wait
   for each other run side by side.
2. A step that takes a name which only steps that were spared give, and the row itself does not have, is spared too.
3. What needs a failed step does not run; everything else still does.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from engine.core.errors import UsageError


class Link(NamedTuple):
    """A step as far as its order goes."""

    name: str
    takes: frozenset[str]  # columns, or what earlier steps give
    gives: tuple[str, ...]
    tests: frozenset[str] = (
        frozenset()
    )  # names it can do without, or in its condition: waited for, and may be null


class Shape:
    """The steps of a job, in the order in which they are told. At most 64."""

    def __init__(self, links: Sequence[Link]) -> None:
        """Raises UsageError for two steps of one name."""
        names = [link.name for link in links]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"Two steps have the name {name!r}.")
        self.links = tuple(links)
        self.all = (1 << len(links)) - 1
        self.waits: list[int] = []  # for each step the bits of those that it waits for
        self.givers: list[list[tuple[str, int]]] = []  # for each name it takes that steps give: which
        for at, link in enumerate(links):
            earlier = list(enumerate(links[:at]))

            def bits(name: str, earlier: list[tuple[int, Link]] = earlier) -> int:
                return sum(1 << number for number, one in earlier if name in one.gives)

            self.givers.append([(name, bits(name)) for name in sorted(link.takes) if bits(name)])
            waits = 0
            for name in link.takes | link.tests:
                waits |= bits(name)
            self.waits.append(waits)

    @property
    def columns(self) -> frozenset[str]:
        """What the input has to have: what is taken, or tested, before any step gives it."""
        needed: set[str] = set()
        given: set[str] = set()
        for link in self.links:
            needed |= (link.takes | link.tests) - given
            given.update(link.gives)
        return frozenset(needed)

    def names_from(self, name: str) -> list[str]:
        """A step and all those that come to wait for it, by name. Raises UsageError where there is no such step."""
        names = [link.name for link in self.links]
        if name not in names:
            raise UsageError(f"There is no step named {name!r}. Known: {', '.join(names)}.")
        found = 1 << names.index(name)
        for at, waits in enumerate(self.waits):
            if waits & found:
                found |= 1 << at
        return [one for at, one in enumerate(names) if found >> at & 1]


class Progress:
    """One row on its way through a ``Shape``. Bits stand for steps."""

    __slots__ = ("done", "failed", "running", "shape", "spared")

    def __init__(self, shape: Shape, done: int = 0) -> None:
        """``done``: what an earlier run, or a worker that is gone, has finished."""
        self.shape = shape
        self.done = done
        self.spared = self.failed = self.running = 0

    @property
    def under_way(self) -> list[int]:
        """The steps that run."""
        return [at for at in range(len(self.shape.links)) if self.running >> at & 1]

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing is left to begin. To be asked after ``ready`` gave nothing."""
        return not self.running and self._settled == self.shape.all

    @property
    def _settled(self) -> int:
        return self.done | self.spared | self.failed

    def ready(self, columns: Collection[str]) -> int | None:
        """The first step that may be begun, or spared, now; the row's own ``columns``. None while there is none.

        What can never run any more is settled on the way: as spared (rule 2), or with the failed ones (rule 3).
        """
        shape = self.shape
        open_steps = shape.all & ~(self._settled | self.running)
        while open_steps:
            bit = open_steps & -open_steps
            open_steps ^= bit
            at = bit.bit_length() - 1
            waits = shape.waits[at]
            if waits & self.failed:
                self.failed |= bit
            elif not waits & ~self._settled:
                spared = self.spared
                if any(not givers & ~spared and name not in columns for name, givers in shape.givers[at]):
                    self.spared |= bit
                else:
                    return at
        return None

    def begin(self, at: int) -> None:
        """It runs."""
        self.running |= 1 << at

    def finish(self, at: int) -> None:
        """It has its result."""
        self.running &= ~(1 << at)
        self.done |= 1 << at

    def spare(self, at: int) -> None:
        """Its condition is false."""
        self.spared |= 1 << at

    def fail(self, at: int) -> None:
        """It has none, and will have none."""
        self.running &= ~(1 << at)
        self.failed |= 1 << at
