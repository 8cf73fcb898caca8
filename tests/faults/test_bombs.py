"""Replies and inputs that become far more than they are: cut at the cap, refused or read, in bounded memory and time."""

import gzip
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bombs import MB, deflated, gzipped, json_bombs, members, packed, zlibbed
from literal import Rogue, reply
from runs import Run, ask_flags, read_rows
from scorecard import Promise, Scorecard

from engine.config import Limits
from engine.core.errors import RowError
from engine.core.model import Answer, Failure, Reply, Target
from engine.formats.rows import decode_row
from engine.providers import PROVIDERS, make_provider
from engine.steps.schema import Columns

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CAP_MB: Final = Limits().reply_bytes_max // MB
CHAT = json.dumps(
    {"choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}
).encode()
CALM_S: Final = 0.6  # the last reply comes so late that the peak before it can be read


def bodies(megabytes: int) -> dict[str, tuple[str, bytes, str]]:
    """What a reply says of its encoding, its bytes, and what becomes of the row; "" is an answer."""
    raw = zlib.compressobj(wbits=-15)
    bomb = gzipped(megabytes)
    return {
        "gzip": ("gzip", bomb, "body_too_large"),
        "gzip by its old name": ("x-gzip", gzipped(64), "body_too_large"),
        "gzip in capitals": (" GZIP ", gzipped(64), "body_too_large"),
        "deflate": ("deflate", zlibbed(megabytes), "body_too_large"),
        "deflate without a head": ("deflate", deflated(64), "body_too_large"),
        "brotli": ("br", packed(64, "brotli"), "protocol_error"),
        "zstd": ("zstd", packed(64, "zstd") * 16, "protocol_error"),
        "twice": ("gzip, gzip", gzip.compress(bomb), "protocol_error"),
        "in two lines": ("gzip\r\nContent-Encoding: br", gzipped(64), "protocol_error"),
        "after identity": ("identity\r\nContent-Encoding: gzip", gzip.compress(CHAT), "protocol_error"),
        "nested, said once": ("gzip", gzip.compress(gzipped(64)), "bad_reply"),
        "deep nested": ("gzip", gzip.compress(gzip.compress(gzip.compress(bomb))), "bad_reply"),
        "many members": ("gzip", members(400_000), "protocol_error"),
        "a bomb as second member": ("gzip", gzip.compress(CHAT) + bomb, "protocol_error"),
        "waste at the end": ("gzip", gzip.compress(CHAT) + b"waste", "protocol_error"),
        "cut": ("gzip", gzip.compress(CHAT)[:-9], "protocol_error"),
        "unknown": ("aes128gcm", CHAT, "protocol_error"),
        "compress": ("compress", b"\x1f\x9d\x90" + bytes(1000), "protocol_error"),
        "a long name": ("x" * 5_000, CHAT, "protocol_error"),
        "wrong name": ("deflate", packed(64, "brotli"), "protocol_error"),
        "plain and over the cap": ("identity", b" " * (CAP_MB * MB + 1), "body_too_large"),
        "good gzip": ("gzip", gzip.compress(CHAT), ""),
        "good deflate": ("deflate", raw.compress(CHAT) + raw.flush(), ""),
        "good": ("identity", CHAT, ""),
    }  # fmt: skip


def rows_of(folder: Path, names: list[str]) -> Path:
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"text": f"<{name}>"}) + "\n" for name in names))
    return source


def peak_of(started: Run, name: str = "engine.worker") -> float:
    """The most memory that a child (or, without a name, the run itself) has held, in MB."""
    peak = 0
    while not started.is_over():
        for pid in [child.pid for child in started.children(name)] if name else [started.pid]:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)])
        time.sleep(0.05)
    return peak / 1024


