"""How a run of a program shows its progress: on a terminal and in a notebook by itself, elsewhere when asked for.

Rules of this file:
1. Without a place to be shown, notes go to the logger ``engine``, at the level INFO; those that concern money at WARNING.
2. What functions print goes to standard error, whether progress is shown or not.
"""

import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec

from engine.observe.progress import MAY_COST_TWICE, LiveView, PlainLines, Progress
from engine.observe.sanitise import sanitise
from engine.observe.snapshot import Snapshot


class Logged:
    """Shows no progress; notes are logged."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("engine")

    def update(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def note(self, sentence: str) -> None:
        """The note, for whoever listens to the logger."""
        self._logger.log(logging.WARNING if MAY_COST_TWICE in sentence else logging.INFO, sentence)

    def said(self, line: str) -> None:
        """The line, on standard error."""
        if sys.stderr is not None:
            print(sanitise(line), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing."""


def way_of_showing(progress: bool | None) -> Callable[[], Progress]:
    """What makes the view: ``progress`` True for one in any case, False for none, None for one where it redraws."""
    if progress is False:
        return Logged
    if in_notebook():
        return LiveView if find_spec("ipywidgets") else PlainLines  # without it rich cannot redraw there
    if sys.stderr is not None and sys.stderr.isatty():
        return LiveView
    return PlainLines if progress else Logged


def in_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    shell = sys.modules.get("IPython")
    found = None if shell is None else shell.get_ipython()
    return type(found).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter's; Google Colab's
