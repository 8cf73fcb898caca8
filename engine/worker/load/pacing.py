"""An alarm clock for the loop that is right to a few microseconds, where the loop's own timers count whole milliseconds.

Rules of this file:
1. Times are absolute and of ``time.monotonic``: what is late by one alarm is not late by the next.
2. One alarm at a time; setting it again replaces it. Nothing here polls.

uvloop's timers are libuv's, whose unit is the millisecond; Linux's timerfd has no such grain (timerfd_create(2)).
"""

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME


class _Spec(ctypes.Structure):
    """struct itimerspec of a 64-bit system: interval and first expiry, each as seconds and nanoseconds."""

    _fields_ = (("interval", ctypes.c_long * 2), ("value", ctypes.c_long * 2))


class Alarm:
    """Calls ``callback()`` once at the time that was set last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None
        self._spec = _Spec()
        self._descriptor = _timer_descriptor()
        if self._descriptor >= 0:
            self._pointer = ctypes.byref(self._spec)
            self._set_time = ctypes.CDLL(None).timerfd_settime
            loop.add_reader(self._descriptor, self._rang)

    def set(self, at: float) -> None:
        """Ring at ``at``; at once if that is past."""
        if self._descriptor < 0:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.0, at - monotonic()), self._callback)
            return
        nanoseconds = max(1, int(at * 1e9))  # zero would switch it off
        self._spec.value[0], self._spec.value[1] = divmod(nanoseconds, 1_000_000_000)
        self._set_time(self._descriptor, _ABSOLUTE, self._pointer, None)

    def _rang(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # it was set anew meanwhile
        self._callback()

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _timer_descriptor() -> int:
    """A timerfd, or -1 where there is none."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_long) != 8:
        return -1
    create = getattr(ctypes.CDLL(None), "timerfd_create", None)
    return -1 if create is None else int(create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
