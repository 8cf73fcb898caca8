"""Functions for many rows at once: on the loop, in threads, in processes; what hangs, what raises, what dies."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from elsewhere import told

from engine.core.errors import ErrorKind, UsageError
from engine.core.model import Failure, Reply
from engine.worker import functions as module
from engine.worker.functions import Functions

SOURCE = """
import asyncio, os, sys, threading, time

GO = threading.Event()
SEEN = []

async def nap(row):
    await asyncio.sleep(0.01)
    return row["x"] + 1

async def forever(row):
    SEEN.append("begun")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        SEEN.append("cancelled")
        raise

async def stubborn(row):
    while not GO.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass

class Later:
    async def __call__(self, row):
        return "later"

later = Later()

def plain(row):
    return [row["x"], threading.current_thread() is threading.main_thread()]

def named(x, y=2):
    return x + y

def lazily(row):
    return nap(row)

def hangs(row):
    if row["x"] < 0:
        GO.wait(60)
    return row["x"]

def raises(row):
    raise {"value": ValueError, "exit": SystemExit, "key": KeyboardInterrupt, "cancel": asyncio.CancelledError}[row["how"]]("so")

async def araises(row):
    raises(row)

def process(row):
    print("printed")
    if row.get("die"):
        os._exit(7)
    if row.get("hang"):
        time.sleep(60)
    return [row["x"], os.getpid(), sys.stdin.read()]

async def aprocess(row):
    return [row["x"], os.getpid(), ""]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    """Where the module ``sample`` is."""
    (tmp_path / "sample.py").write_text(SOURCE)
    path = list(sys.path)
    yield str(tmp_path)
    sys.path[:] = path
    found = sys.modules.pop("sample", None)
    if found is not None:
        found.GO.set()


class Calls:
    """The calls of one function, and what came of them."""

    def __init__(self, spec: str, folder: str, **settings: Any) -> None:
        self.functions = Functions(f"sample:{spec}", folder=folder, **settings)
        self.ended: dict[int, Any] = {}
        self.results: list[Reply | Failure] = []
        self._begun = 0

    @property
    def sample(self) -> Any:
        return sys.modules["sample"]

    def start(self, *rows: dict[str, Any]) -> None:
        for row in rows:
            self.functions.start(row, lambda result, number=self._begun: self._end(number, result))
            self._begun += 1

    def _end(self, number: int, result: Reply | Failure) -> None:
        assert number not in self.ended  # exactly once
        self.ended[number] = told(result)
        self.results.append(result)

    async def until(self, count: int) -> list[Any]:
        """What the first ``count`` calls came to, in the order they were started."""
        async with asyncio.timeout(30):
            while len(self.ended) < count:
                await asyncio.sleep(0.005)
        return [self.ended[number] for number in sorted(self.ended)]


def on_loop(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("spec", "mode", "values"),
    [
        ("nap", "", [2, 3]),
        ("nap", "loop", [2, 3]),
        ("later", "", ["later", "later"]),
        ("plain", "", [[1, False], [2, False]]),
        ("plain", "thread", [[1, False], [2, False]]),
        ("plain", "loop", [[1, True], [2, True]]),
        ("lazily", "", [2, 3]),
        ("lazily", "loop", [2, 3]),
    ],
)
def test_a_function_runs_where_it_fits_or_where_it_is_told_to(
    folder: str, spec: str, mode: str, values: list[Any]
) -> None:
    async def scene() -> None:
        calls = Calls(spec, folder, mode=mode)
        calls.start({"x": 1}, {"x": 2})
        assert calls.ended == {}  # never within start
        assert await calls.until(2) == values
        await calls.functions.close()

    on_loop(scene)


def test_arguments_go_by_name_where_the_step_takes_them_so(folder: str) -> None:
    async def scene() -> None:
        calls = Calls("named", folder, by_name=True)
        calls.start({"x": 1}, {"x": 1, "y": 5}, {"z": 1})
        first, second, third = await calls.until(3)
        assert (first, second) == (3, 6)
        assert third.startswith("TypeError: named() got an unexpected keyword argument 'z'")
        await calls.functions.close()

    on_loop(scene)


@pytest.mark.parametrize("spec", ["raises", "araises"])
def test_whatever_a_function_raises_ends_its_row_and_not_the_worker(folder: str, spec: str) -> None:
    async def scene() -> None:
        calls = Calls(spec, folder)
        calls.start(*({"how": how} for how in ("value", "exit", "key", "cancel")))
        says = await calls.until(4)
        assert says == ["ValueError: so", "SystemExit: so", "KeyboardInterrupt: so", "CancelledError: so"]
        for result in calls.results:
            assert isinstance(result, Failure) and result.kind is ErrorKind.FUNCTION_ERROR
            assert "in raises" in result.trace and "engine/worker" not in result.trace
        await calls.functions.close()

    on_loop(scene)


def test_an_async_function_that_takes_too_long_is_cancelled(folder: str) -> None:
    async def scene() -> None:
        calls = Calls("forever", folder, timeout_s=100.0)
        calls.start({}, {})
        await asyncio.sleep(0.01)
        now = asyncio.get_running_loop().time()
        calls.functions.sweep(now + 99.0)
        assert calls.ended == {}
        calls.functions.sweep(now + 101.0)
        assert await calls.until(2) == ["the function took longer than 100 s; it was cancelled"] * 2
        assert calls.functions.abandoned == 2  # until they have noticed
        await asyncio.sleep(0.01)
        assert calls.sample.SEEN == ["begun", "begun", "cancelled", "cancelled"]
        assert calls.functions.abandoned == 0
        assert all(isinstance(one, Failure) and one.kind is ErrorKind.TIMEOUT for one in calls.results)
        await calls.functions.close()

    on_loop(scene)


