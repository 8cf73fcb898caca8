"""Children on this machine."""

import os
from pathlib import Path

from engine.launchers.local import LocalLauncher


def test_a_forked_copy_of_this_process_does_not_keep_a_childs_standard_input_open(tmp_path: Path) -> None:
    (tmp_path / "reads.py").write_text("import sys\nsys.stdin.read()\n")
    launcher = LocalLauncher(tmp_path)
    launcher._environment["PYTHONPATH"] = str(tmp_path)
    child = launcher.start("reads", b"")
    go, wait = os.pipe()
    copy = os.fork()
    if copy == 0:
        os.close(wait)
        os.read(go, 1)  # until this process closes its end
        os._exit(0)
    try:
        child.let_go()
        assert child.wait(10.0) == 0
    finally:
        os.close(wait)
        os.close(go)
        os.waitpid(copy, 0)
