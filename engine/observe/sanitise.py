"""The one way of foreign text to a terminal: what could move the cursor, colour or reorder it is taken out.

Rules of this file:
1. Everything a row, a model or a server wrote passes here before a person sees it; ``--json`` is the raw path.
"""


def sanitise(text: str, chars_max: int = 2000) -> str:
    """``text`` on one line without control, format (bidi, zero width), surrogate or private characters."""
    if not text.isprintable():
        text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * chars_max]).split())
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
