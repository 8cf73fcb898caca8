"""A limiter's life: it serves every run of the machine, ends with the last, and hands on what it knows."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from waiting import until

from engine.core.quota import Memory, Rates
from engine.limiter import server as module
from engine.limiter.client import LimiterClient
from engine.limiter.registry import Entry
from engine.limiter.server import LimiterServer, LimiterSettings
from engine.limiter.standing import Standing
from engine.wire.link import Spoke
from engine.wire.messages import Attach, Gauge, Inspect, Leave, Message, Report

RUN = os.getpid()  # marks of dead processes are removed, so runs of these tests are processes that live
OTHER = os.getppid()


class Attached:
    """A run's coordinator, and one worker of it."""

    def __init__(self, entry: Entry, run: int, rpm: int = 0, tpm: int = 0, *, token: str = "") -> None:
        self.heard: list[Message] = []
        self.times: list[float] = []
        self.dear: list[Rates] = []
        self.entry, self.run, self.token = entry, run, token or entry.token
        self.link = Spoke(entry.socket, message_bytes_max=100_000)
        self.link.listen(asyncio.get_running_loop(), self.heard.append)
        entry.register(run)
        self.declare(rpm, tpm)
        self.client = LimiterClient(
            entry.socket, self.token, 0, self._granted, run=run, on_too_dear=self._too_dear
        )
        self.client.start(asyncio.get_running_loop())

    def declare(self, rpm: int, tpm: int) -> None:
        self.link.send(Attach(self.token, self.run, f"run {self.run}", Rates(rpm, tpm), 1.0))

    def leave(self) -> None:
        self.entry.unregister(self.run)
        self.link.send(Leave())

    def close(self) -> None:
        self.client.close()
        self.link.close(linger_ms=100)

    @property
    def gauge(self) -> Gauge:
        return next(message for message in reversed(self.heard) if isinstance(message, Gauge))

    @property
    def limits(self) -> tuple[int, int]:
        return self.gauge.bounds.rates[:2]

    def _granted(self, count: int, generation: int) -> None:
        self.times += [time.monotonic()] * count

    def _too_dear(self, rates: Rates) -> None:
        self.dear.append(rates)
        self.client.drop_queue()


def serve(
    entry: Entry,
    body: Callable[[LimiterServer], Awaitable[None]],
    *,
    rpm: int = 0,
    tpm: int = 0,
    **settings: object,
) -> LimiterServer:
    """Run ``body`` beside a limiter until the limiter ends by itself."""

    async def both() -> LimiterServer:
        entry.make()
        server = LimiterServer(LimiterSettings(folder=str(entry.path), limits=Rates(rpm, tpm), **settings))  # type: ignore[arg-type]
        serving = asyncio.ensure_future(server.run())
        await body(server)
        await asyncio.wait_for(serving, 5)
        return server

    return asyncio.run(both())


@pytest.fixture
def entry(limiter_dir: Path) -> Entry:
    return Entry(limiter_dir / "q")


def test_it_lives_as_long_as_any_run_and_ends_at_once_when_the_last_leaves(entry: Entry) -> None:
    async def body(server: LimiterServer) -> None:
        one, other = Attached(entry, RUN, 6_000), Attached(entry, OTHER, 6_000)
        one.client.need(5)
        await until(lambda: one.times and other.heard)
        one.leave()
        await asyncio.sleep(0.1)
        assert not server.ended.done()
        other.client.need(5)
        await until(lambda: other.times)
        other.leave()
        await until(server.ended.done, 0.5)
        one.close()
        other.close()

    serve(entry, body, rpm=6_000)
    assert entry.info() is None
    assert not entry.socket.exists()
    left = entry.left()
    assert left is not None
    assert sum(amount for _, amount in left[0].requests) == 2
    assert sum(amount for _, amount in left[0].tokens) == 10


def test_it_ends_when_the_runs_died_without_a_word(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)

    async def body(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 6_000)
        await until(lambda: one.heard)
        await asyncio.sleep(0.2)
        assert not server.ended.done()
        entry.unregister(RUN)  # as a look at a dead process would
        await until(server.ended.done, 2.0)
        one.close()

    serve(entry, body, rpm=6_000)


def test_what_it_says_of_itself_is_gone_with_it_though_it_was_busy_when_a_look_found_its_last_run_gone(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes that stay behind read like those of a limiter that was killed: the next run would wait for a minute."""
    monkeypatch.setattr(module, "LOOK_S", 0.05)

    async def body(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 6_000)
        one.client.need(1)
        await until(lambda: one.times)
        entry.unregister(RUN)  # the word that it left is still on its way when the limiter looks
        await until(server.ended.done, 2.0)
        one.close()

    serve(entry, body, rpm=6_000)
    assert entry.info() is None


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system does not tell of deaths")
def test_it_hears_of_a_death_at_once(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 60.0)

    async def body(server: LimiterServer) -> None:
        child = await asyncio.create_subprocess_exec("sleep", "60")
        one = Attached(entry, child.pid, 6_000)
        await until(lambda: one.heard)
        child.kill()
        await until(server.ended.done, 1.0)
        await child.wait()
        one.close()

    serve(entry, body, rpm=6_000)


def test_what_was_sent_in_the_last_minute_counts_though_another_limiter_granted_it(entry: Entry) -> None:
    async def spend(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 60)
        one.client.need(0)
        one.client.need(0)
        await until(lambda: len(one.times) == 2)
        one.leave()
        await until(server.ended.done)
        one.close()

    async def look(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 60)
        one.link.send(Inspect(one.token))
        await until(lambda: any(isinstance(message, Report) for message in one.heard))
        report = next(message for message in one.heard if isinstance(message, Report))
        assert report.used.rpm == 2
        one.leave()
        one.close()

    serve(entry, spend, rpm=60)
    left = entry.left()
    assert left is not None
    serve(entry, look, rpm=60, memory=left[0], gone_s=left[1])


def test_a_full_minute_of_another_limiter_lets_nothing_pass(entry: Entry) -> None:
    async def body(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 600)
        one.client.need(0)
        await asyncio.sleep(0.4)
        assert not one.times
        one.leave()
        one.close()

    serve(entry, body, rpm=600, memory=Memory([(0, 600)], [], [], [], 0, 0.0))


def test_a_run_with_a_lower_limit_lowers_it_for_all_until_it_leaves(entry: Entry) -> None:
    async def body(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 6_000)
        await until(lambda: one.heard)
        other = Attached(entry, OTHER, 600, 1_000)
        await until(lambda: one.limits == (600, 1_000))
        assert one.gauge.bounds.rpm == (600, 600, f"run {OTHER}", 6_000, f"run {RUN}", 0)
        other.leave()
        await until(lambda: one.limits == (6_000, 0))
        one.leave()
        one.close()
        other.close()

    serve(entry, body, rpm=6_000)


def test_a_call_that_became_too_dear_is_told_and_the_others_go_on(entry: Entry) -> None:
    async def body(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 0, 60_000)
        await until(lambda: one.heard)
        other = Attached(entry, OTHER, 0, 1_000)
        await until(lambda: one.limits == (0, 1_000))
        one.client.need(2_000)
        await until(lambda: one.dear == [Rates(tpm=1_000)])
        one.client.need(1)
        await until(lambda: len(one.times) == 1)
        for run in (one, other):
            run.leave()
            run.close()

    serve(entry, body, tpm=60_000)


def test_after_a_death_the_lower_limit_holds_until_its_run_is_back(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 0.5)
    monkeypatch.setattr(module, "LOOK_S", 0.05)

    async def body(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 6_000)
        await until(lambda: one.heard)
        assert one.limits == (600, 0)
        await until(lambda: one.limits == (6_000, 0), 3.0)
        one.leave()
        one.close()

    serve(entry, body, rpm=6_000, limits_now=Rates(600), largest=1)


def test_a_report_says_all_about_the_quota_and_its_runs_to_who_knows_the_token(entry: Entry) -> None:
    async def body(server: LimiterServer) -> None:
        one = Attached(entry, RUN, 600, 5_000)
        stranger = Attached(entry, OTHER, token="guessed")
        one.client.need(100)
        await until(lambda: one.times)
        stranger.link.send(Inspect("guessed"))
        one.link.send(Inspect(one.token))
        await until(lambda: any(isinstance(message, Report) for message in one.heard))
        report = next(message for message in one.heard if isinstance(message, Report))
        assert (report.origin, report.model, report.limits) == ("http://h", "m", Rates(600, 5_000))
        assert (report.used, report.waiting) == (Rates(1, 100), 0)
        (run,) = report.runs
        assert (run.pid, run.workers, run.granted_requests, run.granted_tokens) == (RUN, 1, 1, 100)
        await until(lambda: server.refused >= 3)
        assert not any(isinstance(message, Report) for message in stranger.heard)
        entry.unregister(OTHER)
        one.leave()
        one.close()
        stranger.close()

    serve(entry, body, rpm=600, tpm=5_000, origin="http://h", model="m")


def test_who_replaces_it_finds_the_largest_limits_of_its_last_minute_and_a_charge_at_least_as_large(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.make()
    standing = Standing(entry, "http://h", "m", limits=Rates(6_000), largest=0)
    standing.granting(700)
    found = entry.info()
    assert found is not None
    assert (found.limits, found.largest) == (Rates(6_000), 1_024)
    standing.tick(busy=False)
    assert standing.info.busy is False
    standing.granting(700)  # the first grant after a rest is announced before it is made
    assert standing.info.busy is True
    standing.limits(Rates(600, 1_000))
    found = entry.info()
    assert found is not None
    assert (found.limits, found.limits_now) == (Rates(6_000, 0), Rates(600, 1_000))  # 0: no limit at all
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 100)
    standing.tick(busy=True)
    found = entry.info()
    assert found is not None
    assert (found.limits, found.largest) == (Rates(600, 1_000), 1_024)


def test_a_full_disk_does_not_stop_it_and_is_told(
    entry: Entry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry.make()
    standing = Standing(entry, "http://h", "m", limits=Rates(60), largest=0)

    def full(self: Entry, info: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Entry, "write", full)
    standing.granting(5)
    assert "cannot write its notes" in capsys.readouterr().err
