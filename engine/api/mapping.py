"""A function over rows: ``engine.map``.

Rules of this file:
1. It is a Pool of one call, and nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Unpack

from engine.api.functions import of_the_bare_row
from engine.api.plans import RunSettings, lines_of
from engine.api.pool import PassingPool
from engine.api.results import Result
from engine.api.steps import StepSettings, call
from engine.rows import column_of
from engine.steps.functions import begin_run

_OF_THE_CALL = ("into", "mode", "take", "when", *StepSettings.__annotations__)


class MapSettings(RunSettings, total=False):
    """Those of ``engine.Pool``, and of its one ``engine.call``."""

    into: str
    mode: str
    take: Mapping[str, str]
    when: str
    name: str
    keep: bool


def map(
    function: Callable[..., Any] | str, rows: Iterable[Any], **settings: Unpack[MapSettings]
) -> list[Result]:
    """Call ``function`` once for each row, in worker processes; all results, in the order of the rows.

    function: async or not; it is called with the row: with a dict where rows are mappings, dataclasses and the like, and
    else, if the first row is none of these, with the row's value itself. What it is given has been through JSON: dates are
    texts then, Decimals floats, tuples and sets lists, keys texts, NaN None, bytes inside a row base64. A row that is
    itself bytes fails. It, and its settings into, mode, take, timeout (s) and retries, are as with ``engine.call``; the
    other settings, and what is raised, as with ``engine.Pool``'s ``run``. For results as they complete, or a status:
    ``Pool(call(function), rows)``.
    """
    begin_run()  # before a row is looked at
    of_the_run: dict[str, Any] = dict(settings)
    own = {name: of_the_run.pop(name) for name in _OF_THE_CALL if name in settings}
    if callable(function) and "take" not in own:
        first, rows = _first_of(lines_of(rows))
        if first and column_of(first[0]):
            function = of_the_bare_row(function)
    with PassingPool(call(function, **own), rows, **of_the_run) as pool:
        return pool.run()


def _first_of(rows: Any) -> tuple[list[Any], Iterable[Any]]:
    """The first row, if there is one, and all of them."""
    if not isinstance(rows, Iterable):
        return [], rows  # the pool says what is wrong with it
    if not isinstance(rows, Iterator):
        return [row for row, _ in zip(rows, range(1), strict=False)], rows
    first = [row for _, row in zip(range(1), rows, strict=False)]
    return first, chain(first, rows)
