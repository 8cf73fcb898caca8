"""Hugging Face's own datasets: enriched with their features kept, and as rows of a pool. Nothing is downloaded."""

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packages import needs_package

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, as the package is imported
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
datasets = needs_package("datasets")

import engine  # noqa: E402
from engine import Pool, UsageError, ask, call  # noqa: E402
from engine.mock.answers import expected_answer  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

MOCK: dict[str, Any] = {"provider": "mock", "base_url": "mock:latency=1ms", "procs": 1}
ANSWERED: dict[str, Any] = {"prompt": "Say {{ n }}", "into": "answer", **MOCK}


def numbers(count: int = 8) -> Any:
    return datasets.Dataset.from_dict({"n": list(range(count)), "text": [f"row {n}" for n in range(count)]})


def said(found: Any) -> list[tuple[int, str]]:
    return list(zip(found["n"], found["answer"], strict=True))


def expected(wanted: list[int]) -> list[tuple[int, str]]:
    return [(n, expected_answer(f"Say {n}")) for n in wanted]


def every_sort() -> Any:
    """Two rows with one column of nearly every feature; the second row is all null."""
    value = datasets.Value
    features = datasets.Features(
        {
            "text": value("string"),
            "n": value("int32"),
            "x": value("float64"),
            "is_good": value("bool"),
            "numbers": datasets.List(value("int64")),
            "nested": {"who": value("string"), "parts": datasets.List({"size": value("int8")})},
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "at": value("timestamp[us, tz=UTC]"),
            "day": value("date32"),
            "bytes": value("binary"),
            "grid": datasets.Array2D(shape=(2, 2), dtype="int32"),
        }
    )
    full = {
        "text": "ä\n🙂",
        "n": 7,
        "x": 0.5,
        "is_good": True,
        "numbers": [1, 2],
        "nested": {"who": "I", "parts": [{"size": 3}]},
        "label": 1,
        "at": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "day": datetime.date(2026, 1, 2),
        "bytes": b"\xff\x00",
        "grid": [[1, 2], [3, 4]],
    }
    return datasets.Dataset.from_list([full, dict.fromkeys(full)], features=features)


def test_features_of_every_sort_are_kept_and_seen_as_json() -> None:
    given = every_sort()
    found = engine.enrich(given, call(lambda row: row, into="seen", mode="loop"), procs=1)
    assert type(found) is datasets.Dataset
    assert {name: found.features[name] for name in given.column_names} == given.features
    assert found.select_columns(given.column_names).to_list() == given.to_list()
    seen, nothing = found["seen"]
    assert seen == {
        "text": "ä\n🙂",
        "n": 7,
        "x": 0.5,
        "is_good": True,
        "numbers": [1, 2],
        "nested": {"who": "I", "parts": [{"size": 3}]},
        "label": 1,
        "at": "2026-01-02T03:04:05Z",
        "day": "2026-01-02",
        "bytes": "/wA=",
        "grid": [[1, 2], [3, 4]],
    }
    assert {name: value for name, value in nothing.items() if value} == {}
    assert "seen" not in given.column_names


