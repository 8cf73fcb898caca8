"""What a load worker sends: one call for each row of its data, made when it is first needed.

Rules of this file:
1. A row that no call can be made of is refused before the test, not here: the coordinator tries them all.
"""

from engine.config import Job
from engine.core.model import Call
from engine.formats.record import decode_row
from engine.providers.base import Provider
from engine.steps import make_step


class Calls:
    """Call k is made of row k modulo the number of rows. Memory: one call for each row."""

    def __init__(self, job: Job, provider: Provider, rows: tuple[bytes, ...]) -> None:
        """Raises UsageError for templates that cannot be used."""
        self._step = make_step(job.step.kind, job.step, job.target, provider)
        self.columns = self._step.columns
        self._rows = rows or (b"{}",)
        self._many = len(self._rows)
        self._calls: list[Call | None] = [None] * self._many

    def __getitem__(self, index: int) -> Call:
        """Raises RowError for a row that no call can be made of."""
        place = index % self._many
        call = self._calls[place]
        if call is None:
            call = self._calls[place] = self._step.start(decode_row(self._rows[place])).call
        return call
