"""Children that die, hang or never come up, on a clock of the test's own; and how work is divided over them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import job

from engine.config import StepPlan, StepSettings
from engine.coordinator import supervise
from engine.coordinator.supervise import Child, Supervisor, backoff_s, shares
from engine.core.errors import ExitCode, UsageError


class FakeProcess:
    """A child that does as the test says."""

    def __init__(self, pid: int, code: int | None) -> None:
        self.pid = pid
        self.code = code
        self.closed = False

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.code = -9

    def last_words(self) -> str:
        return "a traceback\nImportError: no uvloop"

    def close(self) -> None:
        self.closed = True


class FakeLauncher:
    """Starts fake children; ``born_dead`` names modules whose children end at once."""

    def __init__(self, folder: Path, hide: object = ()) -> None:
        self.started: list[tuple[str, FakeProcess]] = []
        self.born_dead: set[str] = set()
        self.code = 1  # of those
        self.fails = False

    def start(self, module: str, line: bytes) -> FakeProcess:
        if self.fails:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        process = FakeProcess(1000 + len(self.started), self.code if module in self.born_dead else None)
        self.started.append((module, process))
        return process

    def of(self, module: str) -> list[FakeProcess]:
        return [process for name, process in self.started if name == module]


class FakeLimiting:
    """A limiter that nothing ever happens to."""

    def __init__(self) -> None:
        self.hopeless = ""
        self.is_used = True
        self.socket = Path("l")
        self.token = "t"
        self.largest = 500
        self.declared: list[dict[str, int]] = []

    def tick(self, now: float) -> None:
        pass

    def leave(self) -> None:
        pass

    def close(self) -> None:
        pass

    def declare(self, limits: dict[str, int]) -> None:
        self.declared.append(limits)


class Stage:
    """A supervisor among fakes."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.deaths: list[str] = []
        self.notes: list[str] = []
        self.supervisor = Supervisor(
            job(**changes),
            (),
            "run",
            folder,
            pid=1,
            limitings=[FakeLimiting()],  # type: ignore[list-item]
            on_death=lambda child, how: self.deaths.append(how),
            note=self.notes.append,
        )
        self.launcher: FakeLauncher = self.supervisor._launcher  # type: ignore[assignment]
        self.now = 0.0

    def pass_time(self, seconds: float) -> None:
        """Ticks a tenth of a second apart."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.supervisor.tick(self.now)

    def greet(self) -> None:
        for child in self.supervisor.children:
            if child.process is not None and not child.peer:
                self.supervisor.greeted(child, b"peer%d" % child.key, self.now)


def on_stage(
    scene: Callable[[Stage], None], folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> None:
    monkeypatch.setattr(supervise, "LocalLauncher", FakeLauncher)

    async def run() -> None:
        scene(Stage(folder, **changes))

    asyncio.run(run())


def test_workers_that_never_come_up_end_the_run_instead_of_being_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        stage.launcher.born_dead = {"engine.worker"}
        stage.pass_time(60)
        assert "cannot start" in stage.supervisor.hopeless
        assert "no uvloop" in stage.supervisor.hopeless

    on_stage(scene, tmp_path, monkeypatch)


def test_a_worker_that_is_told_what_cannot_work_ends_the_run_at_once_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        stage.launcher.born_dead, stage.launcher.code = {"engine.worker"}, ExitCode.USAGE
        stage.pass_time(0.5)
        assert stage.supervisor.hopeless == "workers cannot start: ImportError: no uvloop"

    on_stage(scene, tmp_path, monkeypatch)


def test_a_system_that_starts_no_processes_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        stage.launcher.fails = True
        stage.pass_time(60)
        assert "temporarily unavailable" in stage.supervisor.hopeless

    on_stage(scene, tmp_path, monkeypatch)


def test_a_dead_worker_is_replaced_after_a_back_off_under_a_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        stage.pass_time(2)
        stage.greet()
        first = stage.supervisor.children[0]
        key = first.key
        stage.launcher.of("engine.worker")[0].code = -9
        stage.pass_time(0.1)
        assert first.process is None
        assert "signal 9" in stage.deaths[0]
        stage.pass_time(1)
        assert first.process is not None and first.key > key and first.peer == b""
        assert not stage.supervisor.hopeless

    on_stage(scene, tmp_path, monkeypatch)


def test_twenty_deaths_within_a_minute_end_the_run_and_the_same_over_an_hour_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage, apart_s: float) -> None:
        for _ in range(25):
            stage.pass_time(apart_s)
            stage.greet()
            for process in stage.launcher.of("engine.worker"):
                if process.code is None:
                    process.code = -11
                    break
            stage.pass_time(0.1)

    def often(stage: Stage) -> None:
        scene(stage, 1.0)
        assert "keep dying" in stage.supervisor.hopeless

    def seldom(stage: Stage) -> None:
        scene(stage, 100.0)
        assert not stage.supervisor.hopeless

    # Fakes do not beat: silence is not the matter here.
    monkeypatch.setattr(supervise, "SILENT_S", 1e9)
    on_stage(often, tmp_path, monkeypatch, procs=4)
    on_stage(seldom, tmp_path, monkeypatch, procs=4)


@pytest.mark.parametrize(("said_hello", "after_s"), [(True, 20.0), (False, 60.0)])
def test_a_worker_that_hangs_is_replaced_also_before_it_ever_said_hello(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said_hello: bool, after_s: float
) -> None:
    def scene(stage: Stage) -> None:
        stage.pass_time(0.1)
        hung = stage.launcher.of("engine.worker")[0]
        if said_hello:
            stage.greet()
        stage.pass_time(after_s - 0.5)
        assert hung.code is None
        stage.pass_time(1.0)
        assert hung.code == -9
        assert hung.closed
        assert len([note for note in stage.notes if "silent" in note]) == 1

    on_stage(scene, tmp_path, monkeypatch, procs=1)


CALL = StepSettings(kind="call", function="sample:spin")


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (CALL, "sample:spin"),
        (replace(CALL, function="pickled:spin-0a1b", mode="loop"), "if it was spin, give"),
        (replace(CALL, function="script:/a/script.py:Some.spin"), "if it was Some.spin, give"),
        (replace(CALL, mode="process"), ""),
        (StepSettings(prompt="{{ text }}"), ""),
    ],
)
def test_of_a_silent_worker_it_is_said_which_function_may_hold_it_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: StepSettings, named: str
) -> None:
    def scene(stage: Stage) -> None:
        stage.pass_time(0.1)
        stage.greet()
        stage.pass_time(21.0)
        (note,) = [note for note in stage.notes if "silent" in note]
        assert note.startswith("worker 0 has been silent for 20 s; it is replaced")
        assert named in note
        assert ('mode = "process" (in Python mode="process")' in note) == bool(named)

    plans = (StepPlan("ask", job().step, job().target), StepPlan("spin", step, job().target))
    on_stage(scene, tmp_path, monkeypatch, procs=1, steps=plans)


def test_a_worker_that_was_silent_is_known_as_such_until_its_successor_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scene(stage: Stage) -> None:
        known: list[bool] = []
        child = stage.supervisor.children[0]
        stage.supervisor._on_death = lambda child, how: known.append(child.was_silent)
        stage.pass_time(0.1)
        stage.greet()
        stage.pass_time(25.0)
        stage.greet()
        assert child.process is not None
        child.process.kill()
        stage.pass_time(0.2)
        assert known == [True, False]

    on_stage(scene, tmp_path, monkeypatch, procs=1)


def test_a_token_limit_below_a_call_that_was_sent_already_is_refused(tmp_path: Path) -> None:
    supervisor = Stage(tmp_path).supervisor
    with pytest.raises(UsageError, match="cost 500 tokens"):
        supervisor.check_limits({"tpm": 499})
    supervisor.set_limits({"rpm": 10, "tpm": 500})
    assert supervisor.limitings[0].declared == [{"rpm": 10, "tpm": 500}]  # type: ignore[attr-defined]


def test_a_limiter_that_cannot_be_kept_running_ends_the_run(tmp_path: Path) -> None:
    supervisor = Stage(tmp_path).supervisor
    supervisor.limitings[0].hopeless = "the limiter cannot be kept running"
    supervisor._stopping = False
    supervisor.children.clear()
    supervisor.tick(0.0)
    assert "limiter" in supervisor.hopeless


def test_a_back_off_grows_and_stays_bounded() -> None:
    waits = [backoff_s(failures) for failures in range(1, 2000)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.1, 5.0)


def test_a_workers_slot_is_known_by_its_socket_while_it_is_the_present_one(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    child: Child = stage.supervisor.children[0]
    assert stage.supervisor.child_of(b"") is None
    stage.supervisor.greeted(child, b"one", 0.0)
    assert stage.supervisor.child_of(b"one") is child


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 32))
def test_the_shares_of_all_workers_add_up_to_the_limit_and_nobody_has_none(
    in_flight: int, procs: int, gate: int
) -> None:
    parts = shares(in_flight, procs, gate)
    assert len(parts) == min(procs, in_flight)
    assert sum(share for share, _ in parts) == in_flight
    assert sum(gated for _, gated in parts) == gate
    assert min(share for share, _ in parts) >= 1
    assert max(share for share, _ in parts) - min(share for share, _ in parts) <= 1


def test_before_the_first_answer_sixteen_calls_may_be_under_way() -> None:
    for procs in (1, 7, 16, 40):
        assert sum(gate for _, gate in shares(4096, procs)) == 16
