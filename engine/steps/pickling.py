"""A program's function as bytes: its code, what it closes over, and the globals that it refers to, as they are now.

Rules of this file:
1. What belongs to a module that workers cannot import goes along by value; nothing may be left of it that another process
   would look up by name: that would fail there, row by row, instead of being refused here.
2. Nobody waits for what is too large: writing ends at the bound.
"""

import functools
import io
import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Final, NewType

import cloudpickle

PROTOCOL: Final = 5
_CACHED: Final = type(functools.lru_cache(len))


class TooLarge(Exception):
    """The function refers to more data than may go along."""


def pickled(function: Callable[..., Any], homes: Iterable[str], bytes_max: int) -> bytes:
    """The function's bytes. ``homes``: the modules that go along by value, besides ``__main__``.

    Raises TooLarge, and whatever an object raises that cannot be pickled.
    """
    strangers = [sys.modules[name] for name in homes]
    for module in strangers:
        cloudpickle.register_pickle_by_value(module)
    try:
        out = _Bounded(bytes_max)
        _Pickler(out, frozenset(homes) | {"__main__"}).dump(function)
        return out.getvalue()
    finally:
        for module in strangers:
            cloudpickle.unregister_pickle_by_value(module)


class _Bounded(io.BytesIO):
    def __init__(self, bytes_max: int) -> None:
        super().__init__()
        self._bytes_max = bytes_max

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self._bytes_max:
            raise TooLarge
        return super().write(data)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, out: io.BytesIO, homes: frozenset[str]) -> None:
        super().__init__(out, protocol=PROTOCOL)
        self._homes = homes

    def reducer_override(self, thing: Any) -> Any:
        """See the base's. Here: no thing of these modules by its name (rule 1)."""
        made = super().reducer_override(thing)
        if made is not NotImplemented or isinstance(thing, type | FunctionType):
            return made
        if not self._is_at_home(thing) or type(thing) in self.dispatch_table:
            return made
        made = thing.__reduce_ex__(PROTOCOL)
        return made if not isinstance(made, str) else _by_value(thing)

    def _is_at_home(self, thing: Any) -> bool:
        own = getattr(thing, "__dict__", None)
        named = own.get("__module__") if isinstance(own, dict) else None
        return named in self._homes or type(thing).__module__ in self._homes


def _by_value(thing: Any) -> Any:
    """How a thing is made again that would be pickled as nothing but its name."""
    if isinstance(thing, _CACHED):
        return _cached, (thing.__wrapped__, thing.cache_parameters())
    if isinstance(thing, NewType):
        return NewType, (thing.__name__, thing.__supertype__)
    raise TypeError(f"a {type(thing).__qualname__} is known by its name alone")


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """The function with a cache of its own, empty."""
    return functools.lru_cache(**parameters)(function)
