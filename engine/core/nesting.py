"""How deep JSON may be nested before it is decoded: whatever handles the values later goes into them by recursion.

Rules of this file:
1. Linear in the length of the text, whatever it holds; a text with few brackets is not looked at any further.
2. No step of Python's for each byte or string: a body of megabytes is scanned in a part of the time its decoding takes.
"""

from itertools import accumulate
from typing import Final

NESTING_MAX: Final = (
    200  # of a row; far above real rows, far below the recursion limit of whatever handles them later
)
ANSWER_NESTING_MAX: Final = (
    NESTING_MAX - 10
)  # of a reply: a record holds it some levels down, and is read as a row again

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # up and down, as signed bytes
_TOKENS = b'"[]{}'
_NO_TOKEN = bytes(set(range(256)) - set(_TOKENS))
_NO_ESCAPE = bytes(set(range(256)) - set(_TOKENS + b"\\/bfnrtu"))  # neither one nor any part of an escape
_PIECE = 16_384  # brackets that are walked at once, before it is seen whether they lead too deep


def is_nested_deeper(text: bytes, levels_max: int) -> bool:
    """Whether lists and objects in a JSON text are nested deeper than so many levels.

    A string that is not closed runs to the end. Of what is no JSON only the part before the mistake is sure to count.
    """
    if _openings(text) <= levels_max:
        return False
    brackets = _brackets(text)
    if _openings(brackets) <= levels_max:
        return False
    steps = memoryview(brackets.translate(_STEPS)).cast("b")
    depth = 0
    for at in range(0, len(steps), _PIECE):
        depths = list(accumulate(steps[at : at + _PIECE], initial=depth))
        if max(depths) > levels_max:
            return True
        depth = depths[-1]
    return False


def _openings(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _brackets(text: bytes) -> bytes:
    """The brackets that stand in no string, in their order."""
    if b'\\"' in text:  # otherwise every quote opens or closes a string
        # Less to go through first; whatever makes an escape stays, so that nothing else comes to stand behind its backslash.
        text = text.translate(None, _NO_ESCAPE)
        # Pairs of backslashes from the left, as they are read: one that is left then belongs to the character behind it.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    text = text.translate(None, _NO_TOKEN)
    # Without two quotes in a row all others open or close as before. What is left are strings with brackets in them.
    text = text.replace(b'""', b"")
    return b"".join(text.split(b'"')[::2]) if b'"' in text else text
