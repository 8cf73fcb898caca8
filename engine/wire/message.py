"""What every message between our processes is.

Rules of this file:
1. Adding a field or a message means raising VERSION: both ends come from one installation, or refuse each other.
"""

import msgspec

VERSION = 10


class BadFrame(ValueError):
    """A frame that is none of ours; the receiver drops and counts it."""


class Message(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Base of all messages; fields travel in order of definition."""
