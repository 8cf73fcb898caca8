"""The one place that sends a request.

Rules of this file:
1. Nothing else lets a request out: the wires behind it (``engine.worker.wires``) carry bytes that were written here.
   Keys are revealed here, into one header, for calls to the configured origin and to no other; a call elsewhere is
   refused before anything is sent.
2. Redirects are refused, TLS is verified, there is no cookie jar, and no proxy from the environment unless asked.
3. A body is read through a cap that holds before and after decompression (``worker/exchange.py``). The parsers' own
   decompression is off or absent, because it has no bound (aiohttp's threat model leaves that to the user).
4. Every stage has a finite time-out. One sweep over the requests in flight enforces them, not a timer each.
   Nothing is ever sent twice by itself: every sending is counted, charged and visible.
5. Every foreign exception becomes a Failure of one ErrorKind, in ``worker/failures.py`` and nowhere else.
6. What holds for one wire holds for the others: the same tests run over all of them.
"""

import asyncio
import ssl
from base64 import b64encode
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from engine.config import Limits, Timeouts
from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply
from engine.credentials import AuthHeader, all_secrets
from engine.worker.connections import Opener, Proxy, Shared
from engine.worker.exchange import Flight, OnDone, Rules, Sink
from engine.worker.head import Heads
from engine.worker.wires import make_wire

__all__ = ["Fetcher", "Flight", "OnDone", "Sink", "proxy_for"]


class Fetcher:
    """Sends calls over kept-alive connections to one origin, and turns whatever happens into a value.

    Guarantees: the result is a Reply or a Failure, and nothing that the network does raises; a reply is the whole
    body, decompressed, of at most ``limits.reply_bytes_max`` bytes; a connection on which anything went wrong is
    closed and never used again. A flight is used for one request at a time, and again for the next one.

    With a ``sink`` that wants it the body of a reply goes to the sink piece by piece; the Reply that ends it has none.
    """

    def __init__(
        self,
        *,
        origin: str,
        auth: tuple[AuthHeader, ...],
        timeouts: Timeouts,
        limits: Limits,
        ca_file: str = "",
        trust_env: bool = False,
        wire: str = "aiohttp",
        keyed: bool = True,
        shared: Shared | None = None,
    ) -> None:
        """To be made on the loop.

        ``wire``: a name in ``engine.worker.wires.WIRES``; ``keyed``: whether requests have idempotency keys; ``shared``: a TLS
        context and a connector of several fetchers, in place of ``ca_file`` and of one of its own.
        """
        self._loop = asyncio.get_running_loop()
        self._origin = URL(origin).origin()
        proxy = proxy_for(self._origin) if trust_env else None
        if shared is None:
            opener = Opener(
                self._origin, proxy=proxy, context=ssl.create_default_context(cafile=ca_file or None)
            )
        else:
            opener = Opener(self._origin, proxy=proxy, context=shared.context, connector=shared.connector)
        self._wire = make_wire(wire, opener, Rules(timeouts, limits, all_secrets(auth)))
        always = [(header.name, header.reveal()) for header in auth]
        forwarded = (
            proxy is not None and self._origin.scheme == "http"
        )  # else it is a tunnel, and sees nothing
        if forwarded and proxy is not None:
            always += proxy.headers
        self._heads = Heads(self._origin, always, absolute=forwarded, keyed=keyed)
        self._last_url = ""
        self._last_target = URL()
        self._flights: set[Flight] = set()

    def register(self, flight: Flight) -> None:
        """Put a slot under the sweep's eyes, for as long as the fetcher lives."""
        self._flights.add(flight)

    def sweep(self, now: float) -> None:
        """Cut off every request whose time is up. To be called a few times a second with the loop's time."""
        for flight in [one for one in self._flights if one.deadline <= now]:
            if flight.deadline <= now:  # another one's end may have begun a request on it
                self._wire.expire(flight)
        self._wire.prune()

    def drop_idle(self) -> None:
        """Close the connections that nothing is sent on."""
        self._wire.drop_idle()

    @property
    def idle_connections(self) -> int:
        """How many connections are open that nothing is sent on."""
        return self._wire.idle_count

    def retire(self) -> None:
        """Close what is idle, and end what a wire keeps running for each flight. For good: nothing is sent any more."""
        self._wire.drop_idle()
        for flight in self._flights:
            if flight.task is not None:
                flight.task.cancel()

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()

    async def send(
        self, call: Call, key: str, flight: Flight, sink: Sink | None = None, *, anew: bool = False
    ) -> Reply | Failure:
        """Send ``call`` once, with ``key`` as its Idempotency-Key. Never raises for what the network does.

        ``anew``: on a new connection, be there others or not.
        """
        request = self._request(call, key)
        if isinstance(request, Failure):
            return request
        return await self._wire.send(request, call.method != "HEAD", flight, sink, anew)

    def start(
        self,
        call: Call,
        key: str,
        flight: Flight,
        on_done: OnDone,
        sink: Sink | None = None,
        *,
        anew: bool = False,
    ) -> None:
        """As ``send``, without a coroutine of the caller's: ``on_done`` gets the result, once, from the loop.

        It may start the flight's next request, and it must not raise.
        """
        request = self._request(call, key)
        if isinstance(request, Failure):
            self._loop.call_soon(on_done, request)
        else:
            self._wire.start(request, call.method != "HEAD", flight, on_done, sink, anew)

    def _request(self, call: Call, key: str) -> bytes | Failure:
        """The call's bytes, or why it is not sent."""
        if call.url is not self._last_url:
            refused = self._aim(call.url)
            if refused is not None:
                return refused
        try:
            return self._heads.request(call, self._last_target, key)
        except ValueError as error:
            return Failure(ErrorKind.BAD_REQUEST, f"the request cannot be sent: {error}")

    def _aim(self, url: str) -> Failure | None:
        """Make ``url`` the target, or say why it is refused: keys go to the configured origin only."""
        try:
            target = URL(url, encoded=True)
            allowed = target.origin() == self._origin and target.user is None
        except ValueError:
            return Failure(ErrorKind.BAD_REQUEST, "the request's URL is not valid; nothing was sent")
        if not allowed:
            return Failure(
                ErrorKind.BAD_REQUEST,
                f"the request's URL leads away from {self._origin}; nothing was sent",
            )
        self._last_url, self._last_target = url, target
        return None


def proxy_for(origin: URL) -> Proxy | None:
    """The proxy that the environment names for an origin (``HTTPS_PROXY`` and so on), if it does not exempt it."""
    if proxy_bypass(origin.host or ""):
        return None
    found = getproxies().get(origin.scheme)
    if not found:
        return None
    url = URL(found)
    if url.user is None:
        return Proxy(url, ())
    token = b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    return Proxy(url.with_user(None), (("Proxy-Authorization", f"Basic {token}"),))
