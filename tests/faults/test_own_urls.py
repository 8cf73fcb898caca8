"""Rows that name whole URLs: none of them gets a connection to where credentials lie, however it is written."""

import json
import os
from pathlib import Path
from typing import Final

import pytest
from hostile import VALUES
from literal import Rogue, reply
from runs import Run, read_rows
from scorecard import Promise, Scorecard
from watch import Watch

from engine.config import WIRES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ASTRAY: Final = (
    "169.254.169.254", "169.254.0.1:80", "169.254.43518", "169.16689662", "2852039166", "0xa9fea9fe", "0XA9.254.43518",
    "0251.0376.0251.0376", "00251.254.0251.254", "169.254.169.254.", "\uff11\uff16\uff19.254.169.254", "169\u3002254.169.254",
    "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[FEBF::1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fd00:ec2::254]", "[fd20:ce::254]",
    "me@169.254.169.254", "169.254.169.254#@127.0.0.1", "127.0.0.1@169.254.169.254", "169.254.169.254\\@127.0.0.1",
    "%31%36%39.254.169.254", "169.254.169.254%00.example", "169.254.169.254\t", "1\t69.254.169.254",
)  # fmt: skip


@pytest.mark.parametrize("wire", WIRES)
def test_a_rows_own_url_never_gets_a_connection_to_where_credentials_lie(
    tmp_path: Path, scorecard: Scorecard, wire: str
) -> None:
    watch = Watch(tmp_path)
    moved = reply(b"", "302 Found", "Location: http://169.254.169.254/latest/")
    with Rogue(lambda request: moved if b"/moved" in request else reply(b"fine")) as first:
        good = f"http://127.0.0.1:{first.port}"
        bad = [f"{scheme}://{host}/latest/meta-data/" for host in ASTRAY for scheme in ("http", "HTTPS")]
        bad += [
            *VALUES.values(),
            f"{good}/a\r\nX-Evil: 1",
            f"{good}\\x",
            f"//127.0.0.1:{first.port}/",
            "unix:/x",
            "file:///x",
        ]
        rows = [{"u": url} for url in (*bad, f"{good}/moved", f"{good}/a/../b c?q=\u00fc#top")]
        source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        Run(
            "run", str(source), "-o", str(output), "--provider", "http", "--method", "GET", "--url", "{{ u }}",
            "--procs", "1", "--json", "--no-progress", "--wire", wire, environment=watch.environment(),
        ).wait()  # fmt: skip
    ends = read_rows(output)
    kinds = [row["_error"].partition(":")[0] for row in ends]
    astray = watch.places() - {("127.0.0.1", first.port)}
    scorecard.add(Promise.P10_DATA, f"whole URLs out of rows, {wire}", len(bad), min(len(bad), len(astray)))
    assert not astray and not watch.others()
    assert kinds == ["bad_request"] * len(bad) + ["redirect_refused", ""], [
        (row["u"][:60], kind) for row, kind in zip(ends, kinds, strict=True) if kind != "bad_request"
    ]
    targets = sorted(request.split(b" ")[1] for request in first.requests)
    assert targets == [b"/b%20c?q=%C3%BC", b"/moved"]


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"])
def test_a_rows_own_url_whose_name_stands_for_such_an_address_fails_unsent(
    tmp_path: Path, address: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"u": "http://endpoint.test/latest/"}) + "\n")
    hooks = str(Path(__file__).parent / "names")
    environment = {
        "ENGINE_NAMES": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, (hooks, os.environ.get("PYTHONPATH", "")))),
    }
    for mode, kind in ((f"at:{address}", "bad_request"), ("nxdomain", "dns")):
        (tmp_path / "mode").write_text(mode)
        Run(
            "run", str(source), "-o", str(tmp_path / "out.jsonl"), "--provider", "http", "--method", "GET", "--url",
            "{{ u }}", "--procs", "1", "--json", "--no-progress", "--fresh", "--retries", "0", environment=environment,
        ).wait()  # fmt: skip
        (row,) = read_rows(tmp_path / "out.jsonl")
        assert row["_error"].startswith(f"{kind}: "), row
        assert kind == "dns" or "no row's request goes there, nothing was sent" in row["_error"]
