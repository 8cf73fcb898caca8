"""A program that was changed, over the state of an earlier run: what is run again, and what is not."""

from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Pool, UsageError, ask, call
from engine.mock.answers import expected_answer
from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow

TEXTS = ["a", "b", "c"]


def pool(mock: MockProcess, state: Path, *steps: Any, **settings: Any) -> Pool:
    return Pool(steps, TEXTS, base_url=mock.base_url, model="m", procs=1, state=state, **settings)


def fussy(text: str) -> str:
    if text == "b":
        raise ValueError("not b")
    return text.upper()


SAID = ask("Say {{ text }}", name="said")
LOUD = call(fussy, take={"text": "text"}, name="loud")


def mended(text: str) -> str:
    return f"{text.upper()}!"


def test_failed_rows_are_run_again_with_the_function_as_it_is_now(tmp_path: Path) -> None:
    with MockProcess(MockSettings()) as mock:
        with pool(mock, tmp_path / "s", SAID, LOUD) as first:
            assert [result.ok for result in first.run()] == [True, False, True]
        corrected = call(mended, take={"text": "text"}, name="loud")
        with pool(mock, tmp_path / "s", SAID, corrected) as second:
            (result,) = second.retry_failed()
            assert result.value == {"said": expected_answer("Say b"), "loud": "B!"}
            assert [one.value["loud"] for one in second.run()] == ["A", "B!", "C"]
        assert mock.stats()["requests"] == 3  # no question was asked twice


def test_what_changed_runs_again_for_all_rows_where_that_is_asked_for_and_once(tmp_path: Path) -> None:
    corrected = call(mended, take={"text": "text"}, name="loud")
    with MockProcess(MockSettings()) as mock:
        with pool(mock, tmp_path / "s", SAID, LOUD) as first:
            first.run()
        with pool(mock, tmp_path / "s", SAID, corrected) as refused, pytest.raises(UsageError) as caught:
            refused.run()
        for _ in range(2):
            with pool(mock, tmp_path / "s", SAID, corrected, on_change="redo") as again:
                values = [result.value for result in again.run()]
            assert values == [
                {"said": expected_answer(f"Say {text}"), "loud": f"{text.upper()}!"} for text in TEXTS
            ]
        assert mock.stats()["requests"] == 3
        assert 'on_change="redo" to run what changed and what needs it again' in str(caught.value)
        assert "retry_failed()" in str(caught.value) and "--" not in str(caught.value)


def test_another_prompt_is_asked_anew_for_every_row_where_that_is_asked_for(tmp_path: Path) -> None:
    with MockProcess(MockSettings()) as mock:
        with pool(mock, tmp_path / "s", ask("One {{ text }}")) as first:
            first.run()
        refused = pool(mock, tmp_path / "s", ask("Two {{ text }}"))
        with refused, pytest.raises(UsageError, match='on_change="redo" to run all rows again'):
            refused.run()
        with pool(mock, tmp_path / "s", ask("Two {{ text }}"), on_change="redo") as second:
            assert [result.value for result in second.run()] == [
                expected_answer(f"Two {text}") for text in TEXTS
            ]
        assert mock.stats()["requests"] == 6


def test_what_is_only_left_out_or_kept_from_now_on_costs_nothing(tmp_path: Path) -> None:
    draft, final = ask("Draft {{ text }}", name="draft"), ask("Final {{ draft }}", name="final")
    with MockProcess(MockSettings()) as mock:
        with pool(mock, tmp_path / "s", draft, final, LOUD) as first:
            first.run()
        asked = mock.stats()["requests"]
        with pool(mock, tmp_path / "s", draft, final, on_change="redo") as without:
            assert [list(result.value) for result in without.run()] == [["draft", "final"]] * 3
        hidden = ask("Draft {{ text }}", name="draft", keep=False)
        with pool(mock, tmp_path / "s", hidden, final, on_change="redo") as shorter:
            values = [result.value for result in shorter.run()]
        assert values == [
            {"final": expected_answer("Final " + expected_answer(f"Draft {text}"))} for text in TEXTS
        ]
        assert mock.stats()["requests"] == asked == 6


def test_other_rows_are_refused_before_anything_is_forgotten(tmp_path: Path) -> None:
    final = ask("Final {{ said }}", name="final")
    other = ask("Other {{ said }}", name="final")
    with MockProcess(MockSettings()) as mock:
        settings: dict[str, Any] = {
            "base_url": mock.base_url,
            "model": "m",
            "procs": 1,
            "state": tmp_path / "s",
        }
        with Pool([SAID, final], TEXTS, **settings) as first:
            first.run()
        mistaken = Pool([SAID, other], ["x", "y", "z"], on_change="redo", **settings)
        with mistaken, pytest.raises(UsageError, match="The input has changed: row 0"):
            mistaken.run()
        with Pool([SAID, final], TEXTS, **settings) as again:
            assert all(result.ok for result in again.run())
        assert mock.stats()["requests"] == 6


def test_one_question_may_become_a_chain(tmp_path: Path) -> None:
    with MockProcess(MockSettings()) as mock:
        with pool(mock, tmp_path / "s", ask("Say {{ text }}", into="said")) as first:
            first.run()
        with pool(mock, tmp_path / "s", SAID, LOUD, on_change="redo") as chain:
            assert [result.ok for result in chain.run()] == [True, False, True]
        with pool(mock, tmp_path / "s", ask("Say {{ text }}", into="said"), on_change="redo") as back:
            assert [result.value for result in back.run()] == [
                expected_answer(f"Say {text}") for text in TEXTS
            ]


def test_what_steps_gave_before_their_row_failed_is_at_hand(tmp_path: Path) -> None:
    with MockProcess(MockSettings()) as mock:
        with pool(mock, tmp_path / "s", SAID, LOUD) as first:
            results = first.run()
        assert results[1].value is None and results[1].partial == {"said": expected_answer("Say b")}
        frame = pytest.importorskip("pandas").DataFrame({"text": TEXTS})
        made = engine.enrich(frame, [SAID, LOUD], base_url=mock.base_url, model="m", procs=1)
    assert list(made["said"]) == [expected_answer(f"Say {text}") for text in TEXTS]
    assert made["loud"].isna().tolist() == [False, True, False]
