"""A step's function, called for many rows at once: on the loop, in threads, or in processes of its own.

Rules of this file:
1. A result is handed over on the loop, never within ``start``, exactly once; after a time-out what comes is dropped.
2. There is one sweep for time-outs, no timer for a call.
3. What a function does is its row's business, with two bounds: a thread that hangs is abandoned, and a worker with
   ``ABANDONED_MAX`` of them is worn out: it begins nothing more and ends itself, so that its rows are leased again.
"""

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from itertools import takewhile
from typing import Any, Final

from engine.core.errors import ErrorKind, UsageError
from engine.core.model import Failure, Reply
from engine.handover import ChildSettings, Surroundings
from engine.steps.call import checked, raised
from engine.steps.finding import resolve
from engine.steps.functions import is_async
from engine.worker.children import Children
from engine.worker.fault import die_of
from engine.worker.home import end_lines
from engine.worker.threads import THREADS_MAX, Threads, Work

ABANDONED_MAX: Final = 64  # threads
ABANDONED_TASKS_MAX: Final = 4_096  # async calls that were cancelled and go on all the same
QUEUED_AHEAD: Final = 2  # calls held for each thread or process: one runs, one is next

Result = Reply | Failure
CUT_OFF: Final = Failure(ErrorKind.TIMEOUT, "")  # nobody is told
OnDone = Callable[[Result], None]


