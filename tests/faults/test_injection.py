"""Rows, replies and settings that try to be more than data: other hosts, headers, templates, formulas, lines, paths, objects."""

import csv
import io
import json
import os
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

import msgpack
import psutil
import pytest
import zmq
from hostile import VALUES
from literal import Rogue, reply
from runs import Run, ask_flags, read_rows, until, write_rows
from scorecard import Promise, Scorecard
from watch import Watch

from engine.core.errors import RowError, UsageError
from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess
from engine.providers import make_provider
from engine.settings import load
from engine.steps import make_step
from engine.steps.template import Template
from engine.wire.messages import BadFrame, decode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEY: Final = "k-7f3a9Qcanary"
CHAT: Final = b'{"choices":[{"message":{"role":"assistant","content":"fine"},"finish_reason":"stop"}]}'


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def urls_of(second: int) -> list[str]:
    """Values that would lead elsewhere if they were pasted into a URL."""
    away = f"127.0.0.1:{second}"
    return [
        f"@{away}/", f":x@{away}/", f"//{away}/", f"/\\{away}/", f"\\\\{away}\\", f"http://{away}/", f"https:{away}",
        f".{away}", f":{second}", f":{second}/x", f"?@{away}", f"#@{away}/", f"%40{away}", f"%2f%2f{away}", f"\t//{away}",
        "http://169.254.169.254/latest/meta-data/", "//169.254.169.254/", "@169.254.169.254", "@[fd00::1]/", "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "localhost", "unix:/x",
        "file:///etc/passwd", "../admin", "..%2fadmin", "%2e%2e/admin", "..\\admin", "..;/admin", ".", "..", "%00", "\x00",
        "a\r\nHost: evil", "a\nX: y", "a\r\n\r\nGET /stolen HTTP/1.1\r\nHost: x\r\n\r\n", " a b ", "a?b=c&d=e", "a#b", "a;b",
        "\u2028", "\uff0f\uff0fevil", "\u3002", "e\u0301vil", "\ud7ff", "{{ 7 * 7 }}", "%s", "x" * 20_000,
    ]  # fmt: skip


