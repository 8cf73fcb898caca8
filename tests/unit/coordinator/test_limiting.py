"""A run's place at its limiter, on a clock of the test's own, with limiters that only pretend."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.coordinator import limiting as module
from engine.coordinator.limiting import Declared, Limiting
from engine.coordinator.supervise import backoff_s
from engine.core.errors import CannotStart
from engine.core.quota import NO_RATES, Memory, Rates
from engine.limiter.registry import Entry, Info, boot_id, born
from engine.wire.messages import VERSION, Bound, Bounds, Gauge

LIVES = os.getppid()  # a process that lives and is not this one


class FakeProcess:
    def __init__(self, code: int | None) -> None:
        self.pid = LIVES
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def last_words(self) -> str:
        return "no room for a socket" if self.code == 1 else ""

    def wait(self, timeout_s: float) -> int | None:
        return self.code

    def close(self) -> None:
        pass

    def disown(self) -> None:
        pass


class FakeLauncher:
    """Remembers what limiters were told; those of ``born_dead`` end at once."""

    lines: list[dict[str, Any]]
    processes: list[FakeProcess]
    born_dead = False

    def __init__(self, folder: Path, hide: object = ()) -> None:
        self.lines, self.processes = [], []

    def start(self, module: str, line: bytes, *, detached: bool) -> FakeProcess:
        assert (module, detached) == ("engine.limiter", True)
        self.lines.append(json.loads(line))
        self.processes.append(FakeProcess(1 if self.born_dead else None))
        return self.processes[-1]


class Stage:
    def __init__(self, entry: Entry, rpm: int = 6_000, tpm: int = 0) -> None:
        self.notes: list[str] = []
        self.changes = 0
        self.now = 0.0
        self.limiting = Limiting(
            entry,
            Declared(Rates(rpm, tpm), 1.0),
            pid=os.getpid(),
            label="the test",
            origin="http://h",
            model="m",
            hide=[],
            backoff_s=backoff_s,
            note=self.notes.append,
            on_change=self.changed,
        )
        self.launcher: FakeLauncher = self.limiting._launcher  # type: ignore[assignment]

    def changed(self) -> None:
        self.changes += 1

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.limiting.tick(self.now)

    def hear(self, *bounds: Bound, largest: int = 0) -> None:
        self.limiting._heard(Gauge(0, 0, 0, 0.0, 0, largest, Bounds(*bounds)))


@pytest.fixture
def entry(limiter_dir: Path) -> Entry:
    made = Entry(limiter_dir / "q")
    made.make()
    return made


def on_stage(
    scene: Callable[[Stage], None], entry: Entry, monkeypatch: pytest.MonkeyPatch, **limits: int
) -> None:
    monkeypatch.setattr(module, "LocalLauncher", FakeLauncher)

    async def run() -> None:
        stage = Stage(entry, **limits)
        try:
            scene(stage)
        finally:
            stage.limiting.leave()
            stage.limiting.bury()

    asyncio.run(run())


def info(**changes: Any) -> Info:
    return Info(
        **{
            "pid": LIVES, "born": born(LIVES), "version": VERSION, "origin": "", "model": "", "boot": boot_id(),
            "at": time.monotonic(), **changes,
        }
    )  # fmt: skip


def test_the_first_run_starts_a_limiter_and_the_next_one_uses_it(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(stage: Stage) -> None:
        stage.pass_time(2)
        (line,) = stage.launcher.lines
        assert (line["limits"], line["largest"], line["memory"]) == ([6_000, 0, 0, 0], 0, None)
        assert entry.runs() == {os.getpid()}
        assert "token" not in line

    on_stage(first, entry, monkeypatch)
    assert entry.runs() == set()

    def second(stage: Stage) -> None:
        stage.pass_time(2)
        assert stage.launcher.lines == []
        assert stage.limiting.is_used

    on_stage(second, entry, monkeypatch)


def test_a_run_without_limits_joins_a_limiter_that_others_have_and_starts_none(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        stage.pass_time(3)
        assert (stage.launcher.lines, stage.limiting.is_used, stage.changes) == ([], False, 0)
        entry.write(info())
        stage.pass_time(1.2)
        assert stage.limiting.is_used
        assert stage.changes == 1

    on_stage(scene, entry, monkeypatch, rpm=0)


def test_a_run_without_limits_replaces_the_limiter_that_its_workers_wait_for(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever had it may be gone: workers that were told to ask it would wait for ever."""
    entry.write(info(limits=Rates(rpm=40), limits_now=Rates(rpm=40)))

    def scene(stage: Stage) -> None:
        stage.pass_time(2)
        assert stage.limiting.is_used and stage.launcher.lines == []
        monkeypatch.setattr(Entry, "is_alive", lambda self, one: False)
        stage.pass_time(2)
        assert stage.limiting.is_used
        (line,) = stage.launcher.lines
        assert line["limits"] == [40, 0, 0, 0]

    on_stage(scene, entry, monkeypatch, rpm=0)


