"""``python -m engine.limiter``: one limiter process. Its settings come as one line on standard input.

Rules of this file:
1. It belongs to no run: it is in a session of its own, and ends by itself when no run uses it any more.
"""

import os
import signal
import sys

import msgspec
import uvloop

from engine.core.errors import ExitCode
from engine.limiter.registry import Registry
from engine.limiter.server import LimiterServer, LimiterSettings


def main() -> int:
    """Serve until no run needs it."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=LimiterSettings)
    except msgspec.MsgspecError as error:
        sys.stderr.write(f"a limiter needs its settings as a line of JSON on standard input: {error}\n")
        return ExitCode.USAGE
    os.chdir("/")  # it may outlive the folder it was started in

    async def serve() -> None:
        await LimiterServer(settings).run()

    try:
        uvloop.run(serve())
    except OSError as error:
        sys.stderr.write(f"the limiter cannot start: {error}\n")
        return ExitCode.STOPPED
    if os.path.isdir(settings.folder):
        Registry(os.path.dirname(settings.folder)).tidy()
    return 0


if __name__ == "__main__":
    sys.exit(main())
