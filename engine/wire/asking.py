"""One question over a socket, and its answer: how commands speak with a process that runs.

Rules of this file:
1. A process that does not answer in time is an answer too: None.
"""

import asyncio
from pathlib import Path
from typing import TypeVar

from engine.wire.link import Spoke
from engine.wire.messages import Message

_FRAME_BYTES_MAX = 1024 * 1024
_T = TypeVar("_T", bound=Message)


async def ask(socket: Path, question: Message, answer: type[_T], *, within_s: float) -> _T | None:
    """The first message of type ``answer`` that comes back from the hub at ``socket``; None if none does in time."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Future[_T] = loop.create_future()

    def heard(message: Message) -> None:
        if isinstance(message, answer) and not coming.done():
            coming.set_result(message)

    link = Spoke(socket, message_bytes_max=_FRAME_BYTES_MAX)
    try:
        link.listen(loop, heard)
        link.send(question)
        return await asyncio.wait_for(coming, within_s)
    except TimeoutError:
        return None
    finally:
        link.close()
