"""However a program is started, workers find its functions, and it runs once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packages import needs_package

pytestmark = pytest.mark.slow

PROGRAM = """
import engine
from engine import Pool, call

ADDED = 3

def plus(row):
    return row["n"] + ADDED

steps = [call(plus, into="a"), call(lambda row: row["n"] * ADDED, into="b"), call(plus, into="c", mode="process")]
print([list(result.value.values()) for result in Pool(steps, [{"n": 1}, {"n": 2}], procs=1).run()])
"""
MODULE = PROGRAM.replace("ADDED = 3", "from .helper import ADDED")
DOCTEST = """
>>> import engine
>>> factor = 3
>>> def times(row):
...     return above(row["n"]) * factor
>>> [result.value for result in engine.map(times, [{"n": 1}, {"n": 2}], procs=1)]
[6, 9]
"""


def started(folder: Path, *arguments: str, text: str = "") -> str:
    """What a program prints; it says nothing else, and ends well."""
    own = {"IPYTHONDIR": str(folder / "ipython")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        input=text,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_on_standard_input(tmp_path: Path) -> None:
    assert started(tmp_path, "-", text=PROGRAM) == "[[4, 3, 4], [5, 6, 5]]"


def test_as_a_module_of_a_package(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("ADDED = 3\n")
    (package / "module.py").write_text(MODULE)
    assert started(tmp_path, "-m", "package.module") == "[[4, 3, 4], [5, 6, 5]]"


def test_in_ipython(tmp_path: Path) -> None:
    needs_package("IPython")
    assert started(tmp_path, "-m", "IPython", "-c", PROGRAM) == "[[4, 3, 4], [5, 6, 5]]"


def test_in_the_examples_of_a_docstring(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(f'"""{DOCTEST}"""\n\ndef above(n):\n    return n + 1\n')
    assert started(tmp_path, "-m", "doctest", "module.py") == ""
