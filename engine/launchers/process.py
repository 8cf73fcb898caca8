"""What every process of ours does to itself at its start.

Rules of this file:
1. Only calls that concern the running process; nothing here starts another one.
"""

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

PARENT = "ENGINE_PARENT"  # the variable that names a child's parent before the child has read anything
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SELECTABLE = 1024  # descriptors that select(2) can wait for: FD_SETSIZE
_DUMPED = Path("/proc/self/coredump_filter")  # which memory a dump holds, as bits


def has_parent_death_signal() -> bool:
    """Whether the kernel can end a process with its parent (Linux)."""
    return sys.platform == "linux"


def die_with_parent(parent_pid: int) -> bool:
    """Ask the kernel to kill this process when its parent dies. False when the parent is dead already.

    Where the kernel cannot, standard input's end and the coordinator's beats take its place.
    """
    if has_parent_death_signal():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have died before the call took effect.
    return parent_pid == 0 or os.getppid() == parent_pid


def named_parent() -> int:
    """The process that this one was started by, as its environment says; 0 where that says nothing."""
    value = os.environ.get(PARENT, "")
    return int(value) if value.isdigit() else 0


def dump_no_core() -> None:
    """Leave no image of this process's memory, keys in it, on disk when it crashes. The hard limit stays.

    Where dumps are piped to a program, Linux makes them whatever the limit says, so they are to hold no memory (core(5)).
    PR_SET_DUMPABLE would do the same, but hides much of /proc/PID from the user whose process it is.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with suppress(OSError):  # no Linux, or no /proc
        _DUMPED.write_text("0")


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; returns what is allowed now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_048_576
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        # Some kernels cap the soft limit below the hard one (macOS: OPEN_MAX); keep what there is.
        return soft
    return wanted


def open_files_allowed() -> int:
    """What ``raise_open_files`` would allow a child. The limit of this process, which is a guest in it, is raised to
    no more than select(2) takes: a program's own descriptors are to stay below that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = raise_open_files()
    if allowed > _SELECTABLE and soft < allowed and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, _SELECTABLE), hard))
    return allowed
