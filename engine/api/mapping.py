"""A function over rows: ``engine.map``.

Rules of this file:
1. It is a Pool of one call, and nothing else.
"""

from collections.abc import Callable, Iterable
from typing import Any

from engine.api.pool import Pool
from engine.api.results import Result
from engine.api.steps import StepSettings, call

_OF_THE_CALL = ("into", "mode", "take", "when", *StepSettings.__annotations__)


def map(function: Callable[..., Any] | str, rows: Iterable[Any], **settings: Any) -> list[Result]:
    """Call ``function`` once for each row, in worker processes; all results, in the order of the rows.

    function, and its settings into, mode, take, timeout (s) and retries: see ``engine.call``. The other settings: see
    ``engine.Pool``; so is what is raised. For results as they complete, or a status: ``Pool(call(function), rows)``.
    """
    own = {name: settings.pop(name) for name in _OF_THE_CALL if name in settings}
    with Pool(call(function, **own), rows, **settings) as pool:
        return pool.run()
