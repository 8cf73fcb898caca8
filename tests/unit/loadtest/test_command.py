"""The files of a load test: each has its own name, and one that cannot be written costs no other."""

from pathlib import Path

import pytest
from loadtests import calm, outcome, plan

from engine.core.errors import StoreFailure, UsageError
from engine.loadtest.command import Outputs
from engine.loadtest.results import results_of


def test_two_outputs_of_the_same_name_are_refused_before_the_test(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "r.json")
    for html in (tmp_path / "r.json", tmp_path / "link"):
        with pytest.raises(UsageError, match="the same file"):
            Outputs(out=str(tmp_path / "r.json"), html=str(html)).check()


def test_a_file_that_cannot_be_written_is_told_and_the_others_are_there(tmp_path: Path) -> None:
    asked = plan()
    tested = outcome(calm(asked))
    outputs = Outputs(
        out=str(tmp_path / "gone" / "r.json"), html=str(tmp_path / "r.html"), hlog=str(tmp_path / "r.hlog")
    )
    with pytest.raises(StoreFailure, match="--out"):
        outputs.write(results_of(asked, tested), asked, tested)
    assert "<svg" in (tmp_path / "r.html").read_text()
    assert (tmp_path / "r.hlog").read_text().count("Tag=") >= 2
