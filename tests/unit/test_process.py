"""What a process of ours does to itself at its start."""

import subprocess
import sys
from pathlib import Path

import pytest

# The limit is raised again, so that the kernel dumps as it does for a program that it pipes to, limit or no limit.
CRASHING = """
import os, resource
from engine.launchers.process import dump_no_core
if {asked}:
    dump_no_core()
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
key = "yek-a-ton-si-siht"[::-1]
os.abort()
"""


def dumped(folder: Path, *, asked: bool) -> bytes:
    folder.mkdir()
    subprocess.run([sys.executable, "-c", CRASHING.format(asked=asked)], cwd=folder, check=False)
    return b"".join(path.read_bytes() for path in folder.glob("core*"))


@pytest.mark.slow
def test_a_dump_that_is_made_whatever_the_limit_says_holds_no_memory(tmp_path: Path) -> None:
    if b"this-is-not-a-key" not in dumped(tmp_path / "as_usual", asked=False):
        pytest.skip("this machine keeps its dumps elsewhere, or makes none")
    assert b"this-is-not-a-key" not in dumped(tmp_path / "asked", asked=True)
