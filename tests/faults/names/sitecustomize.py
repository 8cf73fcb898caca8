"""Answers look-ups of one host name as a test wants; Python imports this by itself where it is on the path.

ENGINE_NAMES is a folder. Its file ``mode`` says how look-ups of ``endpoint.test`` end from now on: ``ok`` (127.0.0.1),
``nxdomain``, ``servfail``, ``timeout`` (never), ``flap:N`` (every N-th fails), or ``at:ADDRESS``. Each is noted in ``seen``, a
line with its end. Where rows name their hosts a thread asks the operating system, and is told the same (but for ``flap``).
An address is looked up anew for every connection. The engine knows nothing of it.
"""

import asyncio
import os
import socket
import time
from pathlib import Path

HOST = "endpoint.test"
_FAILURES = {
    "nxdomain": (socket.EAI_NONAME, "Name or service not known"),
    "servfail": (socket.EAI_AGAIN, "Temporary failure in name resolution"),
}


def _arm(folder: Path) -> None:
    import aiohttp.connector
    import uvloop

    usual = uvloop.Loop.getaddrinfo
    count = 0

    async def getaddrinfo(self, host, port, **more):
        nonlocal count
        name = host.decode() if isinstance(host, bytes) else host
        if name != HOST:
            return await usual(self, host, port, **more)
        mode, _, every = (folder / "mode").read_text().partition(":")
        if mode == "flap":
            count += 1
            mode = "ok" if count % int(every) else "nxdomain"
        seen = os.open(folder / "seen", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(seen, f"{mode}\n".encode())
        os.close(seen)
        if mode == "timeout":
            await asyncio.sleep(3600)
        if mode in _FAILURES:
            raise socket.gaierror(*_FAILURES[mode])
        return await usual(self, "127.0.0.1", port, **more)

    directly = socket.getaddrinfo

    def ask(host, port, *more, **others):
        if host != HOST:
            return directly(host, port, *more, **others)
        mode, _, address = (folder / "mode").read_text().partition(":")
        if mode == "timeout":
            time.sleep(3600)
        if mode in _FAILURES:
            raise socket.gaierror(*_FAILURES[mode])
        return directly(address or "127.0.0.1", port, *more, **others)

    uvloop.Loop.getaddrinfo = getaddrinfo
    socket.getaddrinfo = ask
    aiohttp.connector._DNSCacheTable.expired = lambda self, key: True


if os.environ.get("ENGINE_NAMES"):
    _arm(Path(os.environ["ENGINE_NAMES"]))
