"""Scripts that use the engine: what they do, they do once; their functions find in workers what they refer to."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def script(folder: Path, text: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """What running the script comes to."""
    (folder / "script.py").write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, *(arguments or ["script.py"])],
        cwd=folder, input=given, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


WRITES = """
import engine
{more}

def double(row):
    {waits}
    return row["n"] * 2

open("read.txt", "a").write("x")
try:
    with open("out.txt", "w", buffering=1) as out:
        out.write("header\\n")
        for result in engine.Pool(engine.call(double), [{{"n": n}} for n in range(5)], procs=2).stream():
            out.write(f"{{result.value}}\\n")
except:
    open("except.txt", "a").write("x")
    raise
finally:
    open("finally.txt", "a").write("x")
"""


def test_what_a_script_does_it_does_once(tmp_path: Path) -> None:
    done = script(tmp_path, WRITES.format(more="", waits=""))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted((tmp_path / "out.txt").read_text().split()) == ["0", "2", "4", "6", "8", "header"]
    assert (tmp_path / "read.txt").read_text() == (tmp_path / "finally.txt").read_text() == "x"
    assert not (tmp_path / "except.txt").exists()


def test_a_script_that_has_to_be_read_in_workers_is_kept_from_doing_it_once_more(tmp_path: Path) -> None:
    """Its function refers to a lock; the file that it appends to before is in the way, the one it writes around is not."""
    locked = WRITES.format(more="import threading\nLOCK = threading.Lock()", waits="LOCK.locked()")
    done = script(tmp_path, locked)
    assert done.returncode == 1
    assert "would do once more in every worker what it does in line 10: it opens read.txt" in done.stderr
    assert "run the pool again" not in done.stderr and "workers cannot start" in done.stderr
    assert (tmp_path / "out.txt").read_text() == "header\n"
    for name in ("read.txt", "except.txt", "finally.txt"):
        assert (tmp_path / name).read_text() == "x"
    done = script(tmp_path, locked.replace('open("read.txt", "a").write("x")', ""))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted((tmp_path / "out.txt").read_text().split()) == ["0", "2", "4", "6", "8", "header"]


STAGES = """
import os, sys
import engine

ROWS = [{"n": int(line)} for line in sys.stdin]
TEXT = open("text.txt").read()
os.chdir("/")

def first(row):
    return [row["n"] + len(ROWS), TEXT, os.getcwd()]

def second(row):
    return row["n"] * FACTOR

def nested(row):
    return [result.value for result in engine.map(second, [row], procs=1)]

found = engine.map(first, ROWS, procs=1)
print([result.value for result in found])
FACTOR = sum(result.value[0] for result in found)
print([result.value for result in engine.map(second, ROWS, procs=1)])

def main():
    global FACTOR
    FACTOR = 100
    print([result.value for result in engine.map(nested, ROWS[:1], procs=1)])
    del FACTOR
    print(engine.map(second, ROWS[:1], procs=1)[0].error)

if __name__ == "__main__":
    main()
"""


def test_functions_find_the_globals_of_their_script_as_they_are_then(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("words")
    done = script(tmp_path, STAGES, given="1\n2\n")
    assert (done.returncode, done.stderr) == (0, "")
    first, second, nested, missing = done.stdout.splitlines()
    assert first == "[[3, 'words', '/'], [4, 'words', '/']]"
    assert second == "[7, 14]"
    assert nested == "[[100]]"
    assert (
        "name 'FACTOR' is not defined. A worker has the names that there were when its Pool was made"
        in missing
    )


@pytest.mark.parametrize("more", ["", "import threading\nLOCK = threading.Lock()\n"], ids=["sent", "read"])
def test_a_script_of_a_package_that_has_no_init_file_runs_as_a_module(tmp_path: Path, more: str) -> None:
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "helper.py").write_text("def grow(n):\n    return n + 1\n")
    used = "LOCK.locked(), " if more else ""
    text = f"""
import engine
from .helper import grow
{more}
def f(row):
    from .helper import grow as same
    return [{used}grow(row["n"]), same(0)]
print(engine.map(f, [{{"n": 1}}], procs=1)[0].value)
"""
    (tmp_path / "space" / "main.py").write_text(text)
    done = script(tmp_path, "", "-m", "space.main")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == ("[False, 2, 1]" if more else "[2, 1]")


RESUMED = """
import engine, sys

BY = {by}

def f(row):
    open("calls.txt", "a").write("x")
    return row["n"] * BY{more}

print([result.value for result in engine.map(f, [{{"n": 1}}, {{"n": 2}}], procs=1, state="state")])
"""


def test_a_durable_run_knows_a_scripts_function_again_and_sees_that_it_changed(tmp_path: Path) -> None:
    first = script(tmp_path, RESUMED.format(by=3, more=""))
    again = script(tmp_path, "# moved\n" + RESUMED.format(by=3, more=""))
    assert first.stdout == again.stdout == "[3, 6]\n"
    assert (tmp_path / "calls.txt").read_text() == "xx"
    for changed in (RESUMED.format(by=4, more=""), RESUMED.format(by=3, more=" + 1")):
        refused = script(tmp_path, changed)
        assert refused.returncode == 1 and "had other steps; what differs: steps." in refused.stderr
    assert (tmp_path / "calls.txt").read_text() == "xx"


LOUD = """
import logging, sys, warnings
import engine

def loud(row):
    print("printed", row["n"])
    logging.warning("logged %d", row["n"])
    warnings.warn(f"warned {row['n']}")
    return 1

def flood(row):
    for _ in range(200_000):
        print("x" * 100)
    return 1

for mode in ("thread", "process"):
    engine.map(loud, [{"n": n} for n in range(20)], procs=2, mode=mode)
print([result.value for result in engine.map(flood, [{"n": n} for n in range(2)], procs=2)])
"""


def test_what_functions_print_log_and_warn_is_seen_and_no_flood_stops_the_run(tmp_path: Path) -> None:
    done = script(tmp_path, LOUD)
    assert (done.returncode, done.stdout) == (0, "[1, 1]\n")
    lines = done.stderr.splitlines()
    for what in ("printed {}", "WARNING:root:logged {}"):
        assert sorted(line for line in lines if line in {what.format(n) for n in range(20)}) == sorted(
            what.format(n) for n in range(20) for _ in range(2)
        )
    assert sum("UserWarning: warned" in line for line in lines) == 40
    assert any("bytes are left out" in line for line in lines)
    assert len(done.stderr) < 20_000_000