VIEWS: dict[str, Callable[[Any], Any]] = {
    "sliced": lambda given: given.select(range(2, 5)),
    "shuffled": lambda given: given.shuffle(seed=3),
    "filtered": lambda given: given.filter(lambda row: row["n"] % 2 == 1),
    "put together": lambda given: datasets.concatenate_datasets([given.select([5, 1]), given.select([3])]),
    "a split": lambda given: given.train_test_split(test_size=0.5, seed=1)["test"],
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_dataset_gets_the_answers_of_its_own_rows(view: str) -> None:
    given = VIEWS[view](numbers())
    found = engine.enrich(given, **ANSWERED)
    assert len(found) == len(given) > 0
    assert said(found) == expected(list(given["n"]))


def test_a_dataset_on_disk_is_left_as_it_is(tmp_path: Path) -> None:
    numbers().save_to_disk(tmp_path / "saved")
    given = datasets.load_from_disk(tmp_path / "saved")
    assert given.cache_files
    found = engine.enrich(given.select([6, 2]), **ANSWERED)
    assert said(found) == expected([6, 2])
    assert datasets.load_from_disk(tmp_path / "saved").column_names == ["n", "text"]


@pytest.mark.parametrize("style", ["numpy", "pandas", "polars", "arrow"])
def test_the_format_that_rows_are_shown_in_changes_no_question_and_stays(style: str) -> None:
    given = numbers(3).with_format(style, columns=["n"], output_all_columns=False)
    found = engine.enrich(given, prompt="{{ text }} {{ n }}", into="answer", **MOCK)
    assert found.format["type"] == style
    plain = found.with_format(None)
    assert plain.column_names == ["n", "text", "answer"]
    assert plain["answer"] == [expected_answer(f"row {n} {n}") for n in range(3)]


def test_a_column_is_replaced_at_its_place_even_if_it_is_the_only_one() -> None:
    found = engine.enrich(numbers(2), prompt="Say {{ n }}", into="n", **MOCK)
    assert found.column_names == ["n", "text"]
    assert found["n"] == [expected_answer(f"Say {n}") for n in range(2)]
    alone = engine.enrich(numbers(2).select_columns(["n"]), prompt="Say {{ n }}", into="n", **MOCK)
    assert alone.to_dict() == {"n": [expected_answer(f"Say {n}") for n in range(2)]}


def test_rows_that_failed_have_nulls_and_say_why() -> None:
    found = engine.enrich(numbers(3), call(lambda row: 1 // (row["n"] - 1), into="inverse"), procs=1)
    assert found["inverse"] == [-1, None, 1]
    assert found.features["inverse"] == datasets.Value("int64")
    assert "ZeroDivisionError" in found["_error"][1] and found["_error"][::2] == [None, None]


def test_answers_without_a_type_in_common_are_json_texts() -> None:
    values = [1, "word", [1], None]
    found = engine.enrich(numbers(4), call(lambda row: values[row["n"]], into="answer"), procs=1)
    assert found["answer"] == ["1", "word", "[1]", None]


def test_a_dataset_without_rows_comes_back_with_the_new_column() -> None:
    found = engine.enrich(numbers(3).select([]), **ANSWERED)
    assert (found.column_names, len(found)) == (["n", "text", "answer"], 0)


def test_pictures_are_kept_and_are_no_part_of_the_row() -> None:
    given = numbers(2).add_column("picture", [b"\x89PNG", None])
    given = given.cast_column("picture", datasets.Image())
    found = engine.enrich(given, **ANSWERED)
    assert said(found) == expected([0, 1])
    assert found.features["picture"] == datasets.Image()
    assert found.cast_column("picture", datasets.Image(decode=False))["picture"][0]["bytes"] == b"\x89PNG"
    with pytest.raises(UsageError, match="The template names 'picture'"):
        engine.enrich(given, prompt="{{ picture }}", **MOCK)


def test_several_datasets_in_one_are_refused_with_what_to_do() -> None:
    several = datasets.DatasetDict(train=numbers(2), test=numbers(1))
    with pytest.raises(UsageError, match=r"several datasets \(train, test\).*one of them.*Nothing was sent"):
        engine.enrich(several, **ANSWERED)
    with pytest.raises(UsageError, match=r"several datasets \(train, test\).*one of them.*Nothing was sent"):
        Pool(ask("Say {{ n }}"), several, **MOCK)
    each = datasets.DatasetDict({name: engine.enrich(part, **ANSWERED) for name, part in several.items()})
    assert said(each["train"]) == expected([0, 1])


def test_a_stream_of_rows_is_refused_by_enrich_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"IterableDataset.*engine\.Pool\(.*Nothing was sent"):
        engine.enrich(numbers(2).to_iterable_dataset(), **ANSWERED)


def test_a_dataset_is_the_rows_of_a_pool() -> None:
    given = numbers(6).shuffle(seed=2)
    with Pool(ask("Say {{ n }}"), given, **MOCK) as pool:
        results = pool.run()
        assert pool.status["total"] == 6
    assert [result.row for result in results] == given.to_list()
    assert [result.value for result in results] == [expected_answer(f"Say {n}") for n in given["n"]]


def test_a_stream_of_rows_is_read_no_further_than_results_are_taken() -> None:
    made = taken = widest = 0

    def counted(row: dict[str, Any]) -> dict[str, Any]:
        nonlocal made, widest
        made += 1
        widest = max(widest, made - taken)
        return row

    stream = numbers(100_000).to_iterable_dataset().map(counted)
    with Pool(ask("Say {{ n }}"), stream, max_flows=50, read_ahead=300, **MOCK) as pool:
        assert pool.status["total"] is None
        for result in pool.stream():
            assert result.value == expected_answer(f"Say {result.row['n']}")
            taken += 1
            if taken == 1000:
                break
    assert 250 < widest <= 301


def test_a_stream_of_rows_that_is_shuffled_can_be_run_again() -> None:
    stream = numbers(20).to_iterable_dataset(num_shards=2).shuffle(seed=4, buffer_size=5).take(10)
    order = [row["n"] for row in stream]
    step = call(lambda row: 1 // (row["n"] - order[0]), into="inverse")
    with Pool(step, stream, procs=1) as pool:
        results = pool.run()
        assert [result.row["n"] for result in results] == order
        assert [result.index for result in results if not result.ok] == [0]
        assert [(result.index, result.row["n"]) for result in pool.retry_failed()] == [(0, order[0])]


@pytest.mark.parametrize("style", ["pandas", "polars", "arrow"])
def test_rows_that_come_as_frames_are_refused_with_what_to_do(style: str) -> None:
    with pytest.raises(UsageError, match=r"with_format\(None\)"):
        Pool(ask("Say {{ n }}"), numbers(3).with_format(style), **MOCK)
    with pytest.raises(UsageError, match=r"with_format\(None\)"):
        Pool(ask("Say {{ n }}"), numbers(3).to_iterable_dataset().with_format(style), **MOCK)
    with Pool(ask("Say {{ n }}"), numbers(3).with_format("numpy"), **MOCK) as pool:
        assert [result.value for result in pool.run()] == [expected_answer(f"Say {n}") for n in range(3)]
