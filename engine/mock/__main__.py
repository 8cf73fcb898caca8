"""``python -m engine.mock``: the mock provider as a process of its own, for runs, tests and benchmarks.

Rules of this file:
1. Settings come as one line of JSON on standard input; one line with the port goes to standard output.
2. It ends when its standard input does, so that it never outlives whoever started it.
"""

import asyncio
import gc
import os
import signal
import sys

import msgspec
import uvloop

from engine.launchers.process import die_with_parent, raise_open_files
from engine.mock.server import MockServer
from engine.mock.settings import settings_from


def main() -> int:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = settings_from(msgspec.json.decode(sys.stdin.buffer.readline()))
    die_with_parent(0)
    raise_open_files()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def ended() -> None:
            if not os.read(0, 65536) and not over.done():
                over.set_result(None)

        async with MockServer(settings) as server:
            sys.stdout.write(f'{{"port": {server.port}}}\n')
            sys.stdout.flush()
            os.set_blocking(0, False)
            loop.add_reader(0, ended)
            await over

    uvloop.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