def test_one_that_does_not_heed_it_is_counted_until_it_ends_and_its_result_is_dropped(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        monkeypatch.setattr(module, "ABANDONED_TASKS_MAX", 2)
        calls = Calls("stubborn", folder, timeout_s=1.0)
        calls.start({}, {})
        await asyncio.sleep(0.03)
        calls.functions.sweep(asyncio.get_running_loop().time() + 2.0)
        await asyncio.sleep(0.03)
        assert len(await calls.until(2)) == 2 and calls.functions.abandoned == 2
        assert calls.functions.is_worn
        calls.sample.GO.set()
        await asyncio.sleep(0.05)
        assert calls.functions.abandoned == 0 and len(calls.ended) == 2 and not calls.functions.is_worn
        await calls.functions.close()

    on_loop(scene)


def test_a_thread_that_hangs_is_abandoned_and_another_takes_its_place(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        monkeypatch.setattr(module, "ABANDONED_MAX", 2)
        calls = Calls("hangs", folder, timeout_s=0.05, threads_max=2)
        calls.start({"x": -1}, {"x": -2}, {"x": 3})
        while len(calls.ended) < 3:
            await asyncio.sleep(0.02)
            calls.functions.sweep(asyncio.get_running_loop().time())
        first, second, third = await calls.until(3)
        late = "the function took longer than 0.05 s; its thread goes on, and what it returns will be dropped"
        assert (first, second, third) == (late, late, 3)
        assert calls.functions.abandoned == 2 and calls.functions.is_worn
        calls.sample.GO.set()
        while calls.functions.abandoned:
            await asyncio.sleep(0.01)
        assert len(calls.ended) == 3
        await calls.functions.close()

    on_loop(scene)


def test_many_calls_in_threads_all_come_back_once(folder: str) -> None:
    async def scene() -> None:
        calls = Calls("named", folder, by_name=True)
        calls.start(*({"x": number} for number in range(2_000)))
        assert await calls.until(2_000) == [number + 2 for number in range(2_000)]
        assert calls.functions.width == 64
        await calls.functions.close()

    on_loop(scene)


def test_processes_run_functions_side_by_side_and_what_they_print_or_read_harms_nothing(folder: str) -> None:
    async def scene() -> None:
        calls = Calls("process", folder, mode="process", processes_max=2, surroundings=home(folder))
        calls.start({"x": 1}, {"x": 2}, {"x": "long " * 100_000})
        first, second, third = await calls.until(3)
        assert (first[0], second[0], third[0]) == (1, 2, "long " * 100_000)
        pids = {first[1], second[1], third[1]}
        assert os.getpid() not in pids and len(pids) <= 2
        assert first[2] == ""
        assert calls.functions.width == 4
        await calls.functions.close()
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    on_loop(scene)


def test_a_process_that_dies_or_hangs_costs_its_own_row_only(folder: str) -> None:
    async def scene() -> None:
        before = set(psutil.Process().children())
        calls = Calls(
            "process", folder, mode="process", processes_max=1, surroundings=home(folder), timeout_s=5.0
        )
        calls.start({"x": 1, "die": True}, {"x": 2}, {"x": 3, "hang": True}, {"x": 4})
        first, second = await calls.until(2)
        assert first == "the function's process ended with exit code 7 while it ran"
        assert second[0] == 2
        await asyncio.sleep(0.05)
        (hanging,) = set(psutil.Process().children()) - before
        calls.functions.sweep(asyncio.get_running_loop().time() + 6.0)
        _, _, third, fourth = await calls.until(4)
        assert third == "the function took longer than 5 s; its process was ended"
        assert fourth[0] == 4
        await calls.functions.close()
        assert not hanging.is_running()

    on_loop(scene)


def test_an_async_function_may_have_a_process_too(folder: str) -> None:
    async def scene() -> None:
        calls = Calls("aprocess", folder, mode="process", processes_max=1, surroundings=home(folder))
        calls.start({"x": 1})
        ((x, pid, _),) = await calls.until(1)
        assert x == 1 and pid != os.getpid()
        await calls.functions.close()

    on_loop(scene)


def home(folder: str) -> Any:
    return module.Surroundings(import_path=(folder, *sys.path))


def test_a_thread_for_an_async_function_is_refused(folder: str) -> None:
    async def scene() -> None:
        with pytest.raises(UsageError, match="sample:nap is async: it runs on the worker's loop"):
            Calls("nap", folder, mode="thread")

    on_loop(scene)


def test_what_still_runs_at_the_end_is_let_go_and_never_told(folder: str) -> None:
    async def scene() -> None:
        calls, others = Calls("forever", folder), Calls("hangs", folder)
        calls.start({}, {})
        others.start({"x": -1})
        await asyncio.sleep(0.01)
        began = time.monotonic()
        await calls.functions.close()
        await others.functions.close()
        assert time.monotonic() - began < 1.0
        assert calls.sample.SEEN.count("cancelled") == 2
        others.sample.GO.set()
        await asyncio.sleep(0.02)
        assert calls.ended == others.ended == {}

    on_loop(scene)
    assert threading.active_count() < 50