def test_a_row_never_chooses_where_its_request_goes_if_the_host_is_written_out(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    watch = Watch(tmp_path)
    with Rogue(lambda request: reply(b'"fine"')) as first, Rogue() as second:
        values = urls_of(second.port) + list(VALUES.values())
        source, output = (
            write(tmp_path / "in.jsonl", [{"v": value} for value in values]),
            tmp_path / "out.jsonl",
        )
        started = Run(
            "run", str(source), "-o", str(output), "--provider", "http", "--method", "GET",
            "--url", f"http://127.0.0.1:{first.port}/a/{{{{ v }}}}/z?q={{{{ v }}}}&last=1", "--header", "X-Secret: ${MY_KEY}",
            "--procs", "1", "--json", "--no-progress", environment=watch.environment(MY_KEY=KEY),
        )  # fmt: skip
        started.wait()
    wrong = []
    for request in first.requests:
        method, target, _ = request.split(b"\r\n")[0].split(b" ")
        parts = urlsplit(target)
        segments = [unquote_to_bytes(segment) for segment in parts.path.split(b"/")]
        parameters = [tuple(pair.split(b"=")) for pair in parts.query.split(b"&")]
        told = unquote_to_bytes(parameters[0][1])
        fits = segments == [b"", b"a", told, b"z"] and [name for name, *_ in parameters] == [b"q", b"last"]
        whole = request.count(b"\r\n\r\n") == 1 and request.endswith(b"\r\n\r\n") and method == b"GET"
        hosts = re.findall(rb"(?mi)^host: (.*?)\r$", request)
        if not fits or not whole or told.decode() not in values or hosts != [b"127.0.0.1:%d" % first.port]:
            wrong.append(target[:200])
    failed = {row["v"]: row["_error"] for row in read_rows(output) if row["_status"] == "failed"}
    scorecard.add(
        Promise.P10_DATA, "URLs out of rows", len(values), min(len(values), len(wrong) + second.connections)
    )
    assert wrong == [] and second.connections == 0
    assert watch.places() == {("127.0.0.1", first.port)} and not watch.others()
    # A dot segment would be another path, and an address has a longest length: these rows fail, unsent.
    refused = {".", ".."} | {value for value in values if len(value.encode()) > 20_000}
    assert set(failed) == refused & set(values), {value[:40]: error for value, error in failed.items()}
    assert len(first.requests) == len(values) - len(failed)


@pytest.mark.parametrize(
    "url",
    [
        "x{{ v }}", "http://{{ v }}/", "http://127.0.0.1:{{ v }}/", "http://127.0.0.1{{ v }}", "{% if v %}{{ v }}{% endif %}",
        "http://user:{{ v }}@127.0.0.1/", "http://127.0.0.1\\@{{ v }}/", "//{{ v }}/", "http://{% if v %}a{% endif %}/",
        "file:///{{ v }}", "http://127.0.0.1/../{{ v }}", "http+unix://%2Ftmp/{{ v }}", "ftp://127.0.0.1/{{ v }}",
    ],
)  # fmt: skip
def test_a_url_whose_host_a_row_could_choose_is_refused_before_anything_is_sent(
    tmp_path: Path, url: str
) -> None:
    refused(tmp_path, url=url)


@pytest.mark.parametrize("url", ["{{ v }}", " {{ v }}/x", "{{ v }}://127.0.0.1/", "{{- row['v'] }}"])
@pytest.mark.parametrize("secret", [{"header": ["X-Secret: ${MY_KEY}"]}, {"api_key_env": "MY_KEY"}])
def test_a_url_that_is_the_rows_own_is_refused_where_a_secret_would_go_along(
    tmp_path: Path, url: str, secret: dict[str, Any]
) -> None:
    refused(tmp_path, url=url, **secret)


def refused(folder: Path, **flags: Any) -> None:
    source = write(folder / "in.jsonl", [{"v": "x"}])

    def begin() -> None:
        job = load(
            {"input": str(source), "output": str(folder / "o.jsonl"), "provider": "http", **flags}, {}
        ).job
        make_step(job.step.kind, job.step, job.target, make_provider(job.target))

    with pytest.raises(UsageError):
        begin()


@pytest.mark.not_quick
def test_a_batch_line_never_chooses_a_host_or_another_path(tmp_path: Path, scorecard: Scorecard) -> None:
    watch = Watch(tmp_path)
    good = "/v1/chat/completions"
    with Rogue(lambda request: reply(CHAT)) as first, Rogue() as second:
        urls = [
            f"{front}{good}"
            for front in ("", "/..", "/.", "/%2e%2e", "//evil", f"//127.0.0.1:{second.port}", "\\\\x")
        ]
        urls += [
            f"http://127.0.0.1:{second.port}{good}",
            f"@127.0.0.1:{second.port}{good}",
            f"{good}/../admin",
            f"{good}?a=b",
        ]
        urls += [
            f"{good}#x",
            f"{good}\r\nX: y",
            f"{good} HTTP/1.1",
            f"{good}%00",
            "/admin",
            "/v1/files",
            "",
            "/",
            "*",
        ]
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        lines = [
            {"custom_id": f"../../{n}\n", "method": "POST", "url": url, "body": body}
            for n, url in enumerate(urls)
        ]
        lines += [
            {"custom_id": "x", "method": method, "url": good, "body": body}
            for method in ("GET", "CONNECT", "POST /x", "")
        ]
        lines.insert(
            0, {"custom_id": "models", "method": "POST", "url": good, "body": {**body, "model": "../../x"}}
        )
        source, output = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
        started = Run(
            "run", str(source), "-o", str(output), "--base-url", f"http://127.0.0.1:{first.port}/v1", "--procs", "1",
            "--json", "--no-progress", "--api-key-env", "MY_KEY", environment=watch.environment(MY_KEY=KEY),
        )  # fmt: skip
        started.wait()
    asked = {request.split(b"\r\n")[0] for request in first.requests}
    astray = min(len(lines), len(asked - {b"POST /v1/chat/completions HTTP/1.1"}) + second.connections)
    scorecard.add(Promise.P10_DATA, "URLs out of batch lines", len(lines), astray)
    assert asked == {b"POST /v1/chat/completions HTTP/1.1"}, asked
    assert second.connections == 0 and watch.places() == {("127.0.0.1", first.port)}
    ends = read_rows(output)
    assert [row["custom_id"] for row in ends] == [line["custom_id"] for line in lines]
    assert sum(row["error"] is None for row in ends) == len(first.requests) >= 2


@pytest.mark.parametrize(
    "header",
    [
        "X-A: b\r\nX-Evil: 1",
        "X-A: b\nX: 1",
        "X-A: b\0c",
        "X-A\r\nX: 1",
        "Host: evil",
        "Transfer-Encoding: chunked",
    ],
)
def test_a_header_of_the_job_with_a_line_end_or_one_that_frames_is_refused(
    tmp_path: Path, header: str
) -> None:
    refused(tmp_path, url="http://127.0.0.1/", header=[header])


@pytest.mark.not_quick
def test_a_header_never_carries_a_second_one(tmp_path: Path, scorecard: Scorecard) -> None:
    values = [
        f"a{end}X-Evil: 1"
        for end in (
            "\r\n",
            "\n",
            "\r",
            "\r\n\r\nGET /stolen HTTP/1.1\r\n",
            "\n\t",
            "\0",
            "\x0b",
            "\x7f",
            "\x1b",
        )
    ]
    values += [
        "a\u2028X-Evil: 1",
        "a\u010a\u010dX-Evil: 1",
        "a\tb",
        "",
        " ",
        "é",
        "\u560a\u560d",
        *VALUES.values(),
    ]
    with Rogue(lambda request: reply(b'"fine"')) as rogue:
        source, output = (
            write(tmp_path / "in.jsonl", [{"v": value} for value in values]),
            tmp_path / "out.jsonl",
        )
        flags = (
            "--provider",
            "http",
            "--url",
            f"http://127.0.0.1:{rogue.port}/",
            "--procs",
            "1",
            "--json",
            "--no-progress",
        )
        started = Run("run", str(source), "-o", str(output), *flags, "--header", "X-Row: <{{ v }}>")
        started.wait()
        sent = len(rogue.requests)
        rows = read_rows(output)
        broken = Run(
            "run", str(source), "-o", str(tmp_path / "broken.jsonl"), *flags, "--header", "X-A: ${BROKEN}", "--rows", "2",
            environment={"BROKEN": "b\r\nX-Evil: 1"},
        )  # fmt: skip
        assert broken.wait() == 1 and len(rogue.requests) == sent
        assert (
            "X-Evil"
            not in (tmp_path / "broken.jsonl").read_text().replace('X-Evil: 1"', "") + broken.out + broken.err
        )
    wrong = [
        request
        for request in rogue.requests
        if request.count(b"\r\n\r\n") != 1 or re.search(rb"(?mi)^x-evil", request)
    ]
    breaking = [value for value in values if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value)]
    failed = [row["v"] for row in rows if row["_status"] == "failed"]
    scorecard.add(Promise.P10_DATA, "headers out of rows", len(values), len(wrong))
    assert wrong == [] and set(breaking) <= set(failed) and len(breaking) >= 9
    assert sent == len(values) - len(failed) > 20


