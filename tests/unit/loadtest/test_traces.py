"""Recordings of every kind that can be replayed, and what is refused."""

from pathlib import Path

import pytest

from engine.core.errors import UsageError
from engine.loadtest import traces
from engine.loadtest.traces import read_trace
from engine.schedules.base import Schedule
from engine.schedules.trace import Trace
from engine.store import Commit, OutcomeRow, Store

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""


def offsets(folder: Path, text: str) -> tuple[float, ...]:
    path = folder / "trace"
    path.write_bytes(text.encode())
    return read_trace(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "5\n5.5\n7\n",
        "\n5.0\r\n5.5\r\n\r\n7e0",
        "7\n5\n5.5\n",
        "\ufeff5\n5.5\n7",
        '{"timestamp": 5, "prompt": "a"}\n{"timestamp": 5.5}\n{"timestamp": "7"}\n',
        '{"b": 1, "TS": 5}\n{"TS": 5.5}\n{"TS": 7}\n',
        "time,x\n5,1\n5.5,2\n7,3\n",
        'x,Start_Time\n"a\nb, c",5\n2,5.5\n3,7\n',
        "t_ms\n5000\n5500\n7000\n",
        "offset_ns\n5000000000\n5500000000\n7000000000\n",
        "1700000000\n1700000000.5\n1700000002\n",
        "1700000000000\n1700000000500\n1700000002000\n",
        "1700000000000000\n1700000000500000\n1700000002000000\n",
        "2024-05-10T00:00:05Z\n2024-05-10T00:00:05.500Z\n2024-05-10T00:00:07Z\n",
        "2024-05-10 00:00:05\n2024-05-10 02:00:05.5+02:00\n2024-05-10 00:00:07+00:00\n",
        '{"arrived_at": "2024-05-10T00:00:05"}\n{"arrived_at": "2024-05-10T00:00:05.5"}\n{"arrived_at": "2024-05-10T00:00:07"}',
    ],
)  # fmt: skip
def test_moments_of_every_kind_become_seconds_from_the_earliest(text: str, tmp_path: Path) -> None:
    found = offsets(tmp_path, text)
    assert found == pytest.approx((0.0, 0.5, 2.0), abs=1e-6)
    assert Trace(Schedule("trace", offsets_s=found)).length_s() == pytest.approx(2.0)


def test_a_trace_of_azure_is_read_by_its_timestamp(tmp_path: Path) -> None:
    assert offsets(tmp_path, AZURE) == pytest.approx((0.0, 4.314579, 4.541877), abs=1e-6)


def test_the_better_known_name_wins_wherever_its_column_stands(tmp_path: Path) -> None:
    assert offsets(tmp_path, "t,offset,timestamp\n9,9,1\n9,9,2\n") == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no requests"),
        ("\n \n", "has no requests"),
        ("timestamp,x\n", "has no requests"),
        ("1\n2\nx\n", "line 3 says 'x'"),
        ("1\nnan\n", "line 2 says 'nan'"),
        ("1\n" + "9" * 400, "line 2"),
        ("prompt,answer\na,b\n", "no column that says when.*'prompt', 'answer'"),
        ('{"a": 1}\n', "no column that says when"),
        ("{}\n", "It has none"),
        ('{"t": 1}\n{"t": 1\n', "line 2 is no JSON object"),
        ('{"t": 1}\n[1]\n', "line 2 is no JSON object"),
        ('{"t": 1}\n{"x": 1}\n', "line 2 says nothing"),
        ('{"t": true}\n', "line 1 says True"),
        ('{"t": 1}\n' + '{"t":' * 100_000 + "\n", "line 2 is no JSON object"),
        ("time,x\n1,2\n\n\nsoon,2\n", "line 5 says 'soon'"),
        ("x,time\n1,2\n1\n", "line 3 says nothing"),
        ('time,x\n1,"a\n', "is no CSV"),
        ("time\n2024-13-45\n", "which is no number and no date"),
    ],
)
def test_what_holds_no_moments_is_refused_with_the_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        offsets(tmp_path, text)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x80\x81\n")
    for name, says in (
        ("nowhere", "No such file"),
        ("", "no run in"),
        ("binary", "no UTF-8"),
        ("a\0b", "null"),
    ):
        with pytest.raises(UsageError, match=says):
            read_trace(str(tmp_path / name))


def test_a_run_of_the_engines_own_is_replayed_from_its_state_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out.jsonl.run"
    sent = (105.5, 0.0, 100.25, 103.0)  # the second row was never sent
    with Store.open(folder, durability="os") as store:
        rows = [OutcomeRow(row, True, "", row, b"{}", 1, 1.0, 1, 1, at) for row, at in enumerate(sent)]
        store.apply([Commit(outcomes=rows)])
    assert read_trace(str(folder)) == (0.0, 2.75, 5.25)


def test_a_run_that_kept_no_moments_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out.jsonl.run"
    with Store.open(folder, durability="os") as store:
        store.apply([Commit(outcomes=[OutcomeRow(0, False, "bad_input", 0, b"{}", 0, 0.0, 0, 0)])])
    with pytest.raises(UsageError, match="kept no moment"):
        read_trace(str(folder))


def test_more_than_can_be_replayed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "OFFSETS_MAX", 3)
    assert len(offsets(tmp_path, "1\n2\n3\n")) == 3
    with pytest.raises(UsageError, match="more than 3"):
        offsets(tmp_path, "1\n2\n3\n4\n")


def test_a_line_beyond_the_cap_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "LINE_BYTES_MAX", 1_000)
    with pytest.raises(UsageError, match="line 2 is longer"):
        offsets(tmp_path, "1\n" + "2" * 2_000 + "\n")
