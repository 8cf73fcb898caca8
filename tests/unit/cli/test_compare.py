"""``engine compare``: its table, its sentence, its JSON and its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from modelled import Endpoint, run

from engine.cli.main import main


def written(path: Path, scale: float, seed: int, **more: Any) -> str:
    endpoint = Endpoint(200, lambda draw: scale * draw.lognormvariate(-2.0, 0.3))
    path.write_text(json.dumps(run(endpoint, 60.0, 60.0, seed, streamed=True).results() | more))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "old": written(tmp_path / "old.json", 1.0, 1),
        "same": written(tmp_path / "same.json", 1.0, 2),
        "slow": written(tmp_path / "slow.json", 1.3, 3),
        "limited": written(tmp_path / "limited.json", 1.0, 4, verdict="CLIENT-LIMITED", reasons=["Late."]),
    }


def test_nothing_worse_is_exit_0_and_something_worse_99(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", files["old"], files["same"]]) == 0
    assert "no change" in capsys.readouterr().out.splitlines()[-1]
    assert main(["compare", files["old"], files["slow"]]) == 99
    last = capsys.readouterr().out.splitlines()[-1]
    assert "worse (latency.p50" in last and "slow.json against" in last
    assert main(["compare", files["slow"], files["old"]]) == 0
    assert main(["compare", files["old"], files["same"], files["slow"]]) == 99


def test_a_table_of_three_comparisons_fits_a_terminal(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(files["old"]).parent)
    main(["compare", "old.json", "same.json", "slow.json", "limited.json"])
    lines = capsys.readouterr().out.splitlines()
    rows = [
        line
        for line in lines
        if line.startswith(("metric", "latency", "ttft", "error", "output", "response"))
    ]
    assert len(rows) > 30 and max(len(row) for row in rows) <= 80
    assert [line.split()[0] for line in lines if line.startswith("metric")] == ["metric"] * 3


def test_a_side_that_is_not_valid_is_99_and_says_that_nothing_can_be_concluded(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", files["old"], files["limited"]]) == 99
    out = capsys.readouterr().out
    assert "nothing can be concluded: the other is CLIENT-LIMITED (Late)" in out
    assert "no change" not in out
    assert main(["compare", files["limited"], files["old"]]) == 99


def test_as_json_every_metric_has_both_figures_the_interval_and_the_verdict(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", files["old"], files["slow"], "--json", "--matters", "0.1"]) == 99
    found = json.loads(capsys.readouterr().out)
    assert (found["baseline"], found["matters"], found["confidence"]) == (files["old"], 0.1, 0.99)
    (one,) = found["comparisons"]
    assert one["worse"] and one["concluded"] and one["file"] == files["slow"]
    (median,) = (line for line in one["metrics"] if line["metric"] == "latency.p50")
    assert median["change"] == "worse" and median["low"] < median["difference"] < median["high"]
    assert median["new"] - median["old"] == pytest.approx(median["difference"])
    assert median["relative"] == pytest.approx(0.3, abs=0.05)


def test_wrong_use_is_exit_2_with_a_sentence(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "run.json"
    other.write_text('{"rows": 3}')
    for arguments in (
        [files["old"]],
        [files["old"], str(tmp_path / "nowhere.json")],
        [files["old"], str(tmp_path)],
        [files["old"], str(other)],
        [files["old"], "a\0b"],
        [files["old"], files["same"], "--matters", "much"],
        [files["old"], files["same"], "--matters", "5ms"],
        [files["old"], files["same"], "--matters", "-1%"],
    ):
        assert main(["compare", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert said.strip() and "Traceback" not in said


def test_names_and_reasons_of_a_file_cannot_move_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = written(tmp_path / "a\x1b[2J.json", 1.0, 1, verdict="INVALID", reasons=["\x1b[2J\x07"])
    new = written(tmp_path / "b.json", 1.0, 2, test={"\x1b[2J": 1})
    assert main(["compare", old, new]) == 99
    assert "\x1b" not in capsys.readouterr().out
