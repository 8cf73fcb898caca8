"""What the program says and returns when it is used wrongly, and that help helps."""

from pathlib import Path

import pytest

from engine.cli.main import main

COMMANDS = ["run", "status", "export", "retry", "load", "ctl", "compare", "mock", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert f"engine {command}" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["run"],
        ["run", "in", "-o", "out", "--nope"],
        ["status"],
        ["status", "nothing"],
        ["retry", "nothing"],
    ],
)
def test_wrong_use_is_exit_2_with_a_sentence_and_no_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.strip()
    assert "Traceback" not in shown


def test_explain_shows_each_setting_and_its_origin_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("ENGINE_RPM", "77")
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n')
    flags = ["--model", "m", "--prompt", "{{ text }}", "--explain"]
    assert main(["run", str(source), "-o", str(tmp_path / "out.jsonl"), *flags]) == 0
    shown = capsys.readouterr().out
    assert "ENGINE_RPM" in shown
    assert "canary" not in shown
    assert list(tmp_path.iterdir()) == [source]


def test_explain_has_a_line_for_each_step_of_a_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "job.toml").write_text(
        'model = "m"\nrpm = 600\n[[steps]]\nname = "clean"\nfunction = "engine.text:html_to_markdown"\n'
        'take = { html = "text" }\nkeep = false\n[[steps]]\nname = "kind"\nprompt = "{{ clean }}"\nmodel = "n"\n'
        "when = \"clean != ''\"\n"
    )
    paths = [str(tmp_path / name) for name in ("in.jsonl", "out.jsonl", "job.toml")]
    assert main(["run", paths[0], "-o", paths[1], "--job", paths[2], "--explain"]) == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines() if line.startswith(("step ", "key "))]
    assert lines[:2] == [
        "step clean: call engine.text:html_to_markdown, takes html = text, not kept",
        "step kind: ask openai n, 600 RPM, when clean != ''",
    ]
    assert len(lines) == 3 and lines[2].startswith("key kind Authorization: ")
    assert "canary" not in shown


def test_a_fault_of_ours_is_exit_6_and_says_that_rows_are_safe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import engine.cli.folders

    def broken(run: str) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(engine.cli.folders, "state_folder", broken)
    assert main(["status", "x"]) == 6
    assert "internal fault" in capsys.readouterr().err
