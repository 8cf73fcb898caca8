"""One endpoint as a worker sees it: permits called back, health told, nothing sent where nobody listens."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

from jobs import job

from engine.config import Job, StepSettings
from engine.core.breaker import Breaker, State
from engine.core.errors import ErrorKind, Health, Signal
from engine.core.model import Failure, Reply, Target
from engine.core.quota import Rates
from engine.handover import LimiterAddress, WorkerSettings
from engine.wire.messages import OutcomeLine, RowLine, Terms
from engine.worker.execute import Later, RowRun
from engine.worker.failures import SHORTAGE
from engine.worker.lane import Lane


class FakeOwner:
    """Keeps what a lane gives back."""

    def __init__(self) -> None:
        self.ended: list[tuple[RowRun, OutcomeLine | Later, Failure | None]] = []
        self.back: list[RowRun] = []
        self.left = 8

    def landed(
        self, lane: Lane, run: RowRun, step: OutcomeLine | Later, failure: Failure | None, now: float
    ) -> None:
        self.ended.append((run, step, failure))

    def recalled(self, runs: Iterable[RowRun]) -> None:
        self.back.extend(runs)

    def pump(self) -> None:
        pass

    def room(self) -> int:
        return self.left


def made(
    folder: Path, changed: Job | None = None, *, breaker: bool = True, name: str = "west"
) -> tuple[Lane, FakeOwner]:
    """A lane to a port where nobody listens."""
    settings = WorkerSettings(job=changed or job(), slot=0, run_id="r", token="t", socket=str(folder / "c"))
    owner = FakeOwner()
    lane = Lane(
        1, settings.job, (), settings, owner, name=name, weight=1.0, secrets=(), rng=random.Random(1),
        breaker=Breaker() if breaker else None,
    )  # fmt: skip
    return lane, owner


def begun(lane: Lane, row: int) -> RowRun:
    run = lane.executor.begin(1, RowLine(row, row, b'{"text": "hello"}'))
    assert isinstance(run, RowRun)
    return run


def on_loop(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await scene()

    asyncio.run(main())


def test_an_endpoint_that_is_not_there_is_left_alone_and_the_tally_says_why(tmp_path: Path) -> None:
    async def scene() -> None:
        lane, owner = made(tmp_path)
        lane.tune(8, Terms(-1), 0.0)
        for row in range(5):
            lane.engage(begun(lane, row))
        while len(owner.ended) < 5:
            await asyncio.sleep(0.01)
        assert lane.breaker is not None and lane.breaker.state is State.OPEN
        tally = lane.take_tally(0.0)
        assert (tally.requests, tally.cooldowns) == (5, 1)
        assert "nothing accepts connections there" in tally.trouble
        assert lane.take_tally(0.0).cooldowns == 0
        assert (lane.engaged, lane.in_flight) == (0, 0)
        await lane.close()

    on_loop(scene)


def test_what_waits_for_permits_can_be_called_back_in_its_order_and_told_to_go_elsewhere(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        lane, owner = made(tmp_path, job(rpm=60))
        lane.use_limiter(LimiterAddress(str(tmp_path / "l"), "t"))
        lane.tune(8, Terms(-1, Rates(60)), 0.0)
        for row in range(3):
            lane.engage(begun(lane, row))
        assert (lane.engaged, len(lane.queued), lane.in_flight) == (3, 3, 0)
        lane.call_back(avoid=5.0)
        assert {run.avoid_until for run in owner.back} == {5.0}
        assert [(run.row, run.avoid) for run in owner.back] == [(0, lane.bit), (1, lane.bit), (2, lane.bit)]
        assert (lane.engaged, len(lane.queued)) == (0, 0)
        lane.call_back()
        assert len(owner.back) == 3
        await lane.close()

    on_loop(scene)


def test_a_shut_gate_calls_back_and_leaves_no_room(tmp_path: Path) -> None:
    async def scene() -> None:
        lane, owner = made(tmp_path)
        assert not lane.has_room()  # until the coordinator says how many
        lane.use_limiter(LimiterAddress(str(tmp_path / "l"), "t"))
        lane.tune(8, Terms(2), 0.0)
        for row in range(2):
            assert lane.has_room()
            lane.engage(begun(lane, row))
        assert not lane.has_room()
        lane.tune(8, Terms(0), 0.0)
        assert len(owner.back) == 2
        assert lane.limit() == 0
        await lane.close()

    on_loop(scene)


def test_rows_that_wait_long_for_permits_are_known(tmp_path: Path) -> None:
    async def scene() -> None:
        lane, _ = made(tmp_path)
        lane.use_limiter(LimiterAddress(str(tmp_path / "l"), "t"))
        lane.tune(8, Terms(-1), 0.0)
        now = asyncio.get_running_loop().time()
        lane.tick(now, 0.05)
        assert lane.has_spared(now + 1e6)
        lane.engage(begun(lane, 1))
        assert not lane.waits_in_vain(now + 0.2)
        assert lane.waits_in_vain(now + 1.0)
        lane.tick(now + 2.0, 0.05)
        assert not lane.has_spared(now + 2.2)
        await lane.close()

    on_loop(scene)


def test_where_each_row_has_its_own_page_a_missing_one_says_nothing_of_the_endpoint(tmp_path: Path) -> None:
    async def scene() -> None:
        url = "http://127.0.0.1:9/{{ text }}"
        target = Target(provider="http", base_url=url)
        own = replace(job(target=target), step=StepSettings(kind="request", url=url))
        missing = Failure(ErrorKind.NOT_FOUND, "no such page", status=404)
        untrusted = Failure(ErrorKind.TLS, "another name")
        lane, _ = made(tmp_path, own)
        assert lane.health_of(missing) is Health.WELL
        assert lane.health_of(untrusted) is Health.OUT
        await lane.close()
        usual, _ = made(tmp_path)
        assert usual.health_of(missing) is Health.OUT
        await usual.close()

    on_loop(scene)


def test_where_rows_name_their_hosts_no_failure_says_anything_of_the_others_but_what_this_machine_lacks(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        target = Target(provider="http", base_url="{{ text }}", method="GET")
        own = replace(job(target=target, rpm=60), step=StepSettings(kind="request", url="{{ text }}"))
        lane, owner = made(tmp_path, own)
        lane.tune(8, Terms(-1, Rates(60)), 0.0)
        assert lane.is_roaming
        for kind in ErrorKind:
            for status in (0, 404, 429):
                failure = Failure(kind, "of one host", status=status)
                assert lane.health_of(failure) is Health.WELL
                assert lane._signal_of(failure) is Signal.NONE
        assert lane._signal_of(Failure(ErrorKind.CONNECT_REFUSED, f"{SHORTAGE}: 24")) is Signal.HOLD
        for row in range(12):
            run = lane.executor.begin(1, RowLine(row, row, b'{"text": "http://127.0.0.1:9/x"}'))
            assert isinstance(run, RowRun)
            lane.engage(run)
        while len(owner.ended) < 12:
            await asyncio.sleep(0.01)
        assert lane.breaker is not None and lane.breaker.state is State.CLOSED
        assert lane.limit() == 8
        await lane.close()

    on_loop(scene)


def test_a_rate_limit_of_one_rows_host_pauses_nobodys_quota_and_ends_its_row_in_bounded_time(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        told: list[object] = []
        for url, is_roaming in (("{{ text }}", True), ("http://127.0.0.1:9/{{ text }}", False)):
            target = Target(provider="http", base_url=url, method="GET")
            own = replace(job(target=target, rpm=60, retries=2), step=StepSettings(kind="request", url=url))
            lane, owner = made(tmp_path, own, breaker=False)
            lane.use_limiter(LimiterAddress(str(tmp_path / "l"), "t"))
            lane.tune(8, Terms(-1, Rates(60)), 0.0)
            told.clear()
            assert lane.limiter is not None
            lane.limiter.throttled = lambda *what: told.append(what)  # type: ignore[method-assign]
            lane.limiter.observed = lambda *what: bool(told.append(what))  # type: ignore[method-assign, func-returns-value]
            run = lane.executor.begin(1, RowLine(0, 0, b'{"text": "http://127.0.0.1:9/x"}'))
            assert isinstance(run, RowRun)
            ends = []
            for _ in range(6):
                lane.engaged += 1
                lane.in_flight += 1
                headers = {"x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "0"}
                lane._landed(run, Reply(429, headers, b"{}"), 0.0)
                ends.append(isinstance(owner.ended[-1][1], OutcomeLine))
            assert bool(told) is not is_roaming
            assert ends.index(True) == 2 if is_roaming else True not in ends
            await lane.close()

    on_loop(scene)


def test_a_row_that_moves_is_asked_in_the_new_endpoints_words_under_a_key_of_its_own(tmp_path: Path) -> None:
    async def scene() -> None:
        lane, _ = made(tmp_path)
        target = Target(provider="ollama", base_url="http://127.0.0.1:9", model="n")
        other, _ = made(tmp_path, job(target=target), name="east")
        run = begun(lane, 4)
        first_key, first_url = run.key, run.call.url
        assert other.executor.adopt(run) is None
        assert (run.call.url != first_url, b'"n"' in (run.call.body or b"")) == (True, True)
        assert run.key != first_key
        run.turn = 2  # it was asked another question there
        assert lane.executor.adopt(run) is None
        assert run.key == "r.west-4-3"
        assert lane.executor.adopt(begun(lane, 4)) is None
        await lane.close()
        await other.close()

    on_loop(scene)


def test_a_shut_gate_is_not_waited_for_for_ever_unless_the_run_is_paused(tmp_path: Path) -> None:
    async def scene() -> None:
        lane, _ = made(tmp_path)
        lane.tune(8, Terms(0), 10.0)
        assert not lane.is_well(10.0)  # other workers find out whether it serves
        assert lane.may_serve(69.0, 60.0) and not lane.may_serve(70.0, 60.0)
        lane.tune(8, Terms(0), 71.0, is_paused=True)
        assert lane.may_serve(1e6, 60.0)
        lane.tune(8, Terms(-1), 72.0)
        assert lane.is_well(72.0) and lane.may_serve(1e6, 60.0)
        await lane.close()

    on_loop(scene)


def test_what_was_never_sent_says_nothing_of_the_endpoint(tmp_path: Path) -> None:
    async def scene() -> None:
        lane, _ = made(tmp_path)
        assert lane.health_of(Failure(ErrorKind.BAD_REQUEST, "it cannot be sent")) is Health.NOTHING
        assert lane.health_of(Failure(ErrorKind.BAD_REQUEST, "no", status=400)) is Health.WELL
        await lane.close()

    on_loop(scene)


def test_batch_lines_with_a_wrong_model_of_their_own_say_nothing_of_the_endpoint(tmp_path: Path) -> None:
    async def scene() -> None:
        lane, _ = made(tmp_path, job(step=StepSettings(batch_lines=True)))
        assert lane.health_of(Failure(ErrorKind.NOT_FOUND, "no such model", status=404)) is Health.WELL
        assert lane.health_of(Failure(ErrorKind.UNAUTHORISED, "no", status=401)) is Health.OUT
        await lane.close()

    on_loop(scene)


def test_a_permit_that_comes_when_nothing_more_may_be_in_flight_is_spent_and_its_row_is_not(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        lane, owner = made(tmp_path)
        lane.use_limiter(LimiterAddress(str(tmp_path / "l"), "t"))
        lane.tune(8, Terms(-1), 0.0)
        for row in range(3):
            lane.engage(begun(lane, row))
        owner.left = 1
        lane._granted(2, 1)
        assert (lane.in_flight, lane.engaged, [run.row for run in owner.back]) == (1, 2, [1])
        await lane.close()

    on_loop(scene)
