"""What the engine says of flags, as a program says it.

Rules of this file:
1. Only names of settings are changed, never what a message quotes of rows or of an endpoint.
"""

import re
from typing import Final

from engine.core.errors import UsageError
from engine.settingtable import SETTINGS

_OTHERWISE: Final = {
    "--in-flight": "max_flows",
    "--fresh": "fresh=True",
    "--retry-failed": "retry_failed()",
    "--on-change redo": 'on_change="redo"',
}
_FLAGS: Final = [*_OTHERWISE, *(f"--{name.replace('_', '-')}" for name in SETTINGS)]
# The longest first; what stands for a value ("--model NAME") goes with its flag.
_FLAG: Final = re.compile(
    rf"(?:{'|'.join(sorted(_FLAGS, key=len, reverse=True))})(?![\w-])(?: [A-Z]{{2,}}\b)?"
)


def in_python(error: UsageError) -> UsageError:
    """The same refusal, with keyword arguments where it names flags."""
    return UsageError(_FLAG.sub(_keyword, str(error)))


def _keyword(found: re.Match[str]) -> str:
    if found[0] in _OTHERWISE:
        return _OTHERWISE[found[0]]
    flag, _, value = found[0].partition(" ")
    name = _OTHERWISE.get(flag) or flag[2:].replace("-", "_")
    return f"{name}={value}" if value else name