def served(folder: Path, replies: dict[str, bytes], *more: str) -> tuple[dict[str, str], float, Run]:
    """How each row ended whose reply is given, and the worker's peak of memory in MB."""

    def answer(request: bytes) -> bytes:
        name = next((name for name in replies if f"<{name}>".encode() in request), "")
        if not name:
            time.sleep(CALM_S)
        return replies.get(name, reply(CHAT))

    with Rogue(answer) as rogue:
        source, output = rows_of(folder, [*replies, "calm"]), folder / "out.jsonl"
        flags = ("--procs", "1", "--in-flight", "1", "--retries", "0", *more)
        started = Run(*ask_flags(f"http://127.0.0.1:{rogue.port}/v1", source, output, *flags))
        peak = peak_of(started)
        started.wait()
        # Each was really served, once, and none of them was asked to be compressed.
        assert len(rogue.requests) == len(replies) + 1
        assert all(b"accept-encoding: identity" in request.lower() for request in rogue.requests)
    ends = {row["text"][1:-1]: row["_error"].partition(":")[0] for row in read_rows(output)}
    assert ends.pop("calm") == ""
    return ends, peak, started


def test_compressed_replies_are_cut_at_the_cap_or_refused_unopened(
    tmp_path: Path, scorecard: Scorecard, pytestconfig: pytest.Config
) -> None:
    megabytes = 256 if pytestconfig.getoption("--trials") != "nightly" else 10_240
    cases = bodies(megabytes)
    replies = {
        name: reply(body, "200 OK", f"Content-Encoding: {encoding}")
        for name, (encoding, body, _) in cases.items()
    }
    assert all(len(body) < CAP_MB * MB for name, (_, body, _) in cases.items() if "over" not in name)
    _, calm, _ = served(tmp_path, {"good": reply(CHAT)})
    (tmp_path / "bombs").mkdir()
    ends, peak, started = served(tmp_path / "bombs", replies)
    wrong = {name: ends[name] for name, (_, _, end) in cases.items() if ends[name] != end}
    scorecard.add(
        Promise.P7_BOUNDED, "compressed replies", len(cases), len(wrong), unpacked_mb_max=megabytes,
        calm_mb_max=round(calm), worker_mb_peak=round(peak),
    )  # fmt: skip
    assert wrong == {}
    assert started.wait() == 1 and "Traceback" not in started.err
    assert peak - calm < 4 * CAP_MB, f"{calm:.0f} MB without bombs, {peak:.0f} MB with them"


@pytest.mark.not_quick
@pytest.mark.few(schema=[True])
@pytest.mark.parametrize("schema", [False, True])
def test_json_that_is_deep_wide_or_out_of_range_costs_its_own_row_only(
    tmp_path: Path, schema: bool, scorecard: Scorecard
) -> None:
    def wrapped(text: str) -> bytes:
        return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()

    bombs = json_bombs(0.1)
    flags: tuple[str, ...] = ()
    if schema:
        described = {"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": False}
        (tmp_path / "schema.json").write_text(json.dumps(described))
        flags = ("--schema", str(tmp_path / "schema.json"))
    replies = {name: reply(wrapped(body.decode()) if schema else body) for name, body in bombs.items()}
    replies |= {f"{name} as an error": reply(body, "400 Bad Request") for name, body in bombs.items()}
    if schema:
        replies["fitting"] = reply(wrapped('{"a": {"a": {}}}'))
    ends, peak, started = (
        served(tmp_path, replies, *flags) if not schema else served_schema(tmp_path, replies, flags)
    )
    known = {"bad_reply", "schema_mismatch", "bad_request", "content_refused"}
    good = {"fitting", "half emojis"}  # the latter is mended
    wrong = {name: end for name, end in ends.items() if end not in known and name not in good}
    scorecard.add(
        Promise.P7_BOUNDED, "JSON bombs in replies", len(replies), len(wrong), worker_mb_peak=round(peak),
    )  # fmt: skip
    assert wrong == {}
    assert started.wait() == 1 and "Traceback" not in started.err
    assert '"worker_deaths":0' in started.out.replace(" ", "")
    assert ends.get("fitting", "") == ""
    assert peak < 600, peak


