"""How deep JSON may be nested before it is decoded: whatever handles the values later goes into them by recursion.

Rules of this file:
1. Linear in the length of the text, whatever it holds; a text with few brackets is not looked at any further.
"""

import re
from typing import Final

NESTING_MAX: Final = (
    200  # of a row; far above real rows, far below the recursion limit of whatever handles them later
)
ANSWER_NESTING_MAX: Final = (
    NESTING_MAX - 10
)  # of a reply: a record holds it some levels down, and is read as a row again

# An unclosed string runs to the end instead of failing, so that the scan stays linear.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


def is_nested_deeper(text: bytes, levels_max: int) -> bool:
    """Whether lists and objects in a JSON text are nested deeper than so many levels."""
    return text.count(b"[") + text.count(b"{") > levels_max and _nesting(text) > levels_max


def _nesting(text: bytes) -> int:
    depth = deepest = 0
    for match in _TOKEN.finditer(text):
        first = text[match.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest
