"""``engine quota``: what it says of limiters that are not there, or do not answer."""

import json
import os
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.core.quota import Rates
from engine.limiter.registry import Info, Registry, boot_id, born
from engine.wire.messages import VERSION


def silent_limiter(folder: Path) -> None:
    """An entry whose limiter is alive, this process, and says nothing."""
    entry = Registry(str(folder)).entry("http://127.0.0.1:9", "m\x1b[2J", ())
    entry.make()
    entry.write(
        Info(
            pid=os.getpid(), born=born(os.getpid()), version=VERSION, origin="http://127.0.0.1:9", model="m\x1b[2J",
            boot=boot_id(), at=0.0, limits=Rates(5), limits_now=Rates(5), largest=1,
        )
    )  # fmt: skip


def test_without_limiters_there_is_nothing_to_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quota", "--limiter-dir", str(tmp_path / "l")]) == 0
    assert capsys.readouterr().out == "No quota is in use on this machine.\n"
    assert main(["quota", "--limiter-dir", str(tmp_path / "l"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_limiter_that_does_not_answer_is_shown_as_such_and_its_name_is_harmless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent_limiter(tmp_path)
    assert main(["quota", "--limiter-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "does not answer within 1 s" in out
    assert "\x1b" not in out
    assert main(["quota", "--limiter-dir", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["answers"], found["pid"]) == (False, os.getpid())
