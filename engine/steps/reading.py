"""A script that is read for its functions in a worker: only as far as it has to be, and without doing again what it did.

Rules of this file:
1. The script ends before the statement in which it first ran rows: no ``except``, ``finally`` or ``with`` around that is entered.
   Where nobody knows that statement (the rows were run in another thread), it ends by an exception, and what it does while that
   passes is refused without a word.
2. While it is read, it writes, removes and renames no file, starts no program or thread, connects to nobody: that would happen
   again in every worker, and destroy what the script itself is writing. What Python is told of by audit events is refused by
   that; code in other languages (a database's driver, a reader of tables) tells nothing.
3. What happens within an import is the module's business, as everywhere, and what a library does by itself (fill its cache, fetch
   a model) the library's. The script's own doings go through Python's library and the like (``_THROUGH``): those are refused.
4. What it prints meanwhile is shown by nobody: it has been shown already.
"""

import ast
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import SourceFileLoader
from types import CodeType, FrameType
from typing import Any, Final

from engine.steps import functions

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LIBRARY: Final = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
# Packages that do what they are told and nothing by themselves.
_THROUGH: Final = frozenset(
    ("requests", "urllib3", "httpx", "httpcore", "aiohttp", "anyio", "pandas", "numpy")
)


class Again(BaseException):
    """What a script would do again in a worker. It is no error: no ``except Exception`` of the script is to catch it."""


class ScriptLoader(SourceFileLoader):
    """Reads a script up to the statement that stands at line ``end`` (0: all of it). It neither uses nor leaves a .pyc file."""

    def __init__(self, name: str, path: str, end: int) -> None:
        super().__init__(name, path)
        self._end = end

    def get_code(self, fullname: str) -> CodeType:
        """See the base's."""
        tree = ast.parse(self.get_data(self.path), self.path)
        if self._end:
            tree.body = _before(tree.body, self._end)
        code: CodeType = self.source_to_code(tree, self.path)
        return code


def _before(body: list[ast.stmt], line: int) -> list[ast.stmt]:
    """The statements that end before a line; of the one that it is in, what comes first within a ``try`` or an ``if``."""
    for place, node in enumerate(body):
        if (node.end_lineno or node.lineno) >= line:
            return body[:place] + _part(node, line)
    return body


def _part(node: ast.stmt, line: int) -> list[ast.stmt]:
    if isinstance(node, ast.Try | ast.TryStar) and _is_within(node.body, line):
        return _before(node.body, line)
    if isinstance(node, ast.If):
        nothing: list[ast.stmt] = [ast.copy_location(ast.Pass(), node)]
        if _is_within(node.body, line):
            node.body, node.orelse = _before(node.body, line) or nothing, []
            return [node]
        if _is_within(node.orelse, line):
            node.body, node.orelse = nothing, _before(node.orelse, line)
            return [node]
    return []


def _is_within(body: list[ast.stmt], line: int) -> bool:
    return bool(body) and body[0].lineno <= line <= (body[-1].end_lineno or body[-1].lineno)


# --- what it must not do again ----------------------------------------------------------------------------------------


def _opened(path: Any, mode: Any, flags: Any) -> str:
    if isinstance(path, int) or not isinstance(flags, int) or not flags & _WRITES:
        return ""
    if flags & os.O_EXCL or os.fsdecode(path).startswith("/dev/"):
        return ""  # what is there already is left alone, or is no file
    return f"it opens {os.fsdecode(path)} for {'appending' if flags & os.O_APPEND else 'writing'}"


def _changed(does: str) -> Callable[..., str]:
    return lambda path, *_: f"it {does} {_path(path)}" if os.path.lexists(path) else ""


def _made(path: Any, *_: Any) -> str:
    return "" if os.path.lexists(path) else f"it makes the folder {_path(path)}"


def _started(program: Any, *_: Any) -> str:
    return f"it starts {_path(program)}"


