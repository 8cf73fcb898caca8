"""What functions of the job print and log, on its way to whoever watches the run.

Rules of this file:
1. Nobody waits for who watches: lines are shown by a thread of their own, and those that it cannot keep up with are left out.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Final

WAITING_MAX: Final = 10_000  # lines
END_S: Final = 2.0  # how long the last ones are waited for


class Relay:
    """Hands lines to ``show``, in the order they come."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._changed = threading.Condition()
        self._is_over = False
        self._thread: threading.Thread | None = None

    def put(self, lines: Iterable[str]) -> None:
        """These are to be shown, soon. Never waits."""
        with self._changed:
            for line in lines:
                if len(self._lines) < WAITING_MAX:
                    self._lines.append(line)
                else:
                    self._left_out += 1
            if self._lines and self._thread is None:
                # In the context of the run: a notebook shows the lines in the cell that started it.
                within = copy_context().run
                self._thread = threading.Thread(target=within, args=(self._run,), name="relay", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Show what is left, as far as that can be done within ``END_S``."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(END_S)

    def _run(self) -> None:
        while (line := self._next()) is not None:
            try:
                self._show(line)
            except (OSError, ValueError):  # nobody reads any more
                return

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._is_over)
            if not self._lines:
                return None
            if self._left_out and len(self._lines) == 1:
                left_out, self._left_out = self._left_out, 0
                self._lines.append(f"(... {left_out:,} lines of functions were left out)")
            return self._lines.popleft()
