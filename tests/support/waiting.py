"""Waiting on a loop for what other parts of it do."""

import asyncio
import time
from collections.abc import Callable


async def until(true: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait for a condition; the test fails when it does not come."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "the condition never came"
        await asyncio.sleep(0.002)
