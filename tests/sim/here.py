"""The world that is lived now: what the engine's own constructors cannot be told, they find here.

Rules of this file:
1. One world at a time; whoever lives it sets it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from world import World

_lived: "list[World]" = []


def enter(world: "World") -> None:
    """From now on it is this one."""
    _lived[:] = [world]


def world() -> "World":
    """The one that is lived now."""
    return _lived[0]