def _connected(sock: Any, address: Any) -> str:
    if not isinstance(address, tuple):
        return ""  # a socket of this machine, like the system log's
    return f"it connects to {':'.join(map(str, address[:2]))}"


def _path(path: Any) -> str:
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)


_THREAD: Final = "threading.Thread.start"  # no audit event tells of it
_EVENTS: Final[dict[str, Callable[..., str]]] = {
    "open": _opened,
    "os.mkdir": _made,
    "os.remove": _changed("removes"),
    "os.rename": _changed("renames"),
    "os.rmdir": _changed("removes"),
    "os.truncate": _changed("truncates"),
    "shutil.rmtree": _changed("removes"),
    "subprocess.Popen": _started,
    "os.system": _started,
    "os.exec": _started,
    "os.posix_spawn": _started,
    _THREAD: lambda: "it starts a thread",  # what that would do nobody could judge
    "os.fork": lambda: "it forks",
    "os.forkpty": lambda: "it forks",
    "pty.spawn": _started,
    "socket.connect": _connected,
}


class _Watch:
    """One script that is being read, in one thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.thread = threading.get_ident()
        self.refused = ""  # the first thing, with its line; the script itself may have caught the exception
        self._is_judging = False

    def judge(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise Again where the script itself does this."""
        if self._is_judging:
            return  # what looking at it comes to
        self._is_judging = True
        try:
            what = _EVENTS[event](*arguments)
            line = self._line(sys._getframe(2), is_appending="for appending" in what) if what else ""
        finally:
            self._is_judging = False
        if line:
            if not functions.has_met_run:
                self.refused = self.refused or f"{line}: {what}"
            raise Again

    def _line(self, frame: FrameType | None, *, is_appending: bool) -> str:
        """Which line of the user's own code does it; empty where it is none."""
        line = ""
        while frame is not None:
            file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
            if file.startswith("<frozen importlib") or module == "tempfile":
                return ""
            if is_appending and module == "logging":
                return ""  # a log goes on where it ended, whoever opens it
            if not line and not _is_through(file, module):
                if module.startswith("engine.") or any(part in file for part in _INSTALLED):
                    return ""
                line = f"line {frame.f_lineno}" + (f" of {file}" if file != self.path else "")
            if file == self.path and frame.f_code.co_name == "<module>":
                return line
            frame = frame.f_back
        return ""


def _is_through(file: str, module: str) -> bool:
    if any(part in file for part in _INSTALLED):
        return module.partition(".")[0] in _THROUGH
    return file.startswith(("<frozen", *_LIBRARY))


_watch: _Watch | None = None
_is_hooked = False  # an audit hook stays for as long as the process lives


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    watch = _watch
    if watch is not None and event in _EVENTS and watch.thread == threading.get_ident():
        watch.judge(event, arguments)


@contextmanager
def without_doing_again(path: str) -> Iterator[Callable[[], str]]:
    """While it is entered, rules 2 to 4 hold for the script ``path``, in this thread.

    Gives what tells the first thing that was refused, if there was one.
    """
    global _watch, _is_hooked
    if not _is_hooked:
        sys.addaudithook(_hook)
        _is_hooked = True
    start = threading.Thread.start

    def judged(thread: threading.Thread) -> None:
        if watch.thread == threading.get_ident():
            watch.judge(_THREAD, ())
        start(thread)

    with _unheard():
        watch = _watch = _Watch(path)
        threading.Thread.start = judged  # type: ignore[method-assign, assignment]
        try:
            yield lambda: watch.refused
        finally:
            threading.Thread.start = start  # type: ignore[method-assign]
            _watch = None


@contextmanager
def _unheard() -> Iterator[None]:
    """Descriptors 1 and 2 lead nowhere; what the streams hold back is theirs, before and after."""
    kept: list[tuple[int, int]] = []
    _flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            with suppress(OSError):  # it is closed
                kept.append((descriptor, os.dup(descriptor)))
                os.dup2(nothing, descriptor)
        yield
    finally:
        _flush()
        for descriptor, copy in kept:
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nothing)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or never there
            stream.flush()
