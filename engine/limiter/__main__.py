"""``python -m engine.limiter``: one limiter process. Its settings come as one line on standard input.

Rules of this file:
1. It ends with the standard input it was given, or with its parent, whichever the kernel tells first.
"""

import asyncio
import os
import signal
import sys

import msgspec
import uvloop

from engine.core.errors import ExitCode
from engine.launchers.process import die_with_parent
from engine.limiter.server import LimiterServer, LimiterSettings


def main() -> int:
    """Run until told to close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=LimiterSettings)
    except msgspec.MsgspecError as error:
        sys.stderr.write(f"a limiter needs its settings as a line of JSON on standard input: {error}\n")
        return ExitCode.USAGE
    if not die_with_parent(settings.parent_pid):
        return 0

    async def serve() -> None:
        server = LimiterServer(settings)

        def ended() -> None:
            if not os.read(0, 65536):
                os._exit(0)

        os.set_blocking(0, False)
        asyncio.get_running_loop().add_reader(0, ended)
        await server.run()

    try:
        uvloop.run(serve())
    except OSError as error:
        sys.stderr.write(f"the limiter cannot start: {error}\n")
        return ExitCode.STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