def served_schema(
    folder: Path, replies: dict[str, bytes], flags: tuple[str, ...]
) -> tuple[dict[str, str], float, Run]:
    """As ``served``; the calm row's answer has to fit the schema too."""
    global CHAT
    plain, CHAT = CHAT, CHAT.replace(b'"fine"', b'"{}"')
    try:
        return served(folder, replies, *flags)
    finally:
        CHAT = plain


def parsed(bomb: bytes) -> Iterator[tuple[str, object, float]]:
    """What every part that reads foreign JSON makes of a text, and the CPU seconds it takes."""
    for name in PROVIDERS:
        provider = make_provider(
            Target(
                provider=name,
                base_url="http://127.0.0.1:9/v1",
                model="m",
                select="choices.0" if name == "http" else "",
            )
        )
        for status in (200, 400, 503):
            began = time.process_time()
            found: object = provider.parse(Reply(status, {}, bomb))
            yield f"{name} {status}", found, time.process_time() - began
    columns = Columns(
        into="a", into_given=False, schema={"type": "object", "properties": {"a": {"$ref": "#"}}}
    )
    began = time.process_time()
    yield "schema", columns.read(bomb.decode()), time.process_time() - began
    began = time.process_time()
    try:
        found = decode_row(bomb)
    except RowError as error:
        found = error
    yield "row", found, time.process_time() - began


@pytest.mark.not_quick
def test_no_json_takes_long_to_read(scorecard: Scorecard, pytestconfig: pytest.Config) -> None:
    factor = 0.05 if pytestconfig.getoption("--trials") != "nightly" else 3.0
    slowest, readings, wrong = 0.0, 0, []
    bombs = json_bombs(factor)
    for name, bomb in bombs.items():
        for where, found, seconds in parsed(bomb):
            readings += 1
            slowest = max(slowest, seconds)
            if not isinstance(found, Answer | Failure | dict | str | RowError) or seconds > 5.0 * max(
                1.0, factor
            ):
                wrong.append((name, where, type(found), seconds))
    scorecard.add(
        Promise.P7_BOUNDED, "CPU of JSON bombs", len(bombs), len({name for name, *_ in wrong}), readings=readings,
        seconds_max=round(slowest, 2),
    )  # fmt: skip
    assert wrong == []


