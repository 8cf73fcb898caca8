"""Names to addresses where rows name the hosts: none of an address that is off limits.

Rules of this file:
1. What was resolved is checked, and the connection is opened to that and nothing else: there is no second look-up in
   between that could say otherwise.
2. Many look-ups at once, each in a thread of its own: one of a dead name takes seconds, and the others are not to wait for
   it. The threads end with the process and keep it from nothing.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from engine.providers.row_urls import is_off_limits
from engine.worker.connections import DNS_CACHE_S
from engine.worker.failures import RefusedAddress

LOOKUPS_AT_ONCE: Final = 64  # stub resolvers drop what comes in larger bursts
DNS_CACHE_NAMES: Final = 10_000
Lookup = Callable[..., list[tuple[Any, ...]]]


class PickyResolver(AbstractResolver):
    """Resolves as the operating system does, and leaves out addresses that are off limits. To be made on the loop."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        """``lookup``: takes and gives what ``socket.getaddrinfo`` does; called in threads."""
        self._loop = asyncio.get_running_loop()
        self._lookup = lookup
        self._turns = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises OSError where it has none, RefusedAddress where all are off limits."""
        async with self._turns:
            found = await self._look_up(host, port, family)
        allowed = [one for one in found if not is_off_limits(one["host"])]
        if not found:
            raise OSError(None, "it has no address that can be connected to")
        if not allowed:
            raise RefusedAddress(
                f"{host} stands for {found[0]['host']}, which is link-local or a cloud's metadata service"
            )
        return allowed

    async def _look_up(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        ended: asyncio.Future[list[tuple[Any, ...]]] = self._loop.create_future()

        def look_up() -> None:
            found: list[tuple[Any, ...]] = []
            error: Exception | None = None
            try:
                found = self._lookup(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
            except (OSError, ValueError) as raised:  # a name that cannot be encoded is a ValueError
                error = raised
            try:
                self._loop.call_soon_threadsafe(_settle, ended, found, error)
            except RuntimeError:
                return  # the loop has ended meanwhile, and nobody waits

        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in await ended
            if kind in (socket.AF_INET, socket.AF_INET6)
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def _settle(
    ended: asyncio.Future[list[tuple[Any, ...]]], found: list[tuple[Any, ...]], error: Exception | None
) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(found)
    else:
        ended.set_exception(error)


def picky_connector(context: ssl.SSLContext, resolver: AbstractResolver) -> aiohttp.TCPConnector:
    """A connector for all origins that rows name. To be made on the loop."""
    return aiohttp.TCPConnector(
        limit=0,
        limit_per_host=0,
        ttl_dns_cache=DNS_CACHE_S,
        dns_cache_max_size=DNS_CACHE_NAMES,
        ssl=context,
        force_close=True,
        resolver=resolver,
    )
