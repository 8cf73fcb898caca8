"""How a run of a program shows its progress: on a terminal and in a notebook by itself, elsewhere when asked for.

Rules of this file:
1. Without a place to be shown, notes go to the logger ``engine``, at the level INFO; those that concern money at WARNING.
2. What functions print goes to standard error, whether progress is shown or not.
3. In a notebook a run has one output, which is redrawn. What the cell itself shows meanwhile is not touched: so neither
   rich's live display nor a widget of Jupyter's, which both take in all that is printed while they are there.
"""

import io
import logging
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.observe.progress import MAY_COST_TWICE, LiveView, PlainLines, Progress, figures
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


NOTES_MAX = 5  # of the last ones, shown beneath the figures
WIDTH = 110  # characters of a notebook's cell


class NotebookView:
    """A table in the cell that started the run, redrawn in place."""

    def __init__(self) -> None:
        self._figures = ""
        self._notes: deque[str] = deque(maxlen=NOTES_MAX)
        self._handle: Any = None

    def update(self, snapshot: Snapshot) -> None:
        """Redraw."""
        from rich.console import Console

        # As text: a console that knows of notebooks would show each redrawing as an output of its own.
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_jupyter=False)
        with console.capture() as drawn:
            console.print(figures(snapshot))
        self._figures = "\n".join(line.rstrip() for line in drawn.get().splitlines())
        self._draw()

    def note(self, sentence: str) -> None:
        """The note, beneath the table."""
        self._notes.append(f"engine: {sanitise(sentence)}")
        self._draw()

    def said(self, line: str) -> None:
        """The line, at the cell's standard error."""
        print(sanitise(line), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing: the last figures stay."""

    def _draw(self) -> None:
        from IPython import display as shown

        display: Any = shown.display
        text = "\n".join([*([self._figures] if self._figures else []), *self._notes])
        try:
            if self._handle is None:
                self._handle = display({"text/plain": text}, raw=True, display_id=True)
            else:
                self._handle.update({"text/plain": text}, raw=True)
        except (
            Exception
        ) as error:  # of the kernel, or of what others have hung into it: the run goes on unseen
            logging.getLogger("engine").debug("the progress cannot be shown: %s", error)


def way_of_showing(progress: bool | None) -> Callable[[], Progress]:
    """What makes the view: ``progress`` True for one in any case, False for none, None for one where it redraws."""
    if progress is False:
        return Logged
    if in_notebook():
        return NotebookView
    if sys.stderr is not None and sys.stderr.isatty():
        return LiveView
    return PlainLines if progress else Logged


def in_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    shell = sys.modules.get("IPython")
    found = None if shell is None else shell.get_ipython()
    return type(found).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter's; Google Colab's
