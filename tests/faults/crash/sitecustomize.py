"""Kills its own process at a named point of the engine's code; Python imports this by itself where it is on the path.

ENGINE_CRASH_AT is ``module:function:before|after|raise:k:marker``: at the k-th call of that function, before or after it, the
process ends by SIGKILL, once in the life of the file ``marker``, whichever process comes first. With ``raise`` the call raises
instead, with the text in ENGINE_CRASH_TEXT (in hexadecimal digits, back to front). The engine knows nothing of it.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from functools import wraps


def _arm(module, qualified: str, when: str, k: int, marker: str) -> None:
    owner, _, name = qualified.rpartition(".")
    place = getattr(module, owner) if owner else module
    function = getattr(place, name)
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls < k:
            return
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        if when == "raise":
            text = bytes.fromhex(os.environ["ENGINE_CRASH_TEXT"])[::-1].decode()
            raise RuntimeError(f"with {text} in it")
        os.kill(os.getpid(), signal.SIGKILL)

    @wraps(function)
    def wrapped(*args, **kwargs):
        if when in ("before", "raise"):
            count()
        result = function(*args, **kwargs)
        if when == "after":
            count()
        return result

    setattr(place, name, wrapped)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as usual, and arms it when it is executed."""

    def __init__(self, name: str, *rest) -> None:
        self._name, self._rest = name, rest

    def find_spec(self, name, path, target=None):
        if name != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_and_arm(module) -> None:
            execute(module)
            _arm(module, *self._rest)

        spec.loader.exec_module = exec_and_arm
        return spec


_wanted = os.environ.get("ENGINE_CRASH_AT", "")
if _wanted:
    _module, _function, _when, _k, _marker = _wanted.split(":")
    if not os.path.exists(_marker):
        sys.meta_path.insert(0, _Finder(_module, _function, _when, int(_k), _marker))
