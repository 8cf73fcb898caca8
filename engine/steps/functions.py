"""Functions of a program that uses the engine: how one travels to the workers.

Rules of this file:
1. A function that workers can import goes by its name, ``module:name``. Any other is pickled, with the globals that it refers
   to as they are now, ``pickled:NAME-FINGERPRINT``; its bytes go beside the job through a worker's start-up pipe, and nowhere
   else.
2. One of the script that runs is pickled, too, so that no worker has to read the script, which would do again what the script
   does. Where that cannot be done (it refers to a client, a lock, or much data), it goes by ``script:PATH:NAME-FINGERPRINT``:
   workers read the script up to where it began to run rows (``begin_run``), under ``steps/reading.py``'s rules.
3. Every refusal is a UsageError: what it is, and what would mend it.
4. What a durable run knows a function by is its name: where code changed, the fingerprint and with it the step has.
"""

import ast
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any, Final

from engine.core.errors import UsageError
from engine.steps.fingerprint import fingerprint

Function = Callable[..., Any]

SCRIPT: Final = "script"
PICKLED: Final = "pickled"
SCRIPT_MODULE: Final = (
    "__engine_main__"  # what a script is named in a worker: its ``__main__`` guard is not entered
)
PICKLED_BYTES_MAX: Final = 64 * 1024 * 1024
SCRIPT_BYTES_MAX: Final = (
    4 * 1024 * 1024
)  # of a function that workers can find in another way: more is read faster than sent
NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_NO_LABEL: Final = re.compile(r"[^A-Za-z0-9_.]+")

is_importing_script = False  # a worker is looking for functions: nothing is to be run now
has_met_run = (
    False  # and has come to where rows would be run: what the script does after that is its clearing up
)
script_end = 0  # the line of the script where it first ran rows: workers read it up to there; 0 where that is not known
script_package = ""  # what the script is part of, for its relative imports


class ScriptEnd(BaseException):
    """A script that is read for its functions has come to where it would run rows: it ends there.

    It is no error: no ``except Exception`` of the script is to catch it.
    """


def begin_run() -> None:
    """To be called before rows are run. Raises ScriptEnd where a worker is only looking for the script's functions."""
    global has_met_run, script_end, script_package
    if is_importing_script:
        has_met_run = True
        raise ScriptEnd
    if not script_end:
        script_end = _line_of_script()
        script_package = getattr(sys.modules["__main__"], "__package__", None) or ""


def _line_of_script() -> int:
    """Where this process's script is now, if it is running its outermost level."""
    frame = inspect.currentframe()
    main = vars(sys.modules["__main__"])
    while frame is not None:
        if frame.f_globals is main and frame.f_code.co_name == "<module>":
            return frame.f_lineno
        frame = frame.f_back
    return 0


def travelling(function: Function) -> tuple[str, bytes | None]:
    """How workers come to ``function``: its name, and its bytes where it is pickled. See rules 1 to 3.

    Raises UsageError for what cannot be called, and what cannot travel.
    """
    if not callable(function):
        raise UsageError(f"A step calls a function; {type(function).__name__} cannot be called.")
    refuse_generators(function, _label(function))
    named = _name_of(function)
    if not named:
        return _pickled(function, PICKLED_BYTES_MAX)
    if not named.startswith(f"{SCRIPT}:"):
        return named, None
    try:
        return _pickled(function, SCRIPT_BYTES_MAX)
    except UsageError:
        return f"{named}-{fingerprint(function)}", None


def _name_of(function: Function) -> str:
    """The name that a worker finds the function by; empty where there is none."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not NAME.fullmatch(name):
        return ""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function and not (isinstance(function, MethodType) and found == function):
        return ""
    if module in ("__main__", SCRIPT_MODULE):
        path = _script_that_defines(name.partition(".")[0], sys.modules[module])
        return f"{SCRIPT}:{path}:{name}" if path else ""
    return f"{module}:{name}" if _is_importable(module) else ""


def _script_that_defines(name: str, script: ModuleType) -> str:
    """The path of ``script``, if a worker that reads it up to its first run of ours has ``name``; else empty."""
    path = getattr(script, "__file__", None)
    if not isinstance(path, str):
        return ""  # a notebook, or an interactive session
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body:  # not what stands under an ``if``: that may be the guard
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            if not script_end or node.lineno < script_end:
                return os.path.abspath(path)
    return ""


def _is_importable(module: str) -> bool:
    """Whether another process finds the module by its name, as the same file."""
    origin = getattr(getattr(sys.modules[module], "__spec__", None), "origin", None)
    path: Any = None
    found: Any = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        found = next(_specs(".".join(parts[:end]), path), None)
        if found is None:
            return False
        path = found.submodule_search_locations
    return origin is not None and found.origin == origin


def _specs(name: str, path: Any) -> Iterator[Any]:
    """What finders know of a module, anew: ``importlib.util.find_spec`` would ask the modules that are loaded."""
    for finder in sys.meta_path:
        found = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if found is not None:
            yield found


def _pickled(function: Function, bytes_max: int) -> tuple[str, bytes]:
    from engine.steps.pickling import TooLarge, pickled

    label = _label(function)
    try:
        data = pickled(
            function, [name for name in _modules_of(function) if not _is_importable(name)], bytes_max
        )
    except TooLarge:
        raise UsageError(
            f"The function {label} is too large to be sent to worker processes: it refers to more than {bytes_max:,} bytes "
            "of data. Let it read that data from a file instead. Nothing was sent."
        ) from None
    except Exception as error:
        raise UsageError(
            f"The function {label} cannot be sent to worker processes: {first_line(error)}. It refers to something that "
            "exists in this process only, like a lock, a connection or an open file. Make that inside the function, or "
            "define the function in a module, which workers import for themselves. Nothing was sent."
        ) from None
    return f"{PICKLED}:{_NO_LABEL.sub('', label) or 'function'}-{fingerprint(function)}", data


def _modules_of(function: Any) -> set[str]:
    """The modules that a function and what it is made of come from, but for ``__main__``.

    The script that this process, a worker, has read is always one of them: nobody else can import it by its name there.
    """
    inner = (
        getattr(function, "func", None),
        getattr(function, "__self__", None),
        getattr(function, "__wrapped__", None),
    )
    names = {
        getattr(one, "__module__", None) for one in (function, type(function), *inner, *map(type, inner))
    }
    return {
        name for name in names if isinstance(name, str) and name in sys.modules and name != "__main__"
    } | ({SCRIPT_MODULE} & sys.modules.keys())


def _label(function: Any) -> str:
    """The last part of its name; for an object its class."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).rpartition("<locals>.")[2]


def first_line(error: BaseException) -> str:
    """What it says, without a full stop; at most 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".")


def refuse_generators(function: Any, name: str) -> None:
    """Raise UsageError for a function that makes more than one value."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"{name} is a generator. A step's function returns one value for its row.")


def is_async(function: Function) -> bool:
    """Whether calling it gives something to be awaited."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - an object's own call, not whether it has one
    )