ESCAPES: Final = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ text.__class__ }}", "{{ text|attr('__class__') }}",
    "{{ self.__init__ }}", "{{ row.__init__.__globals__ }}", "{{ cycler.__init__.__globals__.os.environ }}",
    "{{ lipsum.__globals__['os'].popen('id') }}", "{{ request.application }}", "{{ config }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ '{0.__class__}'.format(text) }}",
    "{{ ('%(x)s' % {'x': 1}).__class__ }}", "{{ range.__globals__ }}", "{{ joiner.__init__ }}", "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.environ }}", "{% extends 'x' %}", "{{ [].append.__self__ }}", "{{ dict.fromkeys.__func__ }}",
    "{{ get_flashed_messages() }}", "{{ url_for.__globals__ }}", "{{ text.format_map(row).__class__ }}", "{{ loop.__init__ }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}", "{{ 'a' * 10 ** 9 }}", "{{ 10 ** (10 ** 9) }}",
    "{% set x = text.__class__ %}{{ x }}", "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{{ m() }}", "{{ debug() }}",
)  # fmt: skip


def test_what_a_row_holds_is_never_a_template_and_no_template_leaves_its_box(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    texts = [
        *ESCAPES,
        *VALUES.values(),
        "{% for x in range(9) %}{{ x }}{% endfor %}",
        "{# gone #}",
        "{{",
        "%}",
        "${MY_KEY}",
        "$MY_KEY",
    ]
    with Rogue(lambda request: reply(CHAT)) as rogue:
        source, output = (
            write(tmp_path / "in.jsonl", [{"text": text} for text in texts]),
            tmp_path / "out.jsonl",
        )
        flags = ask_flags(f"http://127.0.0.1:{rogue.port}/v1", source, output, "--procs", "1")
        Run(*flags, "--system", "{{ text }}", environment={"MY_KEY": KEY}).wait()
        asked = [json.loads(body)["messages"] for body in rogue.bodies]
    assert all(system["content"] == question["content"] for system, question in asked)
    prompts = {question["content"] for _, question in asked}
    ok = [row["text"] for row in read_rows(output) if row["_status"] == "ok"]
    expanded = [text for text in ok if text not in prompts and text.strip()]
    escaped = []
    for text in ESCAPES:
        try:
            escaped.append((text, Template(text).render({"text": "x", "row": "y"})))
        except (UsageError, RowError) as error:
            assert len(str(error)) < 600
    scorecard.add(Promise.P10_DATA, "templates in rows", len(texts), len(expanded))
    scorecard.add(Promise.P10_DATA, "templates that would escape", len(ESCAPES), len(escaped))
    assert expanded == [] and len(ok) >= len(ESCAPES)
    assert escaped == []
    assert KEY not in output.read_text()


def test_cells_lines_and_names_out_of_rows_and_models_stay_what_they_are(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    texts = [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\0=1",
        "\n=1",
        "=cmd|'/c calc'!A1",
        "-2",
        "+3.5e1",
    ]
    texts += [
        "\uff1d1",
        "a\nb",
        "a\r\nb",
        "a\u2028b\u2029c\u0085d",
        "a\x1cb\x0cc\x0bd",
        '","x',
        "a,b;c\td",
        '"',
    ]
    texts += ['{"_status": "ok"}', "../../../etc/passwd", "C:\\x", "x" * 300]
    rows = [
        {"text": text, "=name": text, "../../x": "../../id", "line\u2028end\n": number}
        for number, text in enumerate(texts)
    ]
    told = json.dumps({"choices": [{"message": {"content": "=HYPERLINK(1)\u2028\r\n"}}]}).encode()
    source, output, plain = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "plain.csv"))
    write(source, rows)
    with Rogue(lambda request: reply(told)) as rogue:
        for path, more in ((output, ()), (plain, ("--no-escape-cells",))):
            started = Run(
                *ask_flags(f"http://127.0.0.1:{rogue.port}/v1", source, path, "--procs", "1", *more)
            )
            assert started.wait() == 0, started.err
    for name in ("a.csv", "b.tsv"):
        assert Run("export", str(output), "-o", str(tmp_path / name)).wait() == 0
    tables = {}
    for name in ("a.csv", "b.tsv", "plain.csv"):
        text = (tmp_path / name).read_bytes().decode()
        comma = "\t" if name.endswith("tsv") else ","
        tables[name] = list(csv.reader(io.StringIO(text, newline=""), delimiter=comma))
        assert len(tables[name]) == len(rows) + 1 and {len(row) for row in tables[name]} == {7}, name
    risky = re.compile(r"[=+\-@\t\r\0\n\uff0b\uff0d\uff1d\uff20]")
    cells = [cell for name in ("a.csv", "b.tsv") for row in tables[name] for cell in row]
    loose = [cell for cell in cells if risky.match(cell) and cell not in ("-2", "+3.5e1")]
    failures = min(len(rows), len(loose))
    scorecard.add(Promise.P10_DATA, "cells and lines", len(rows), failures, cells=len(cells))
    assert loose == []
    assert tables["a.csv"][0][1] == "'=name" and tables["a.csv"][1][0] == "'=1+1"
    # An apostrophe is all that is added, and with --no-escape-cells nothing is.
    for name in ("a.csv", "b.tsv"):
        assert [row[0].removeprefix("'") for row in tables[name][1:]] == texts
    assert [row[0] for row in tables["plain.csv"][1:]] == texts
    text = output.read_bytes().decode()
    assert text.count("\n") == len(rows) == len(text.splitlines())
    assert [record["text"] for record in map(json.loads, text.splitlines())] == texts
    # Nothing is named after a row: there is what was asked for, and beside each output of a run its folder.
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.jsonl", "out.jsonl", "out.jsonl.run", "plain.csv", "plain.csv.run", "a.csv", "b.tsv",
    }  # fmt: skip
    kept = {path.name for path in Path(f"{output}.run").iterdir()}
    assert kept <= {"store.db", "store.db-wal", "store.db-shm", "engine.log", "lock"}, kept


