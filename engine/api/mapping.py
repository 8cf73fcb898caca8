"""A function over rows: ``engine.map``.

Rules of this file:
1. It is a Pool of one call, and nothing else.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from engine.api.functions import of_the_bare_row
from engine.api.pool import PassingPool
from engine.api.results import Result
from engine.api.steps import StepSettings, call
from engine.rows import column_of
from engine.steps.functions import begin_run

_OF_THE_CALL = ("into", "mode", "take", "when", *StepSettings.__annotations__)


def map(function: Callable[..., Any] | str, rows: Iterable[Any], **settings: Any) -> list[Result]:
    """Call ``function`` once for each row, in worker processes; all results, in the order of the rows.

    function: async or not; it is called with the row: with a dict where rows are mappings, dataclasses and the like, and
    else with the row itself (the first row tells which). It, and its settings into, mode, take, timeout (s) and retries,
    are as with ``engine.call``; the other settings, and what is raised, as with ``engine.Pool``'s ``run``. For results as they
    complete, or a status: ``Pool(call(function), rows)``.
    """
    begin_run()  # before a row is looked at
    own = {name: settings.pop(name) for name in _OF_THE_CALL if name in settings}
    if callable(function) and "take" not in own:
        first, rows = _first_of(rows)
        column = column_of(first[0]) if first else ""
        if column:
            function = of_the_bare_row(function, column)
    with PassingPool(call(function, **own), rows, **settings) as pool:
        return pool.run()


def _first_of(rows: Any) -> tuple[list[Any], Iterable[Any]]:
    """The first row, if there is one, and all of them."""
    if not isinstance(rows, Iterable):
        return [], rows  # the pool says what is wrong with it
    if not isinstance(rows, Iterator):
        return [row for row, _ in zip(rows, range(1), strict=False)], rows
    first = [row for _, row in zip(range(1), rows, strict=False)]
    return first, chain(first, rows)
