"""How a step's function is found by its name: in a module, in a script, or among what was handed over pickled.

Rules of this file:
1. What was pickled is loaded here and nowhere else, and only out of what came with a process's start, through the private
   pipe that is its standard input: never from a socket, a file, the store or an argument.
2. A script is read only for functions that could not be handed over: see ``functions.travelling``.
3. While modules and scripts are imported for their functions, nothing is run: see ``functions.begin_run``.
4. Every refusal is a UsageError: what it is, and what would mend it.
"""

import difflib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from engine.core.errors import UsageError
from engine.steps import functions
from engine.steps.functions import (
    NAME,
    PICKLED,
    SCRIPT,
    SCRIPT_MODULE,
    Function,
    ScriptEnd,
    first_line,
    refuse_generators,
)
from engine.steps.reading import Again, ScriptLoader, without_doing_again

NOTHING_PICKLED: Final[Mapping[str, bytes]] = {}

_scripts: dict[str, ModuleType] = {}
_unpickled: dict[bytes, Any] = {}


def check(spec: str, folder: str = "") -> None:
    """Refuse, before a run begins, what workers will not find. A script is not run for it, nothing is unpickled.

    What a module prints while it is imported goes to standard error: standard output may be the run's output.
    """
    kind, place, _ = parts_of(spec)
    if kind == SCRIPT:
        if not Path(place).is_file():
            raise UsageError(f"The script {place}, which defines a step's function, is not there any more.")
    elif kind != PICKLED and place in sys.modules:
        resolve(spec, folder)
    elif kind != PICKLED:
        with _printing_aside():
            resolve(spec, folder)


@contextmanager
def _printing_aside() -> Iterator[None]:
    """While it is entered, descriptor 1 is standard error, for Python's ``print`` and for all else that writes there."""
    out = sys.stdout
    try:
        out.flush()
        kept = os.dup(1)
    except (OSError, ValueError, AttributeError):  # closed, or never there
        with redirect_stdout(sys.stderr):
            yield
        return
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        out.flush()
        os.dup2(kept, 1)
        os.close(kept)


def resolve(
    spec: str,
    folder: str = "",
    pickled: Mapping[str, bytes] = NOTHING_PICKLED,
    *,
    script_package: str = "",
    script_end: int = 0,
) -> Function:
    """The function named ``spec``. ``folder``: where modules are looked for first, if they are not on Python's path.

    ``pickled``: bytes by name, out of what this process was started with (rule 1). ``script_package``, ``script_end``: what a
    script is part of, and the line where it ran rows (0: wherever it comes to that). Raises UsageError for what cannot be
    found or called.
    """
    kind, place, name = parts_of(spec)
    if kind == PICKLED:
        found = _unpickle(place, pickled)
    else:
        holder = _read_script(place, script_package, script_end) if kind == SCRIPT else _import(place, folder)
        found = _attribute(holder, name, f"The script {place}" if kind == SCRIPT else f"The module {place}")
    if not callable(found):
        raise UsageError(f"{spec} is no function, but of type {type(found).__name__}. Name a function.")
    refuse_generators(found, spec)
    function: Function = found
    return function


def parts_of(spec: str) -> tuple[str, str, str]:
    """A function's name in parts: its kind ("" for a module's), the place, and the name there. Raises UsageError."""
    kind, _, rest = spec.partition(":")
    if kind == PICKLED and rest:
        return PICKLED, rest, ""
    if kind == SCRIPT and rest.rpartition(":")[0]:
        place, _, name = rest.rpartition(":")
        return SCRIPT, place, name.partition("-")[0]  # without the fingerprint
    if not NAME.fullmatch(kind) or not NAME.fullmatch(rest):
        raise UsageError(
            f"{spec!r} names no function. Write module:function, like mypackage.clean:strip_tags for the function strip_tags "
            "in mypackage/clean.py."
        )
    return "", kind, rest


