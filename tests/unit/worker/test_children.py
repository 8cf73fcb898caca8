"""Processes for functions: ones that cannot start, and ones whose worker is gone."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from elsewhere import elsewhere, settings

from engine.core.errors import ErrorKind
from engine.core.model import Failure
from engine.worker.children import Children

PARENT = """
import asyncio, sys
sys.path.insert(0, {support!r})
from elsewhere import settings
from engine.worker.children import Children

async def main():
    children = Children(settings("sample:hang", import_path=({folder!r},)), timeout_s=60, late=None, processes_max=1)
    children.start({{}}, print)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_a_child_that_does_not_find_the_function_costs_a_row_each_and_there_is_an_end_to_it() -> None:
    said = elsewhere("no_such_module:f", [{}, {}])
    assert (
        said
        == ["the function was not called: its process ended with exit code 2 before the function was found"]
        * 2
    )


def test_arguments_that_are_no_json_are_a_failure_and_not_sent() -> None:
    (said,) = elsewhere("json:dumps", [{"x": object()}])
    assert "Encoding objects of type object is unsupported" in said


def test_arguments_by_name_and_the_programs_own_arguments_are_there(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text("import sys\ndef f(a, b):\n    return [a, b, sys.argv]\n")
    (value,) = elsewhere("sample:f", [{"b": 1, "a": 2}], import_path=(str(tmp_path),), by_name=True)
    assert value == [2, 1, ["program", "--flag"]]


def test_a_start_that_takes_too_long_is_ended_and_costs_a_row(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text("import time\ntime.sleep(3600)\ndef f(row):\n    return 1\n")

    async def main() -> list[str]:
        ended: list[str] = []
        child = settings("sample:f", import_path=(str(tmp_path),))
        children = Children(
            child, timeout_s=60.0, late=lambda: Failure(ErrorKind.TIMEOUT, ""), processes_max=1
        )
        children.start({}, lambda result: ended.append(getattr(result, "message", "")))
        async with asyncio.timeout(20):
            while not any(one.transport for one in children._children):
                await asyncio.sleep(0.01)
        children.sweep(asyncio.get_running_loop().time() + 61.0)
        assert not children._children  # nothing waits that another one would be for
        await children.close()
        return ended

    assert asyncio.run(main()) == ["the function was not called: its process did not start in time"]


@pytest.mark.slow
def test_a_child_ends_with_its_worker_whatever_it_does(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text(
        "import pathlib, time\ndef hang(row):\n"
        f"    pathlib.Path({str(tmp_path)!r}, 'begun').write_text('x')\n    while True:\n        pass\n"
    )
    support = str(Path(__file__).parents[2] / "support")
    source = PARENT.format(support=support, folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", source]) as parent:
        until = time.monotonic() + 30
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
        parent.wait(10)
        child.wait(10)
        assert not child.is_running()
