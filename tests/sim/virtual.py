"""Virtual time: one event loop whose clock jumps to what is due next, and the processes that live on it.

Rules of this file:
1. Code runs in the process that started it (a context variable). What belongs to a dead process never runs again; what
   belongs to a stopped one runs when it goes on, in the order it came.
2. The order of what is due at the same moment is asyncio's own, so that a seed means the same on every machine.
"""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

START_S = 1_000.0  # the virtual clock's first moment
RESOLUTION_S = 1e-9  # what asyncio takes for one moment


class Gone(Exception):
    """The process that runs this has just ended."""


class Stuck(Exception):
    """Nothing is scheduled any more, or the time is over, and the run is not."""


@dataclass(eq=False)
class Process:
    """One simulated process; to its parent it is as launchers.local.Process."""

    pid: int
    role: str
    code: int | None = None
    is_stopped: bool = False
    outlives_kill: bool = False  # while it is stopped a kill is believed to have worked, and has not
    believed: int | None = None  # the exit code that its parent was told
    missed: list["_Handle"] = field(default_factory=list)

    @property
    def is_dead(self) -> bool:
        return self.code is not None

    def stop(self) -> None:
        """SIGSTOP."""
        self.is_stopped = True

    def go_on(self, loop: "Loop") -> None:
        """SIGCONT: all that came meanwhile is done now."""
        self.is_stopped = False
        missed, self.missed = self.missed, []
        loop.now_do(missed)

    # --- as launchers.local.Process -------------------------------------------------------------------------

    def poll(self) -> int | None:
        return self.code if self.believed is None else self.believed

    def kill(self) -> None:
        if self.code is None:
            if self.is_stopped and self.outlives_kill:
                self.believed = -9
            else:
                self.code = -9

    def let_go(self) -> None:
        if self.role == "worker" and self.code is None and self.believed is None:
            self.code = 0

    def disown(self) -> None:
        pass

    def wait(self, timeout_s: float) -> int | None:
        return self.poll()

    def last_words(self, chars_max: int = 0) -> str:
        return ""

    def close(self) -> None:
        pass


PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")
OUTSIDE = Process(1, "world")


class _Handle(asyncio.TimerHandle):
    """A callback, of a process."""

    __slots__ = ("process",)
    process: Process


class Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, for many processes. Later than ``ends_at`` it raises Stuck.

    asyncio's own loop would do: this one leaves out the selector, and compares times instead of handles.
    """

    def __init__(self, trouble: Callable[[str], None]) -> None:
        self.now = self.ends_at = START_S
        self._due: list[tuple[float, _Handle]] = []  # a heap
        self._at_once: deque[_Handle] = deque()
        self._trouble = trouble
        self.thread_s: Callable[[Any], float] = lambda function: 0.0  # so long a thread takes to do this
        super().__init__()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(self.now, callback, args, self, context)
        handle.process = PROCESS.get(OUTSIDE) if context is None else context.get(PROCESS, OUTSIDE)
        self._at_once.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(when, callback, args, self, context)
        handle.process = PROCESS.get(OUTSIDE) if context is None else context.get(PROCESS, OUTSIDE)
        heapq.heappush(self._due, (when, handle))
        return handle

    def now_do(self, handles: "list[_Handle]") -> None:
        """These are due."""
        self._at_once.extend(handles)

    def _timer_handle_cancelled(self, handle: object) -> None:
        """It is left out when its time has come."""

    def _run_once(self) -> None:
        due, at_once = self._due, self._at_once
        while due and due[0][1].cancelled():
            heapq.heappop(due)
        if not at_once:
            if not due:
                raise Stuck("nothing is scheduled any more")
            self.now = max(self.now, due[0][0])
            if self.now > self.ends_at:
                raise Stuck(f"not over after {self.ends_at - START_S:g} virtual seconds")
        until = self.now + RESOLUTION_S
        while due and due[0][0] < until:
            at_once.append(heapq.heappop(due)[1])
        for _ in range(len(at_once)):
            handle = at_once.popleft()
            process = handle.process
            if process.code is not None or handle.cancelled():
                continue
            if process.is_stopped:
                process.missed.append(handle)
            else:
                handle._run()

    def _check_closed(self) -> None:
        """The dead are cleared away after the end, and what they would still do is nothing."""

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> Any:
        future, delay_s = self.create_future(), self.thread_s(function)
        if not delay_s:
            future.set_result(function(*args))
            return future

        def done(result: Any) -> None:
            if not future.done():
                future.set_result(result)

        def do() -> None:
            self.call_later(delay_s / 2, done, function(*args))

        self.call_later(delay_s / 2, do)
        return future

    def add_signal_handler(self, *arguments: Any) -> None:
        pass

    def remove_signal_handler(self, *arguments: Any) -> bool:
        return True

    def set_exception_handler(self, handler: Any) -> None:
        pass

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # The dead leave tasks behind that never run again; Python remarks on it when it clears them away.
        if not isinstance(error, Gone) and "was destroyed" not in context.get("message", ""):
            self._trouble(f"{PROCESS.get(OUTSIDE).role}: {context.get('message')}: {error!r}")
