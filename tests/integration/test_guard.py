"""Where no kernel tells a worker of its coordinator's death, the missing beats do."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import pytest
from jobs import job

from engine.core.model import Target
from engine.core.quota import Rates
from engine.handover import LimiterAddress, WorkerSettings, encode_handover
from engine.launchers.local import LocalLauncher
from engine.limiter.registry import Entry
from engine.limiter.server import LimiterServer, LimiterSettings
from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess
from engine.wire.link import Hub
from engine.wire.messages import Beat, Hello, Lease, Message, RowLine, Terms, Tune, Welcome

pytestmark = pytest.mark.slow


def test_a_worker_without_beats_sends_nothing_more_and_exits_within_two_seconds(tmp_path: Path) -> None:
    with MockProcess(MockSettings(latency="20ms")) as mock:
        asyncio.run(silence(mock, tmp_path))


async def silence(mock: MockProcess, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    hub = Hub(folder / "c", message_bytes_max=1_000_000)
    peers: list[bytes] = []

    def heard(peer: bytes, message: Message) -> None:
        if isinstance(message, Hello):
            peers.append(peer)
            hub.send(peer, Welcome())
            hub.send(peer, Tune(in_flight=1, terms=[Terms(-1)]))

    hub.listen(loop, heard)
    made = job(target=Target(provider="openai", base_url=mock.base_url, model="m"))
    settings = WorkerSettings(
        job=made,
        slot=0,
        run_id="r",
        token="t",
        socket=str(folder / "c"),
        parent_pid=os.getpid(),
        guard_s=0.5,
        limiters=(LimiterAddress(),),
    )
    process = LocalLauncher(folder).start("engine.worker", encode_handover(settings, ((),)))
    try:
        while not peers:
            await asyncio.sleep(0.02)
        rows = [RowLine(number, number, b'{"text": "row %d"}' % number) for number in range(1000)]
        hub.send(peers[0], Lease(lease=1, rows=rows))
        for _ in range(8):
            hub.send(peers[0], Beat())
            await asyncio.sleep(0.1)
        last_beat = time.monotonic()
        while process.poll() is None and time.monotonic() - last_beat < 4.0:
            await asyncio.sleep(0.02)
        exited_s = time.monotonic() - last_beat
        stats = await asyncio.to_thread(mock.stats)
        assert exited_s < 2.0
        assert stats["requests"] > 5
        assert stats["last_s"] - last_beat < 0.55
    finally:
        process.kill()
        process.wait(2.0)
        process.close()
        hub.close()


def test_a_worker_that_its_limiter_refuses_leaves_instead_of_waiting_for_ever(
    tmp_path: Path, limiter_dir: Path
) -> None:
    asyncio.run(refusal(tmp_path, limiter_dir))


async def refusal(folder: Path, limiters: Path) -> None:
    loop = asyncio.get_running_loop()
    hub = Hub(folder / "c", message_bytes_max=1_000_000)
    hub.listen(loop, lambda peer, message: None)
    entry = Entry(Path(tempfile.mkdtemp(prefix="el-", dir=limiters)))
    entry.register(
        os.getpid()
    )  # a limiter that no run uses leaves, and a worker may take longer to start than that
    limiter = LimiterServer(LimiterSettings(folder=str(entry.path), limits=Rates(60)))
    serving = loop.create_task(limiter.run())
    made = job(target=Target(provider="openai", base_url="http://127.0.0.1:9/v1", model="m"), rpm=60)
    settings = WorkerSettings(
        job=made, slot=0, run_id="r", token="t", socket=str(folder / "c"), parent_pid=os.getpid(),
        limiters=(LimiterAddress(str(entry.socket), "wrong"),),
    )  # fmt: skip
    process = LocalLauncher(folder).start("engine.worker", encode_handover(settings, ((),)))
    try:
        async with asyncio.timeout(10):
            while process.poll() is None:
                await asyncio.sleep(0.02)
        assert process.poll() == 3
        assert "refused" in process.last_words()
    finally:
        process.kill()
        process.wait(2.0)
        process.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        hub.close()
