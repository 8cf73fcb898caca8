"""Processes on this machine: started by name, told on standard input, ended by their pid.

Rules of this file:
1. Never fork without exec, never a shell. ``ps`` shows ``python -m engine.worker``; no secret is an argument.
2. A child's environment has no secret: variables whose value holds one are left out.
3. The child's standard input stays open until ``Process.let_go``; its end tells the child to exit. A forked copy
   of this process does not keep it open.
"""

import os
import subprocess
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from engine.launchers.process import PARENT
from engine.launchers.words import Words


class Process:
    """A running child."""

    def __init__(self, popen: "subprocess.Popen[bytes]", stderr: Path) -> None:
        self._popen = popen
        self._words = Words(stderr)
        self.pid = popen.pid
        _STARTED.add(self)

    @property
    def stdout(self) -> BinaryIO:
        """What the child prints; only where it was started with ``capture=True``."""
        assert self._popen.stdout is not None
        return self._popen.stdout  # type: ignore[return-value]

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def kill(self) -> None:
        """SIGKILL. Harmless when it has ended."""
        self._popen.kill()

    def leave(self) -> None:
        """In a forked child of this process: have no part in keeping the child's standard input open."""
        if self._popen.stdin is not None and not self._popen.stdin.closed:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(
                null, self._popen.stdin.fileno(), inheritable=False
            )  # no lock is asked for, nothing is flushed
            os.close(null)

    def let_go(self) -> None:
        """Close the child's standard input: it exits."""
        if self._popen.stdin is not None and not self._popen.stdin.closed:
            try:
                self._popen.stdin.close()
            except BrokenPipeError:
                pass  # it is gone already

    def disown(self) -> None:
        """It is not this process's child any more, as far as this process goes: it may live on."""
        self.let_go()
        if self._popen.poll() is None:
            self._popen.returncode = 0  # otherwise its destruction warns of a child that still runs

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None when it still runs after ``timeout_s``."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self, chars_max: int = 2000) -> str:
        """The end of what the child wrote to standard error."""
        return self._words.last(chars_max)

    def lines(self, *, is_over: bool = False) -> list[str]:
        """The lines that the child has written since the last time, not all of them where they are very many.

        ``is_over``: it writes no more, so half a line counts, too.
        """
        return self._words.lines(is_over=is_over)

    def close(self) -> None:
        """Release the pipes of a child that ended."""
        self.let_go()
        if self._popen.stdout is not None:
            self._popen.stdout.close()


_STARTED: "weakref.WeakSet[Process]" = weakref.WeakSet()


def _leave_all() -> None:
    for process in list(_STARTED):
        process.leave()


os.register_at_fork(after_in_child=_leave_all)


class LocalLauncher:
    """Starts children of one run; their standard error goes to files in ``folder``."""

    def __init__(self, folder: Path, hide: Iterable[str] = ()) -> None:
        """``hide``: values that must not be in a child's environment."""
        secrets = [value for value in hide if value]
        self._folder = folder
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not any(secret in value for secret in secrets)
        }
        self._environment[PARENT] = str(os.getpid())
        self._serial = 0

    def start(
        self, module: str, line: bytes, *, capture: bool = False, tells: bool = False, detached: bool = False
    ) -> Process:
        """Start ``python -m module`` and hand it ``line`` on its standard input. Raises OSError.

        ``tells``: what it prints counts as what it writes to standard error, see ``Process.lines``. ``detached``: in a session of
        its own, to live on when this process ends.
        """
        self._serial += 1
        stderr = self._folder / f"{module}.{self._serial}.err"
        descriptor = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if capture else descriptor if tells else subprocess.DEVNULL,
                stderr=descriptor,
                env=self._environment,
                close_fds=True,
                # A terminal's Ctrl-C goes to the foreground group; ours is the coordinator's to pass on.
                process_group=None if detached else 0,
                start_new_session=detached,
            )
        finally:
            os.close(descriptor)
        assert popen.stdin is not None
        try:
            popen.stdin.write(line)
            popen.stdin.flush()
        except BrokenPipeError:
            pass  # it died at its start; poll() and last_words() tell
        return Process(popen, stderr)
