"""The examples do what they say."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def output_of(name: str, *arguments: str) -> list[str]:
    """What an example prints. It has to end well, and say nothing else."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_texts_are_classified() -> None:
    status, labels = output_of("classify.py")
    assert status == "{'total': 300, 'completed': 300, 'failed': 0, 'running': 0, 'pending': 0}"
    counts = [int(part.rstrip("})").rpartition(": ")[2]) for part in labels.split(",")]
    assert labels.startswith("Counter({'") and sum(counts) == 300


def test_answers_are_handled_as_they_come_and_come_again_from_the_state(tmp_path: Path) -> None:
    first = output_of("stream.py", str(tmp_path / "state"))
    assert len(first) == 5 and first[-1] == "1000 answers, tokens counted"
    assert sorted(output_of("stream.py", str(tmp_path / "state"))) == sorted(first)


def test_a_frame_gets_its_columns() -> None:
    assert output_of("frame.py") == ["['review', 'label', 'sure'] ['a', 'b', 'c']", "True"]
