"""What a step is: it renders a row into a call, and takes replies until the row has its fields.

Rules of this folder:
1. A step makes calls, the worker sends them. No I/O, no clock.
2. Row text is expanded once, by the template that names it, and never again.
"""

from typing import Any, NamedTuple, Protocol

from engine.core.model import Call, Failure, Reply, RowValues, Usage


class Done(NamedTuple):
    """The row has its answer: ``fields`` go into its output record, in order."""

    fields: dict[str, Any]
    usage: Usage
    model: str


class Again(NamedTuple):
    """The reply was no usable answer, and asking again may help: ``call`` is what to ask next.

    ``failure`` is what becomes of the row when no attempt is left.
    """

    call: Call
    failure: Failure


class Asking(Protocol):
    """One row on its way through one step. ``call`` is what to send now (and again, on a retry)."""

    call: Call

    def absorb(self, reply: Reply) -> Done | Again | Failure:
        """What the reply means for the row. Never raises."""


class Step(Protocol):
    """One stage of a job, made once per worker (and once before a run begins, to check it)."""

    columns: frozenset[str]  # of the row, as far as the templates name them outright
    needed: frozenset[str]  # those of them that it cannot do without
    answer_columns: tuple[str, ...]  # of the output record, in order

    def start(self, row: RowValues) -> Asking:
        """Render the row. Raises RowError (template_error, bad_input, request_too_large, bad_request)."""
