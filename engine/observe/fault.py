"""What a fault of our own looks like on standard error: a traceback without secrets, harmless to a terminal.

Rules of this file:
1. Every traceback of ours is written through here: an exception's text may quote anything, a key among it.
"""

import traceback

from engine.credentials import redact_all
from engine.observe.sanitise import sanitise


def fault_text(error: BaseException) -> str:
    """The traceback of ``error``, with a line end after each line."""
    text = redact_all("".join(traceback.format_exception(error)))
    return "".join(f"{sanitise(line)}\n" for line in text.split("\n") if line)
