"""The coordinator's ear at the limiter: what it granted, whether it pauses, and its largest charge.

Rules of this file:
1. Listens only. Losing a gauge loses a figure on the screen, never a permit.
"""

import asyncio
from pathlib import Path

from engine.wire.link import Spoke
from engine.wire.messages import Gauge, Message, SetLimits, Watch

_FRAME_BYTES_MAX = 1024 * 1024


class LimiterWatch:
    """The limiter's latest gauges. ``largest`` and ``pauses`` only grow, also across its restarts."""

    def __init__(self) -> None:
        self._link: Spoke | None = None
        self._token = ""
        self.largest = 0
        self.pauses = 0
        self.paused_s = 0.0
        self.waiting = 0

    def connect(self, path: Path, token: str) -> None:
        """Ask for gauges; to be called again for every new limiter."""
        self.close()
        self._link = Spoke(path, message_bytes_max=_FRAME_BYTES_MAX)
        self._link.listen(asyncio.get_running_loop(), self._heard)
        self._link.send(Watch(token=token))

    def set_limits(self, rpm: int, tpm: int) -> None:
        """Ask for other limits; 0 leaves one as it is."""
        if self._link is not None:
            self._link.send(SetLimits(rpm=rpm, tpm=tpm))

    def close(self) -> None:
        """Listen no more."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _heard(self, message: Message) -> None:
        if isinstance(message, Gauge):
            self.largest = max(self.largest, message.largest)
            self.pauses = max(self.pauses, message.pauses)
            self.paused_s = message.paused_s
            self.waiting = message.waiting
