"""Names to addresses where rows name the hosts: what is left out, and who waits for whom."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from engine.worker.failures import RefusedAddress
from engine.worker.resolving import LOOKUPS_AT_ONCE, PickyResolver


def found(*addresses: str) -> list[tuple[Any, ...]]:
    """What the operating system gives."""
    return [
        (socket.AF_INET6, 1, 6, "", (one, 80, 0, 0)) if ":" in one else (socket.AF_INET, 1, 6, "", (one, 80))
        for one in addresses
    ]


def resolved(*addresses: str) -> list[tuple[str, int]]:
    async def main() -> list[tuple[str, int]]:
        hosts = await PickyResolver(lambda *_: found(*addresses)).resolve("name.test", 81)
        return [(one["host"], one["port"]) for one in hosts]

    return asyncio.run(main())


def test_addresses_that_are_off_limits_are_left_out() -> None:
    assert resolved("169.254.0.1", "10.0.0.1", "fe80::1", "::1") == [("10.0.0.1", 81), ("::1", 81)]


def test_a_name_of_such_addresses_alone_is_refused_and_one_of_none_does_not_resolve() -> None:
    with pytest.raises(RefusedAddress, match=r"name\.test stands for 169\.254\.169\.254"):
        resolved("169.254.169.254", "::ffff:169.254.169.254")
    with pytest.raises(OSError, match="no address"):
        resolved()


def test_the_operating_systems_own_look_up_is_asked() -> None:
    async def main() -> None:
        hosts = await PickyResolver().resolve("localhost", 80)
        assert {one["host"] for one in hosts} <= {"127.0.0.1", "::1"} and hosts

    asyncio.run(main())


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")]
)
def test_what_a_look_up_raises_comes_to_whoever_asked(error: Exception) -> None:
    def lookup(*_: Any) -> Any:
        raise error

    async def main() -> None:
        with pytest.raises(type(error)):
            await PickyResolver(lookup).resolve("name.test", 80)

    asyncio.run(main())


def test_names_that_take_long_keep_no_others_waiting_up_to_a_bound() -> None:
    release, begun = threading.Event(), threading.Semaphore(0)

    def lookup(host: str, *_: Any) -> Any:
        if host == "dead.test":
            begun.release()
            release.wait(20)
        return found("127.0.0.1")

    async def main() -> None:
        resolver = PickyResolver(lookup)
        dead = [asyncio.create_task(resolver.resolve("dead.test", 80)) for _ in range(LOOKUPS_AT_ONCE - 1)]
        await asyncio.sleep(0)
        for _ in range(5):
            assert (await asyncio.wait_for(resolver.resolve("good.test", 80), 10))[0]["host"] == "127.0.0.1"
        one_more = asyncio.create_task(resolver.resolve("dead.test", 80))
        late = asyncio.create_task(resolver.resolve("good.test", 80))
        await asyncio.to_thread(lambda: [begun.acquire(timeout=10) for _ in range(LOOKUPS_AT_ONCE)])
        assert not late.done()
        release.set()
        assert len(await asyncio.gather(*dead, one_more, late)) == LOOKUPS_AT_ONCE + 1

    asyncio.run(main())


def test_a_look_up_that_ends_after_its_loop_or_its_asker_says_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    release = threading.Event()
    threads: list[threading.Thread] = []

    def lookup(*_: Any) -> Any:
        threads.append(threading.current_thread())
        release.wait(20)
        return found("127.0.0.1")

    async def main() -> None:
        asked = asyncio.create_task(PickyResolver(lookup).resolve("slow.test", 80))
        while not threads:
            await asyncio.sleep(0.001)
        asked.cancel()

    asyncio.run(main())
    release.set()
    threads[0].join(10)
    assert threads[0].daemon and not threads[0].is_alive()
    assert capsys.readouterr().err == ""