class Functions:
    """The calls of one step's function in one worker."""

    def __init__(
        self,
        spec: str,
        *,
        mode: str = "",
        by_name: bool = False,
        timeout_s: float = 300.0,
        bytes_max: int = 32 * 1024 * 1024,
        threads_max: int = THREADS_MAX,
        processes_max: int = 0,
        surroundings: Surroundings | None = None,
        folder: str = "",
    ) -> None:
        """``by_name``: arguments are given by name, else as one dict. ``bytes_max``: of a result as JSON.

        ``timeout_s`` is for one call, from when it begins to run. Raises UsageError for what cannot be found, and for an
        async function with mode thread.
        """
        self._loop = asyncio.get_running_loop()
        self._by_name = by_name
        self._timeout_s = timeout_s
        self._bytes_max = bytes_max
        home = surroundings or Surroundings()
        self._function = resolve(
            spec, folder, home.pickled, script_package=home.script_package, script_end=home.script_end
        )
        self._is_async = is_async(self._function)
        self._running: dict[Running, None] = {}  # async calls, in the order of their deadlines
        self._leftover: set[Running] = set()  # cancelled, and not ended yet
        self._threads: Threads | None = None
        self._children: Children | None = None
        self.width: int | None = (
            None  # more calls at once than this only wait here; None: there is no such bound
        )
        if mode == "thread" and self._is_async:
            raise UsageError(
                f"{spec} is async: it runs on the worker's loop, not in a thread. Leave mode out."
            )
        if mode == "process":
            child = ChildSettings(spec, by_name, bytes_max, home, os.getpid(), folder)
            ended = functools.partial(late, timeout_s, "its process was ended")
            self._children = Children(child, timeout_s=timeout_s, late=ended, processes_max=processes_max)
            self.start = self._start_in_child
            self.width = QUEUED_AHEAD * self._children.processes_max
        elif self._is_async:
            self.start = self._start_task
        elif mode == "loop":
            self.start = self._start_on_loop
        else:
            self._threads = Threads(self._call, threads_max=threads_max)
            self.start = self._start_in_thread
            self.width = QUEUED_AHEAD * threads_max

    start: Callable[[Any, OnDone], None]  # with a row's arguments; calls back once, later

    # --- in each of the ways --------------------------------------------------------------------------------

    def _start_task(self, arguments: Any, on_done: OnDone) -> None:
        running = Running(on_done, self._loop.time() + self._timeout_s)
        self._running[running] = None  # the loop itself keeps only weak references to tasks
        running.task = self._loop.create_task(self._called(running, arguments))

    async def _called(self, running: "Running", arguments: Any) -> None:
        function = self._function
        try:
            value = await (function(**arguments) if self._by_name else function(arguments))
            result = checked(value, self._bytes_max)
        except GeneratorExit:
            raise  # the loop has ended
        except BaseException as error:  # be it SystemExit: it ends its row, not the worker
            result = raised(error) if not running.is_over else CUT_OFF
        self._ended(running, result)

    async def _awaited(self, running: "Running", value: Awaitable[Any]) -> None:
        try:
            result = checked(await value, self._bytes_max)
        except GeneratorExit:
            raise
        except BaseException as error:
            result = raised(error) if not running.is_over else CUT_OFF
        self._ended(running, result)

    def _start_on_loop(self, arguments: Any, on_done: OnDone) -> None:
        self._loop.call_soon(self._call_here, Work(arguments, on_done))

    def _call_here(self, work: Work) -> None:
        if not work.is_over:
            self._hand_over(work.on_done, self._call(work.arguments))

    def _start_in_thread(self, arguments: Any, on_done: OnDone) -> None:
        assert self._threads is not None
        self._threads.start(Work(arguments, functools.partial(self._hand_over, on_done)))

    def _start_in_child(self, arguments: Any, on_done: OnDone) -> None:
        assert self._children is not None
        self._children.start(arguments, functools.partial(self._hand_over, on_done))

    def _call(self, arguments: Any) -> Any:
        """Call it, in whatever thread this is. Never raises."""
        try:
            value = self._function(**arguments) if self._by_name else self._function(arguments)
            return value if inspect.isawaitable(value) else checked(value, self._bytes_max)
        except BaseException as error:  # as above
            return raised(error)
        finally:
            end_lines()

    # --- results --------------------------------------------------------------------------------------------

    def _hand_over(self, on_done: OnDone, result: Any) -> None:
        if type(result) is not Reply and inspect.isawaitable(result):
            # A plain function that gives back what an async one gave it, as a lambda does.
            running = Running(on_done, self._loop.time() + self._timeout_s)
            self._running[running] = None
            running.task = self._loop.create_task(self._awaited(running, result))
            return
        try:
            on_done(result)
        except Exception as error:
            die_of(error)

    def _ended(self, running: "Running", result: Result) -> None:
        if running.is_over:
            self._leftover.discard(running)
            return
        running.is_over = True
        del self._running[running]
        end_lines()
        self._hand_over(running.on_done, result)

    # --- time -----------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Cut off what has taken too long. To be called a few times a second, with the loop's time."""
        late_ones = takewhile(lambda one: one.deadline <= now, self._running)  # those behind began later
        for running in list(late_ones):
            running.is_over = True
            del self._running[running]
            self._leftover.add(running)
            assert running.task is not None
            running.task.cancel()
            self._hand_over(running.on_done, late(self._timeout_s, "it was cancelled"))
        if self._threads is not None:
            for work in self._threads.expire(self._timeout_s):
                work.on_done(late(self._timeout_s, "its thread goes on, and what it returns will be dropped"))
            self._threads.adapt()
        if self._children is not None:
            self._children.sweep(now)

    @property
    def abandoned(self) -> int:
        """Calls that go on though nobody waits for them any more."""
        return len(self._leftover) + (self._threads.abandoned if self._threads is not None else 0)

    @property
    def is_worn(self) -> bool:
        """Whether so many calls hang that this process has to end."""
        if self._threads is not None and self._threads.abandoned >= ABANDONED_MAX:
            return True
        return len(self._leftover) >= ABANDONED_TASKS_MAX

    async def close(self) -> None:
        """Cancel, let go of and end what still runs; nothing is called back."""
        tasks = []
        for running in [*self._running, *self._leftover]:
            running.is_over = True
            if running.task is not None:
                running.task.cancel()
                tasks.append(running.task)
        self._running.clear()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        if self._threads is not None:
            self._threads.close()
        if self._children is not None:
            await self._children.close()


class Running:
    """One async call."""

    __slots__ = ("deadline", "is_over", "on_done", "task")

    def __init__(self, on_done: OnDone, deadline: float) -> None:
        self.on_done = on_done
        self.deadline = deadline
        self.is_over = False
        self.task: asyncio.Task[None] | None = None


def late(timeout_s: float, what: str) -> Failure:
    """The failure of a function that took too long."""
    return Failure(ErrorKind.TIMEOUT, f"the function took longer than {timeout_s:g} s; {what}")
