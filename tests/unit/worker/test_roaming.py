"""Calls whose origins rows name: a place for each origin, kept while it is of use, and none where credentials lie."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
from jobs import job
from scripted import Peer, ScriptedServer, reply

from engine.config import Job, Limits, StepSettings, Timeouts
from engine.core.errors import CannotStart, ErrorKind
from engine.core.model import Call, Failure, Reply, Target
from engine.credentials import AuthHeader, Secret
from engine.worker.connections import KEEPALIVE_S
from engine.worker.exchange import Flight
from engine.worker.fetch import Fetcher
from engine.worker.resolving import PickyResolver
from engine.worker.roaming import Roaming, sender_of
from engine.worker.wires import WIRES

TIMEOUTS = Timeouts(connect_s=5, first_byte_s=5, read_s=5, total_s=5)
Scene = Callable[["Ways"], Awaitable[None]]


class Ways:
    """A Roaming and some servers, each of which answers with its number."""

    def __init__(self, roaming: Roaming, servers: list[ScriptedServer]) -> None:
        self.roaming, self.servers = roaming, servers
        self.flight = Flight()  # as a slot has it: one for calls to any origin, one after the other
        roaming.register(self.flight)
        self.held = asyncio.Event()

    async def get(self, url: str | int, flight: Flight | None = None, **more: Any) -> Reply | Failure:
        """Send a GET to a URL, or to a server by its number."""
        target = f"{self.servers[url].origin}/x" if isinstance(url, int) else url
        return await self.roaming.send(Call("GET", target, (), None), "key", flight or self.flight, **more)

    async def bodies(self, *numbers: int) -> list[bytes]:
        """What these servers answer, asked in this order."""
        results = [await self.get(number) for number in numbers]
        return [one.body if isinstance(one, Reply) else one.message.encode() for one in results]

    @property
    def connections(self) -> list[int]:
        return [server.connections for server in self.servers]


@pytest.fixture(params=WIRES)
def play(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Plays a scene with three servers over each wire; nothing of it is left behind."""

    def run(scene: Scene, *, timeouts: Timeouts = TIMEOUTS, lookup: Any = None, **bounds: int) -> None:
        async def main() -> None:
            async with asyncio.timeout(20):
                resolver = PickyResolver(lookup) if lookup else None
                roaming = Roaming(
                    timeouts=timeouts, limits=Limits(), wire=request.param, resolver=resolver, **bounds
                )
                ways = Ways(roaming, [])

                def answers(number: int) -> Callable[[Peer], Awaitable[None]]:
                    async def handler(peer: Peer) -> None:
                        while request := await peer.request():
                            if b"/hold" in request:
                                await ways.held.wait()
                            moved = b"/moved" in request
                            more = b"Location: http://127.0.0.1:9/\r\n" if moved else b""
                            await peer.send(reply(b"%d" % number, "302 Found" if moved else "200 OK", more))

                    return handler

                async with (
                    ScriptedServer(answers(0)) as a,
                    ScriptedServer(answers(1)) as b,
                    ScriptedServer(answers(2)) as c,
                ):
                    ways.servers = [a, b, c]
                    await scene(ways)
                    await roaming.close()
                    for _ in range(3):  # ends what was cancelled
                        await asyncio.sleep(0)
                    left = {
                        task.get_coro().__qualname__  # type: ignore[union-attr]
                        for task in asyncio.all_tasks()
                    }
                    assert not [name for name in left if "Wire" in name], left

        asyncio.run(main())

    return run


