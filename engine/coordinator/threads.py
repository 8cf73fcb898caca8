"""Threads for what a run has to wait for beside its loop: its own, as many as there are calls at once.

Rules of this file:
1. The interpreter's own pools of threads take nothing more once the main thread has ended. A program may still run
   rows in another thread then, and the run has to come to its end.
2. A thread stays until the end: the kernel ends a child of ours with the thread that started it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any


class OwnThreads(ThreadPoolExecutor):
    """For an event loop's ``set_default_executor``, which takes none but children of that class."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # which is never started
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._own: list[threading.Thread] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """As the base's."""
        future: Future[Any] = Future()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        if not self._idle.acquire(blocking=False):
            thread = threading.Thread(target=self._work, name="run's own", daemon=True)
            thread.start()
            self._own.append(thread)
        self._calls.put(call)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As the base's, but that calls are never given up."""
        threads, self._own = self._own, []
        for _ in threads:
            self._calls.put(None)
        if wait:
            for thread in threads:
                thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            self._idle.release()
