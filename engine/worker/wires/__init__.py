"""The wires that ``worker/fetch.py`` sends over, one file each.

Rules of this folder:
1. A wire carries the bytes of a request to the configured origin and brings the reply. It decides nothing about where
   requests go or what they hold: it never sees a key but within those bytes.
2. Every wire passes the same tests.
"""

from importlib import import_module

from engine.worker.connections import Opener
from engine.worker.exchange import Rules, Wire

WIRES = {
    "aiohttp": "engine.worker.wires.aiohttp:AiohttpWire",
    "lean": "engine.worker.wires.lean:LeanWire",
}


def make_wire(name: str, opener: Opener, rules: Rules) -> Wire:
    """The wire of that name. Raises CannotStart where a package works otherwise than it needs."""
    module, _, attribute = WIRES[name].partition(":")
    wire: Wire = getattr(import_module(module), attribute)(opener, rules)
    return wire