def test_each_call_goes_to_its_own_origin_over_a_connection_that_is_kept(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        assert await ways.bodies(0, 1, 2, 0, 1, 2, 2, 1, 0) == [
            b"0",
            b"1",
            b"2",
            b"0",
            b"1",
            b"2",
            b"2",
            b"1",
            b"0",
        ]
        assert ways.connections == [1, 1, 1]
        for server in ways.servers:
            assert all(b"\r\nHost: 127.0.0.1:%d\r\n" % server.port in one for one in server.seen)
        assert 0.0 < ways.flight.sent <= ways.flight.first_byte <= monotonic()

    play(scene)


def test_many_calls_at_once_find_their_ways_and_each_caller_gets_its_own_answer(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        numbers = [0, 1, 2, 1] * 25
        results = await asyncio.gather(*(ways.get(number, Flight()) for number in numbers))
        assert [one.body for one in results if isinstance(one, Reply)] == [b"%d" % one for one in numbers]
        assert await ways.bodies(0, 1, 2) == [b"0", b"1", b"2"]
        assert max(ways.connections) <= 50

    play(scene)


def test_a_call_may_be_started_from_within_the_end_of_another_one(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        seen: list[Reply | Failure] = []
        over = asyncio.Event()

        def done(result: Reply | Failure) -> None:
            seen.append(result)
            if len(seen) == 8:
                over.set()
                return
            url = f"{ways.servers[len(seen) % 2].origin}/x"
            ways.roaming.start(Call("GET", url, (), None), "key", ways.flight, done)

        done(Failure(ErrorKind.DNS, "the first"))
        await over.wait()
        bodies = [one.body for one in seen[1:] if isinstance(one, Reply)]
        assert bodies == [b"1", b"0", b"1", b"0", b"1", b"0", b"1"]

    play(scene, origins_idle_max=1)


def test_of_idle_origins_those_used_last_are_kept(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        await ways.bodies(0, 1, 0, 2)  # 1 is the one that goes
        await ways.bodies(0, 2)
        assert ways.connections == [1, 1, 1]
        await ways.bodies(1)
        assert ways.connections == [1, 2, 1]

    play(scene, origins_idle_max=2)


def test_an_origin_with_a_request_in_flight_is_never_dropped(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        held = asyncio.create_task(ways.get(f"{ways.servers[0].origin}/hold", Flight()))
        assert await ways.bodies(0, 1, 2, 0, 1, 2) == [b"0", b"1", b"2", b"0", b"1", b"2"]
        ways.roaming.sweep(monotonic() + 1.0)
        ways.roaming.drop_idle()
        assert not held.done()
        ways.held.set()
        result = await held
        assert isinstance(result, Reply) and result.body == b"0"
        assert ways.connections[0] == 2

    play(scene, origins_idle_max=1, connections_idle_max=0)


def test_what_was_idle_for_as_long_as_a_connection_may_be_is_forgotten(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        await ways.bodies(0, 1)
        ways.roaming.sweep(monotonic() + KEEPALIVE_S - 5.0)
        await ways.bodies(0, 1)
        assert ways.connections == [1, 1, 0]
        ways.roaming.sweep(monotonic() + KEEPALIVE_S + 1.0)
        assert await ways.bodies(0) == [b"0"]
        assert ways.connections == [2, 1, 0]

    play(scene)


def test_idle_connections_are_bounded_over_all_origins(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        for number in (0, 1):
            held = [
                asyncio.create_task(ways.get(f"{ways.servers[number].origin}/hold", Flight()))
                for _ in range(4)
            ]
            while len(ways.servers[number].seen) < 4:
                await asyncio.sleep(0.005)
            ways.held.set()
            await asyncio.gather(*held)
            ways.held.clear()
        await ways.bodies(2)
        assert ways.connections == [4, 4, 1]
        ways.roaming.sweep(monotonic())  # 9 are too many, 5 are not
        await ways.bodies(2, 1, 0)
        assert ways.connections == [5, 4, 1]

    play(scene, connections_idle_max=5)


def test_idle_connections_of_origins_at_work_are_closed_where_there_are_too_many(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        hold = f"{ways.servers[0].origin}/hold"
        first = [asyncio.create_task(ways.get(hold, Flight())) for _ in range(4)]
        while len(ways.servers[0].seen) < 4:
            await asyncio.sleep(0.005)
        ways.held.set()
        await asyncio.gather(*first)
        ways.held.clear()
        last = asyncio.create_task(ways.get(hold, Flight()))
        while len(ways.servers[0].seen) < 5:
            await asyncio.sleep(0.005)
        ways.roaming.sweep(monotonic())
        assert await ways.bodies(0) == [b"0"]
        assert ways.connections[0] == 5
        ways.held.set()
        assert isinstance(await last, Reply)

    play(scene, connections_idle_max=2)


def test_a_host_that_is_not_there_fails_its_own_calls_and_no_others(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        secure = ways.servers[2].origin.replace("http:", "https:")
        for url, kind in (
            ("http://127.0.0.1:9/x", ErrorKind.CONNECT_REFUSED),
            ("http://nowhere.test/x", ErrorKind.DNS),
            (f"{ways.servers[1].origin}/moved", ErrorKind.REDIRECT_REFUSED),
            (f"{secure}/x", ErrorKind.TIMEOUT),  # it waits for a request, and the handshake for its answer
        ):
            result = await ways.get(url)
            assert isinstance(result, Failure) and result.kind is kind, result
            assert await ways.bodies(0) == [b"0"]
        assert ways.connections[0] == 1

    def lookup(host: str, *more: Any) -> Any:
        raise OSError(-2, "Name or service not known")

    timeouts = replace(TIMEOUTS, connect_s=0.5)
    play(lambda ways: swept(ways, scene(ways)), timeouts=timeouts, lookup=lookup)


async def swept(ways: Ways, scene: Awaitable[None]) -> None:
    """A scene in which time-outs are seen to."""

    async def sweeps() -> None:
        while True:
            await asyncio.sleep(0.02)
            ways.roaming.sweep(asyncio.get_running_loop().time())

    sweeper = asyncio.create_task(sweeps())
    try:
        await scene
    finally:
        sweeper.cancel()


def test_a_host_that_does_not_answer_is_cut_off_and_its_slot_is_free_for_another(play: Any) -> None:
    async def scene(ways: Ways) -> None:
        result = await ways.get(f"{ways.servers[0].origin}/hold")
        assert isinstance(result, Failure) and result.kind is ErrorKind.TIMEOUT
        assert await ways.bodies(1, 0) == [b"1", b"0"]
        assert ways.connections == [2, 1, 0]  # nothing is sent again where an answer is due

    play(lambda ways: swept(ways, scene(ways)), timeouts=Timeouts(5, 0.1, 5, 5))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest", "http://2852039166/", "http://0251.0376.0251.0376/", "http://[fe80::1]/x",
        "http://[::ffff:169.254.169.254]/", "http://[fd00:ec2::254]/", "http://[fe80::1%25eth0]/", "http://169.254.1/",
        "ftp://127.0.0.1/", "http://me@127.0.0.1/", "http:///x", "127.0.0.1", "", "http://[::1", "unix:///x",
    ],
)  # fmt: skip
def test_what_is_no_address_that_rows_may_name_is_refused_unsent_here_too(play: Any, url: str) -> None:
    async def scene(ways: Ways) -> None:
        for _ in range(2):
            result = await ways.get(url)
            assert isinstance(result, Failure) and result.kind is ErrorKind.BAD_REQUEST, result
            assert "nothing was sent" in result.message
        assert asked == []

    asked: list[str] = []

    def lookup(host: str, *more: Any) -> Any:
        asked.append(host)
        raise OSError(-2, "Name or service not known")

    play(scene, lookup=lookup)


def test_a_name_is_judged_by_what_it_stands_for_and_nothing_else_is_connected_to(play: Any) -> None:
    answers = {
        "meta.test": [("169.254.169.254", 0)],
        "six.test": [("fe80::1", 0, 0, 2), ("fd00:ec2::254", 0, 0, 0), ("::ffff:169.254.169.254", 0, 0, 0)],
        "mixed.test": [("169.254.0.9", 0), ("127.0.0.1", 0)],
    }
    asked: list[str] = []

    def lookup(host: str, *more: Any) -> Any:
        asked.append(host)
        found = answers.pop(host, [("169.254.169.254", 0)])  # whoever asks again is told something else
        return [(10 if ":" in one[0] else 2, 1, 6, "", one) for one in found]

    async def scene(ways: Ways) -> None:
        port = ways.servers[0].port
        for name in ("meta.test", "six.test"):
            result = await ways.get(f"http://{name}:{port}/x")
            assert isinstance(result, Failure) and result.kind is ErrorKind.BAD_REQUEST
            assert "no row's request goes there" in result.message and name in result.message
        for _ in range(3):  # each on a connection of its own
            good = await ways.get(f"http://mixed.test:{port}/x", anew=True)
            assert isinstance(good, Reply) and good.body == b"0"
        assert (asked.count("mixed.test"), ways.connections) == (1, [3, 0, 0])

    play(scene, lookup=lookup)


def test_a_job_whose_rows_name_the_hosts_roams_and_is_given_no_key() -> None:
    key = (AuthHeader("X-Key", (Secret("sk-canary"),)),)

    def plain(url: str) -> Job:
        return replace(
            job(target=Target(provider="http", base_url=url)), step=StepSettings(kind="request", url=url)
        )

    async def main() -> None:
        written = sender_of(plain("http://127.0.0.1:9/{{ x }}"), key, "http://127.0.0.1:9")
        own = sender_of(plain("{{ url }}"), (), "")
        assert (type(written), type(own)) == (Fetcher, Roaming)
        with pytest.raises(CannotStart, match="Nothing was sent"):
            sender_of(plain("{{ url }}"), key, "")
        await written.close()
        await own.close()

    asyncio.run(main())


def test_a_parser_that_works_otherwise_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rehearse(rules: object) -> None:
        raise CannotStart("works otherwise")

    async def main() -> None:
        with pytest.raises(CannotStart):
            Roaming(timeouts=TIMEOUTS, limits=Limits(), wire="lean")

    monkeypatch.setattr("engine.worker.wires.lean.rehearse", rehearse)
    asyncio.run(main())