def test_who_replaces_a_dead_limiter_tells_the_next_one_what_it_may_have_granted(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.write(info(born=0.5, limits=Rates(9_000), limits_now=Rates(600, 5_000), largest=1_024))

    def scene(stage: Stage) -> None:
        stage.pass_time(0.5)
        (line,) = stage.launcher.lines
        told = {name: line[name] for name in ("limits", "limits_now", "largest")}
        assert told == {"limits": [9_000, 0, 0, 0], "limits_now": [600, 5_000, 0, 0], "largest": 1_024}

    on_stage(scene, entry, monkeypatch)


def test_a_limiter_that_died_long_ago_granted_nothing_lately(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.write(info(born=0.5, at=time.monotonic() - 100, limits=Rates(9_000), largest=1_024))

    def scene(stage: Stage) -> None:
        stage.pass_time(0.5)
        assert stage.launcher.lines[0]["largest"] == 0

    on_stage(scene, entry, monkeypatch)


def test_what_one_that_ended_in_peace_remembered_is_handed_on_once(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.leave(Memory([(5, 40)], [], [], [], 7, 0.0))

    def scene(stage: Stage) -> None:
        stage.pass_time(0.5)
        (line,) = stage.launcher.lines
        assert line["memory"] == [[[5, 40]], [], [], [], 7, 0.0]
        assert line["largest"] == 0
        assert entry.left() is None

    on_stage(scene, entry, monkeypatch)


def test_one_that_cannot_run_is_restarted_ever_more_slowly_and_then_ends_the_run(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeLauncher, "born_dead", True)

    def scene(stage: Stage) -> None:
        stage.pass_time(1.0)
        assert 2 <= len(stage.launcher.lines) <= 5
        assert not stage.limiting.hopeless
        # What another process wrote is not alive either: this test's limiters are all the same dead one.
        stage.pass_time(60)
        assert "cannot be kept running: no room for a socket" in stage.limiting.hopeless

    entry.write(info(born=0.5))
    monkeypatch.setattr(module, "born", lambda pid: 0.5)
    on_stage(scene, entry, monkeypatch)


def test_one_that_dies_now_and_then_is_restarted_at_once_each_time(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        stage.pass_time(1)
        for count in range(2, 14):
            stage.pass_time(40)
            entry.write(info(born=0.5))
            stage.launcher.processes[-1].code = -9
            stage.pass_time(0.7)
            assert len(stage.launcher.lines) == count
        assert not stage.limiting.hopeless
        assert "signal 9" in stage.notes[0]
        assert "nothing is sent until then" in stage.notes[0]

    on_stage(scene, entry, monkeypatch)


def test_one_of_another_version_is_not_spoken_to(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    entry.write(info(version=VERSION + 1))

    def scene(stage: Stage) -> None:
        with pytest.raises(CannotStart, match="Another version"):
            stage.pass_time(0.5)

    on_stage(scene, entry, monkeypatch)


def test_a_system_that_starts_no_processes_is_tried_again_and_then_ends_the_run(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: FakeLauncher, *arguments: object, **options: object) -> FakeProcess:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(FakeLauncher, "start", refused)

    def scene(stage: Stage) -> None:
        stage.pass_time(0.5)
        assert not stage.limiting.hopeless
        stage.pass_time(60)
        assert "temporarily unavailable" in stage.limiting.hopeless

    on_stage(scene, entry, monkeypatch)


def test_an_endpoint_that_names_no_limits_to_learn_is_noticed(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        stage.limiting._declared = Declared(NO_RATES, 1.0, learns=True)
        assert stage.limiting.is_used
        stage.pass_time(0.5)
        stage.hear(Bound())
        assert stage.limiting.has_learnt_nothing
        stage.hear(Bound(600, endpoint=600))
        assert not stage.limiting.has_learnt_nothing
        assert "the endpoint allows 600 RPM" in stage.notes[0]

    on_stage(scene, entry, monkeypatch, rpm=0)


def test_a_limit_of_the_endpoint_that_drifts_is_not_told_again_and_again(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        stage.pass_time(0.5)
        for limit in range(1_000, 1_090, 10):
            stage.hear(Bound(limit, 6_000, "the test", 6_000, "the test", limit))
        assert len(stage.notes) == 1
        assert stage.limiting.rates == Rates(1_080)
        stage.hear(Bound(500, 6_000, "the test", 6_000, "the test", 500))
        assert "500 RPM" in stage.notes[1]

    on_stage(scene, entry, monkeypatch)


def test_while_another_run_starts_one_this_one_waits_for_it(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        with Entry(entry.path).locked():
            stage.pass_time(1)
            assert stage.launcher.lines == []
            assert not stage.notes
        stage.pass_time(0.2)
        assert len(stage.launcher.lines) == 1

    on_stage(scene, entry, monkeypatch)


def test_the_limits_that_hold_are_the_limiters_and_a_change_is_passed_on(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        assert stage.limiting.rates == Rates(6_000)
        stage.pass_time(0.5)
        changes = stage.changes
        stage.hear(Bound(6_000, 6_000, "the test", 6_000, "the test"), largest=7)
        assert (stage.changes, stage.notes, stage.limiting.largest) == (changes, [], 7)
        stage.hear(Bound(600, 600, "run B", 6_000, "the test"), Bound(50, 50, "run B", 50, "run B"))
        assert (stage.limiting.rates, stage.changes) == (Rates(600, 50), changes + 1)
        assert "6,000 RPM" in stage.notes[0] and "run B declares 600" in stage.notes[0]
        assert "run B declares 50 TPM" in stage.notes[1]
        stage.hear(Bound(6_000, 6_000, "the test", 9_000, "run C"))
        assert "6,000 RPM hold again" in stage.notes[2]
        assert len(stage.notes) == 3

    on_stage(scene, entry, monkeypatch)
