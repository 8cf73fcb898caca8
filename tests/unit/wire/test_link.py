"""The sockets between our processes: what arrives, what is dropped and counted, and what a sender learns."""

import asyncio
import stat
from pathlib import Path

import hypothesis.strategies as st
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from waiting import until

from engine.wire.link import IPC_PATH_MAX, Hub, Spoke
from engine.wire.messages import Beat, Message, Need, Refuse, encode

CAP = 100_000


class HubEnd:
    def __init__(self, path: Path) -> None:
        self.hub = Hub(path, message_bytes_max=CAP)
        self.heard: list[tuple[bytes, Message]] = []
        self.hub.listen(asyncio.get_running_loop(), lambda peer, message: self.heard.append((peer, message)))


class SpokeEnd:
    def __init__(self, path: Path) -> None:
        self.spoke = Spoke(path, message_bytes_max=CAP)
        self.heard: list[Message] = []
        self.spoke.listen(asyncio.get_running_loop(), self.heard.append)


def test_messages_arrive_whole_and_in_order_both_ways(tmp_path: Path) -> None:
    async def body() -> None:
        hub, spoke = HubEnd(tmp_path / "s"), SpokeEnd(tmp_path / "s")
        sent = [Need(first=number, charges=list(range(number % 50)), settled=0) for number in range(1_000)]
        for message in sent:
            assert spoke.spoke.send(message)
        await until(lambda: len(hub.heard) == 1_000)
        assert [message for _, message in hub.heard] == sent
        peer = hub.heard[0][0]
        for message in sent:
            assert hub.hub.send(peer, message)
        await until(lambda: len(spoke.heard) == 1_000)
        assert spoke.heard == sent
        spoke.spoke.close()
        hub.hub.close()

    asyncio.run(body())


def test_messages_that_cross_each_other_wake_both_ends(tmp_path: Path) -> None:
    """The descriptor is edge-triggered: a message that comes while one is sent must not be left lying."""

    async def body() -> None:
        hub, spoke = HubEnd(tmp_path / "s"), SpokeEnd(tmp_path / "s")
        spoke.spoke.send(Beat())
        await until(lambda: hub.heard)
        peer = hub.heard[0][0]
        for number in range(300):
            spoke.spoke.send(Beat())
            hub.hub.send(peer, Beat())
            spoke.spoke.send(Beat())
            if number % 7 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(hub.heard) == 601 and len(spoke.heard) == 300)
        spoke.spoke.close()
        hub.hub.close()

    asyncio.run(body())


def test_a_peer_that_is_gone_or_was_never_there_makes_send_say_so(tmp_path: Path) -> None:
    async def body() -> None:
        hub, spoke = HubEnd(tmp_path / "s"), SpokeEnd(tmp_path / "s")
        assert not hub.hub.send(b"nobody", Beat())
        spoke.spoke.send(Beat())
        await until(lambda: hub.heard)
        peer = hub.heard[0][0]
        spoke.spoke.close()
        await until(lambda: not hub.hub.send(peer, Beat()))
        hub.hub.close()

    asyncio.run(body())


def test_a_hub_that_starts_again_at_the_same_path_is_found_again(tmp_path: Path) -> None:
    async def body() -> None:
        spoke = SpokeEnd(tmp_path / "s")
        for _ in range(3):
            hub = HubEnd(tmp_path / "s")
            await asyncio.sleep(0.25)
            spoke.spoke.send(Beat())
            await until(lambda hub=hub: hub.heard)
            hub.hub.close()
        spoke.spoke.close()

    asyncio.run(body())


def test_the_socket_is_its_owners_alone_and_a_path_too_long_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        hub = HubEnd(tmp_path / "s")
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        hub.hub.close()
        with pytest.raises(OSError, match=f"longer than {IPC_PATH_MAX} bytes"):
            Hub(tmp_path / ("x" * IPC_PATH_MAX), message_bytes_max=CAP)
        with pytest.raises(OSError, match="could not be opened"):
            Hub(tmp_path / "no" / "folder", message_bytes_max=CAP)

    asyncio.run(body())


def test_a_closed_link_can_be_closed_again(tmp_path: Path) -> None:
    async def body() -> None:
        hub, spoke = HubEnd(tmp_path / "s"), SpokeEnd(tmp_path / "s")
        for _ in range(2):
            spoke.spoke.close()
            hub.hub.close()

    asyncio.run(body())


def test_what_is_still_on_its_way_out_leaves_while_a_link_lingers(tmp_path: Path) -> None:
    async def body() -> None:
        hub, spoke = HubEnd(tmp_path / "s"), SpokeEnd(tmp_path / "s")
        for _ in range(200):
            spoke.spoke.send(Refuse(reason="x" * 1_000))
        spoke.spoke.close(linger_ms=1_000)
        await until(lambda: len(hub.heard) == 200)
        hub.hub.close()

    asyncio.run(body())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), min_size=1, max_size=20))
def test_garbage_is_dropped_and_counted_and_good_messages_beside_it_arrive(
    tmp_path: Path, frames: list[list[bytes]]
) -> None:
    async def body() -> None:
        hub = HubEnd(tmp_path / "s")
        context = zmq.Context()
        raw = context.socket(zmq.DEALER)
        raw.set(zmq.LINGER, 0)
        raw.connect(f"ipc://{tmp_path / 's'}")
        good = encode(Refuse(reason="good"))
        for parts in frames:
            raw.send_multipart(parts)
            raw.send(good)
        raw.send_multipart([good, good])
        raw.send(good)
        await until(lambda: hub.hub.frames_received == 2 * len(frames) + 2)
        heard = [message for _, message in hub.heard]
        assert heard.count(Refuse(reason="good")) == len(frames) + 1
        assert len(heard) + hub.hub.frames_dropped == hub.hub.frames_received
        raw.close()
        context.term()
        hub.hub.close()

    asyncio.run(body())


def test_a_spoke_drops_garbage_too_and_a_frame_over_the_cap_never_reaches_it(tmp_path: Path) -> None:
    async def body() -> None:
        context = zmq.Context()
        raw = context.socket(zmq.ROUTER)
        raw.set(zmq.LINGER, 0)
        raw.bind(f"ipc://{tmp_path / 's'}")
        spoke = SpokeEnd(tmp_path / "s")
        spoke.spoke.send(Beat())
        while not raw.poll(10):
            await asyncio.sleep(0.005)
        peer = raw.recv_multipart()[0]
        raw.send_multipart([peer, b"garbage"])
        raw.send_multipart([peer, encode(Beat()), b"more"])
        raw.send_multipart([peer, encode(Beat())])
        await until(lambda: spoke.heard)
        assert (spoke.heard, spoke.spoke.frames_dropped) == ([Beat()], 2)
        # libzmq ends the connection of a peer that sends more than the cap.
        raw.send_multipart([peer, b"x" * (CAP + 1)])
        await asyncio.sleep(0.2)
        assert spoke.spoke.frames_received == 3
        spoke.spoke.close()
        raw.close()
        context.term()

    asyncio.run(body())
