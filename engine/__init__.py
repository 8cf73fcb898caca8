"""engine: call an LLM or HTTP endpoint once per row, as fast as its quota allows, and lose no row.

Rules of this file:
1. Importing it costs next to nothing: what it offers is looked up when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.api.frames import enrich
    from engine.api.mapping import map
    from engine.api.pool import Pool
    from engine.api.results import Result, RowFailed, RunStopped, Usage
    from engine.api.steps import Chain, Step, ask, call, request
    from engine.core.errors import EngineError, UsageError

    __version__: str

__all__ = [
    "Chain",
    "EngineError",
    "Pool",
    "Result",
    "RowFailed",
    "RunStopped",
    "Step",
    "Usage",
    "UsageError",
    "ask",
    "call",
    "enrich",
    "map",
    "request",
]

_HOMES = {
    "Chain": "api.steps",
    "EngineError": "core.errors",
    "Pool": "api.pool",
    "Result": "api.results",
    "RowFailed": "api.results",
    "RunStopped": "api.results",
    "Step": "api.steps",
    "Usage": "api.results",
    "UsageError": "core.errors",
    "ask": "api.steps",
    "call": "api.steps",
    "enrich": "api.frames",
    "map": "api.mapping",
    "request": "api.steps",
}


def __getattr__(name: str) -> Any:
    """What is offered, and ``__version__``, whose look-up would cost a worker's start 40 ms."""
    if name in _HOMES:
        return getattr(import_module(f"engine.{_HOMES[name]}"), name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("throughput-engine")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0+source"


def __dir__() -> list[str]:
    """What is offered, for whoever looks around."""
    return [*__all__, "__version__"]
