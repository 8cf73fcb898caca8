"""Hostile input, replies and frames: a clear refusal or a failed row each time, and never a fault of ours."""

import json
from pathlib import Path
from random import Random

import msgspec
import pytest
from hostile import Hostile, corpus, mangle, mangled
from runs import Run, ask_flags
from samples import samples
from scorecard import Promise, Scorecard

from engine.core.errors import RowError, UsageError
from engine.core.model import Answer, Failure, Reply, Target
from engine.formats.record import decode_row
from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess
from engine.providers import PROVIDERS, make_provider
from engine.source import Source
from engine.wire.messages import TAGS, BadFrame, decode, encode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

ROW_BYTES_MAX = 1024 * 1024
REPLIES = (
    b'{"choices":[{"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}',
    b'{"content":[{"type":"text","text":"a"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":4}}',
    b'{"message":{"role":"assistant","content":"a"},"done":true,"prompt_eval_count":3}',
    b'{"error":{"message":"rate limited","type":"x","code":429}}',
    b'{"data":[{"embedding":[0.1,0.2],"index":0}],"usage":{"prompt_tokens":1}}',
    b"<html><title>502 Bad Gateway</title></html>",
)


def rows_in(file: Hostile, folder: Path) -> str:
    """How reading it went: refused, or so many good and bad rows. Raises what should never be raised."""
    path = folder / f"file{file.ending}"
    path.write_bytes(file.content)
    good = bad = 0
    try:
        source = Source(str(path), file.format, row_bytes_max=ROW_BYTES_MAX)
    except UsageError:
        return "refused"
    try:
        for row in source:
            assert len(row.payload) <= ROW_BYTES_MAX or row.bad, "a row over the cap was let through"
            if row.bad:
                bad += 1
                continue
            try:
                values = decode_row(row.payload)
            except RowError:
                bad += 1
                continue
            msgspec.json.encode(values)
            good += 1
    except UsageError:
        return f"refused after {good} and {bad}"
    finally:
        source.close()
    return f"{good} good, {bad} bad"


def test_every_file_of_the_corpus_is_read_or_refused(tmp_path: Path, scorecard: Scorecard) -> None:
    files = list(corpus())
    wrong = {}
    for file in files:
        try:
            rows_in(file, tmp_path)
        except Exception as error:
            wrong[file.name] = repr(error)[:200]
    scorecard.add(Promise.P10_DATA, "hostile files", len(files), len(wrong))
    assert len(files) >= 200
    assert wrong == {}


def test_neighbours_of_a_hostile_line_are_read_as_they_are(tmp_path: Path) -> None:
    for file in corpus():
        if not file.name.startswith("jsonl: line") or "utf-16" in file.name:
            continue
        path = tmp_path / "file.jsonl"
        path.write_bytes(file.content)
        source = Source(str(path), "jsonl", row_bytes_max=ROW_BYTES_MAX)
        rows = list(source)
        source.close()
        assert (rows[0].payload, rows[-1].payload) == (b'{"text": "before"}', b'{"text": "after"}'), file.name


def test_mangled_files_are_read_or_refused(
    tmp_path: Path, scorecard: Scorecard, pytestconfig: pytest.Config
) -> None:
    cases = 600 if pytestconfig.getoption("--trials") != "nightly" else 34_000
    wrong = {}
    for seed in range(cases):
        file = mangled(seed)
        try:
            rows_in(file, tmp_path)
        except Exception as error:
            wrong[file.name] = repr(error)[:200]
    scorecard.add(Promise.P10_DATA, "mangled files", cases, len(wrong))
    assert wrong == {}


def test_mangled_replies_are_answers_or_failures(scorecard: Scorecard, pytestconfig: pytest.Config) -> None:
    cases = 1_500 if pytestconfig.getoption("--trials") != "nightly" else 34_000
    random = Random(5)
    targets = {
        name: Target(
            provider=name,
            base_url="http://127.0.0.1:9/v1",
            model="m",
            select="a.0.b" if name == "http" else "",
        )
        for name in PROVIDERS
    }
    providers = [make_provider(target) for target in targets.values()]
    wrong = []
    for _ in range(cases):
        body = mangle(random.choice(REPLIES), random)
        headers = {"retry-after": random.choice(["nan", "-1", "1e99", "x", ""]), "content-type": "text/html"}
        reply = Reply(random.choice([200, 200, 400, 401, 404, 429, 500, 503, 599]), headers, body)
        for provider in providers:
            try:
                assert isinstance(provider.parse(reply), Answer | Failure)
            except Exception as error:
                wrong.append((body, repr(error)[:200]))
    scorecard.add(Promise.P10_DATA, "mangled replies", cases * len(providers), len(wrong))
    assert wrong == []


def test_a_message_of_every_class_comes_out_of_its_frame_as_it_was() -> None:
    messages = samples()
    assert {type(message) for message in messages} == set(TAGS.values())
    for message in messages:
        assert decode(encode(message), bytes_max=10_000) == message


def test_mangled_frames_are_messages_or_refused(scorecard: Scorecard, pytestconfig: pytest.Config) -> None:
    cases = 3_000 if pytestconfig.getoption("--trials") != "nightly" else 34_000
    random = Random(6)
    frames = [encode(message) for message in samples()]
    assert len(frames) >= len(TAGS)
    frames += [b"\x93\x06\x01\xa1a", b"\x95\x06\x06\x90\x90\x00", b"\xdc\xff\xff", b"\xc1"]
    wrong = []
    for _ in range(cases):
        frame = mangle(random.choice(frames), random)
        try:
            decode(frame, bytes_max=10_000)
        except BadFrame:
            continue
        except Exception as error:
            wrong.append((frame, repr(error)[:200]))
    scorecard.add(Promise.P10_DATA, "mangled frames", cases, len(wrong))
    assert wrong == []


def test_a_whole_run_over_hostile_rows_ends_with_a_record_for_each(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "row"}).encode()]
    lines += [
        file.content.split(b"\n")[1]
        for file in corpus()
        if file.name.startswith("jsonl: line") and file.content.count(b"\n") == 3
    ]
    lines += [file.content.split(b"\n")[0] for file in corpus() if file.name.startswith("jsonl: value")]
    lines = [line for line in lines if line.strip()]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")
    with MockProcess(MockSettings()) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--procs", "2"))
        summary = started.summary()
        before = output.read_bytes()
    assert summary["exit_code"] == 1
    assert (summary["rows"], summary["open"]) == (len(lines), 0)
    assert set(summary["failures"]) <= {"bad_input", "template_error"}
    assert before.count(b"\n") == len(lines) == len(before.decode("utf-8").splitlines())
    assert "Traceback" not in started.err