@pytest.mark.not_quick
def test_a_compressed_input_with_an_endless_line_is_read_past_it_in_bounded_memory(
    tmp_path: Path, scorecard: Scorecard, pytestconfig: pytest.Config
) -> None:
    megabytes = 256 if pytestconfig.getoption("--trials") != "nightly" else 10_240
    source, output = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl"
    before, after = (json.dumps({"text": f"<{word}>"}).encode() + b"\n" for word in ("before", "after"))
    machine = zlib.compressobj(9, wbits=31)
    parts = [machine.compress(before + b'{"text": "')]
    parts += [machine.compress(b"x" * (16 * MB)) for _ in range(megabytes // 16)]
    source.write_bytes(b"".join([*parts, machine.compress(b'"}\n' + after), machine.flush()]))
    assert source.stat().st_size < megabytes * MB // 500
    with Rogue(lambda request: (time.sleep(CALM_S), reply(CHAT))[1]) as rogue:
        started = Run(*ask_flags(f"http://127.0.0.1:{rogue.port}/v1", source, output, "--procs", "1"))
        peak = peak_of(started, "")
        started.wait(200)
    ends = [row["_error"].partition(":")[0] for row in read_rows(output)]
    is_good = ends == ["", "bad_input", ""] and peak < 250
    scorecard.add(
        Promise.P7_BOUNDED, "compressed inputs", 1, int(not is_good), unpacked_mb_max=megabytes,
        coordinator_mb_peak=round(peak),
    )  # fmt: skip
    assert ends == ["", "bad_input", ""]
    assert peak < 250, peak


@pytest.mark.not_quick
@pytest.mark.parametrize("codec", ["zstd", "brotli"])
def test_an_input_compressed_otherwise_than_with_gzip_is_never_unpacked(tmp_path: Path, codec: str) -> None:
    endings = (".jsonl", ".jsonl.gz", ".csv.zst", ".br") if codec == "zstd" else (".jsonl.gz", ".jsonl")
    for ending in endings:
        source, output = tmp_path / f"in{ending}", tmp_path / "out.jsonl"
        source.write_bytes(packed(64, codec))
        with Rogue(lambda request: reply(CHAT)) as rogue:
            started = Run(*ask_flags(f"http://127.0.0.1:{rogue.port}/v1", source, output, "--procs", "1"))
            code = started.wait()
        assert code in (1, 2) and rogue.connections == 0, (ending, started.err)
        assert "Traceback" not in started.err


_READ = """
import resource, sys
from engine.source import Source
source = Source(sys.argv[1], "parquet", row_bytes_max=16 * 1024 * 1024)
print(sum(not row.bad for row in source), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.not_quick
def test_a_parquet_file_of_large_rows_is_read_in_bounded_memory(tmp_path: Path, scorecard: Scorecard) -> None:
    source = tmp_path / "in.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1024, pa.int32()), pa.array(["x" * (2 * MB)]))
    pq.write_table(pa.table({"text": texts}), source, compression="zstd", store_schema=False)
    assert source.stat().st_size < 10_000  # it stands for two gigabytes
    told = subprocess.run(
        [sys.executable, "-c", _READ, str(source)], capture_output=True, text=True, check=True
    )
    rows, peak = map(int, told.stdout.split())
    scorecard.add(Promise.P7_BOUNDED, "Parquet that grows", 1, int(peak >= 1000), mb_peak=peak)
    assert rows == 1024 and peak < 1000, peak  # half a gigabyte, and what a busy machine gives back late


@pytest.mark.not_quick
def test_an_answer_that_stands_for_a_thousand_million_digits_is_written_as_it_is(tmp_path: Path) -> None:
    from decimal import Decimal

    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = {
        "text": ["a", "b"],
        "price": pa.array([Decimal("1.50"), Decimal("2.50")], pa.decimal128(10, 2)),
        "n": [1, 2],
    }
    pq.write_table(pa.table(table), source)
    told = CHAT.replace(b'"fine"', b'"1E-999999999"')
    for column in ("price", "n"):
        with Rogue(lambda request: reply(told)) as rogue:
            started = Run(
                *ask_flags(
                    f"http://127.0.0.1:{rogue.port}/v1",
                    source,
                    output,
                    "--procs",
                    "1",
                    "--into",
                    column,
                    "--fresh",
                )
            )
            assert started.wait(30) == 0, started.err
        assert pq.read_table(output)[column].to_pylist() == ["1E-999999999"] * 2


@pytest.mark.quick(ending=["jsonl"])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_an_answer_of_any_depth_leaves_an_output_that_can_be_written_and_read(
    tmp_path: Path, ending: str, scorecard: Scorecard
) -> None:
    depths = [1, 100, 188, 191, 200, 255, 900, 1_000, 50_000]
    deep = {f"{depth}": reply(b'{"a":' * depth + b"1" + b"}" * depth) for depth in depths}
    source, output = rows_of(tmp_path, list(deep)), tmp_path / f"out.{ending}"

    def answer(request: bytes) -> bytes:
        return next(found for name, found in deep.items() if f"<{name}>".encode() in request)

    with Rogue(answer) as rogue:
        started = Run(
            "run", str(source), "-o", str(output), "--provider", "http", "--url", f"http://127.0.0.1:{rogue.port}/",
            "--body", '{"text": "{{ text }}"}', "--select", "a", "--retries", "0", "--procs", "1", "--json", "--no-progress",
        )  # fmt: skip
        code = started.wait()
    exported = Run("export", str(output), "-o", str(tmp_path / "again.csv"))
    assert exported.wait() == 0, exported.err
    summary = json.loads(started.out)
    ended = (code, summary["ok"], summary["failures"])
    scorecard.add(
        Promise.P10_DATA, "depths of answers", 1, int(ended != (1, 3, {"bad_reply": 6})), rows=len(depths)
    )
    assert ended == (1, 3, {"bad_reply": 6}), started.err