class Marker:
    """What, unpickled, makes a folder: the witness that something was."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.not_quick
def test_nothing_that_comes_over_a_socket_is_ever_unpickled(
    tmp_path: Path, limiter_dir: Path, scorecard: Scorecard
) -> None:
    marker = tmp_path / "unpickled"
    loads = [pickle.dumps(Marker(str(marker)), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    frames = [
        *loads,
        *(msgpack.packb(msgpack.ExtType(code, load)) for load in loads for code in (0, 1, 42, 127)),
    ]
    frames += [
        msgpack.packb([6, tag, load, msgpack.ExtType(5, load)]) for load in loads for tag in range(1, 30)
    ]
    for frame in frames:
        with pytest.raises(BadFrame):
            decode(frame, bytes_max=1_000_000)
    source, output = write_rows(tmp_path / "in.jsonl", 100), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="100ms")) as mock:
        flags = ("--rpm", "12000", "--procs", "1", "--in-flight", "8")
        started = Run(*ask_flags(mock.base_url, source, output, *flags))
        until(lambda: mock.stats()["ok"] > 5)
        (folder,) = Path(tempfile.gettempdir()).glob(f"engine-{started.pid}-*")
        places = [folder / "c", *(path for path in limiter_dir.rglob("*") if path.is_socket())]
        # Only files have names here: no process of a run listens on the network.
        processes = [started.pid, *(child.pid for child in started.children())]
        listening = [one for pid in processes for one in _listening(pid)]
        context = zmq.Context()
        for place in places:
            socket = context.socket(zmq.DEALER)
            socket.connect(f"ipc://{place}")
            for frame in frames:
                socket.send(frame)
            socket.close(linger=2000)
        summary = started.summary()
        context.destroy(linger=0)
    sent = len(frames) * len(places)
    scorecard.add(Promise.P10_DATA, "pickles at our sockets", 1, int(marker.exists()), frames=sent)
    assert len(places) == 2 and listening == []
    assert not marker.exists() and (summary["ok"], summary["worker_deaths"]) == (100, 0)
    pickle.loads(loads[0])  # it would have been seen
    assert marker.exists()


def _listening(pid: int) -> list[str]:
    """TCP sockets that a process listens on."""
    try:
        return [
            str(one.laddr)
            for one in psutil.Process(pid).net_connections("tcp")
            if one.status == psutil.CONN_LISTEN
        ]
    except psutil.Error:
        return []