def _import(name: str, folder: str) -> ModuleType:
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with _Importing():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            where = f"in {folder or os.getcwd()} and where Python finds its packages"
            raise UsageError(
                f"There is no module {error.name}. It was looked for {where}. Give the command in the folder that holds it, or "
                "name that folder in PYTHONPATH."
            ) from None
        raise UsageError(
            f"The module {name} cannot be imported: it needs {error.name}, which is not installed for {sys.executable}."
        ) from None
    except ScriptEnd:
        raise UsageError(
            f"The module {name} runs rows when it is imported. Put that part of it under: if __name__ == '__main__':"
        ) from None
    except UsageError:
        raise  # one of ours says what it needs
    except (Exception, SystemExit) as error:
        raise UsageError(f"The module {name} cannot be imported: {_told(error)}.") from None


def _read_script(path: str, package: str, end: int) -> ModuleType:
    """The script's names, as far as it comes before it would run rows itself. See ``steps/reading.py``."""
    known = _scripts.get(path)
    if known is not None:
        return known
    loader = ScriptLoader(SCRIPT_MODULE, path, end)
    spec = importlib.util.spec_from_file_location(SCRIPT_MODULE, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__spec__ = None  # as in a script that Python runs
    module.__package__ = package or _package_of(Path(path))
    sys.modules[SCRIPT_MODULE] = module  # dataclasses and pickle look their classes up there
    functions.script_end, functions.script_package = end, package  # its functions may run rows, in turn
    try:
        with _Importing(), without_doing_again(path) as refused:
            loader.exec_module(module)
    except (ScriptEnd, SystemExit, Again):
        pass  # what it defines before its end is what is wanted
    except FileNotFoundError as error:
        if error.filename != path:
            raise UsageError(_not_read(path, refused(), error)) from None
        raise UsageError(
            f"The script {path}, which defines a step's function, is not there any more."
        ) from None
    except Exception as error:
        raise UsageError(_not_read(path, refused(), error)) from None
    if refused():
        raise UsageError(_not_read(path, refused()))
    _scripts[path] = module
    return module


def _not_read(path: str, refused: str, error: Exception | None = None) -> str:
    belongs = 'under: if __name__ == "__main__":'
    if refused:
        return (
            f"The script {path} would do once more in every worker what it does in {refused}. Workers have to read the script, "
            "as its function refers to something that cannot be sent to them, like a client, a lock or much data. What is not "
            f"for workers belongs {belongs} - or define the function in a module of its own, or make there what it refers to."
        )
    assert error is not None
    return (
        f"The script {path} cannot be read for its functions in a worker: {_told(error)}. What is not for workers "
        f"belongs {belongs}"
    )


def _package_of(script: Path) -> str:
    """The package that a script is part of, for its relative imports; empty for most."""
    names: list[str] = []
    folder = script.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names)


class _Importing:
    """While it is entered, nothing is run: see ``begin_run``."""

    def __enter__(self) -> None:
        functions.is_importing_script, functions.has_met_run = True, False

    def __exit__(self, *error: object) -> None:
        functions.is_importing_script = False


def _unpickle(name: str, pickled: Mapping[str, bytes]) -> Any:
    data = pickled.get(name)
    if data is None:
        raise UsageError(
            f"The function {name} was given as a Python object, which only the script or notebook that made it has. Run the job "
            "from there, or define the function in a module and name it module:function."
        )
    if data not in _unpickled:
        import cloudpickle

        try:
            with _Importing():
                _unpickled[data] = cloudpickle.loads(data)
        except (Exception, ScriptEnd) as error:
            raise UsageError(
                f"The function {name} cannot be made again in a worker: {_told(error)}. Define it in a module, which workers "
                "import for themselves."
            ) from None
    return _unpickled[data]


def _attribute(holder: ModuleType, name: str, where: str) -> Any:
    found: Any = holder
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            close = difflib.get_close_matches(
                part, [one for one in dir(found) if not one.startswith("__")], 1
            )
            meant = f" Did you mean {close[0]}?" if close else ""
            raise UsageError(f"{where} has no function {name}.{meant}") from None
    return found


def _told(error: BaseException) -> str:
    """What was raised, and where."""
    tb, place = error.__traceback__, ""
    while tb is not None:
        file = tb.tb_frame.f_code.co_filename
        if not file.startswith("<frozen") and file != __file__:
            place = f" ({file}, line {tb.tb_lineno})"
        tb = tb.tb_next
    return f"{type(error).__name__}: {first_line(error)}{place}"
