"""Keys, sockets, files and terminals of whole runs: what must not get out does not, and what is thrown at us does nothing."""

import base64
import json
import os
import stat
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from urllib.parse import quote

import psutil
import pytest
import zmq
from hostile import mangle
from runs import Run, ask_flags, read_rows, until, write_rows
from samples import samples
from scorecard import Promise, Scorecard

from engine.core.quota import Rates
from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess
from engine.wire.messages import Attach, Close, Control, Drain, Hello, Join, Need, Outcomes, Throttled, encode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CANARY = "sk-canary-7f3a+/=9Q"


class Echo(BaseHTTPRequestHandler):
    """Says every header back in an error, as some gateways do, and fails in several ways by turns."""

    count = 0
    seen: tuple[str, ...] = ()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        Echo.count += 1
        Echo.seen = (*Echo.seen, self.headers.get("authorization", ""))
        key = self.headers.get("authorization", "")
        status = (400, 500, 200, 409, 422)[Echo.count % 5]
        body = json.dumps(
            {"error": {"message": f"{key} {quote(key)} is wrong", "headers": dict(self.headers)}}
        ).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-your-key", key)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def shapes(secret: str) -> list[bytes]:
    """The secret as it might stand somewhere: as it is, in a URL, in base64, in JSON."""
    raw = secret.encode()
    coded = base64.b64encode(raw).rstrip(b"=")
    return [
        raw,
        quote(secret, safe="").encode(),
        coded[:-2],
        json.dumps(secret).strip('"').encode(),
        raw.hex().encode(),
    ]


def hits(data: bytes) -> bool:
    return any(shape in data for shape in shapes(CANARY))


def test_a_key_is_in_no_file_no_argument_no_environment_and_no_output(
    tmp_path: Path, limiter_dir: Path, scorecard: Scorecard
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source, output = write_rows(tmp_path / "in.jsonl", 60), tmp_path / "out.jsonl"
    base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    looked, bytes_read, found = 0, 0, []
    try:
        flags = ask_flags(
            base_url, source, output, "--rpm", "1200", "--procs", "2", "--retries", "2", "--meta"
        )
        started = Run(*flags, "--api-key-env", "MY_KEY", environment={"MY_KEY": CANARY})
        sockets: set[Path] = set()
        while not started.is_over():
            for child in started.children():
                try:
                    cmdline = "\0".join(child.cmdline()).encode()
                    environ = Path(f"/proc/{child.pid}/environ").read_bytes()
                except (psutil.Error, OSError):
                    continue
                looked += 2
                bytes_read += len(cmdline) + len(environ)
                found += [
                    f"{what} of {child.pid}"
                    for what, data in (("arguments", cmdline), ("environment", environ))
                    if hits(data)
                ]
            sockets.update(Path(tempfile.gettempdir()).glob(f"engine-{started.pid}-*"))
            for folder in (tmp_path, limiter_dir, *sockets):
                for path in folder.rglob("*"):
                    try:
                        data = path.read_bytes() if path.is_file() else b""
                    except OSError:
                        continue
                    looked += 1
                    bytes_read += len(data)
                    found += [str(path)] if hits(data) else []
            time.sleep(0.05)
        started.wait()
    finally:
        server.shutdown()
        server.server_close()
    found += ["standard output"] if hits(started.out.encode()) else []
    found += ["standard error"] if hits(started.err.encode()) else []
    megabytes = round(bytes_read / 1e6, 1)
    scorecard.add(Promise.P9_SECRETS, "canary scan", 1, int(bool(found)), places=looked, megabytes=megabytes)
    assert found == []
    assert f"Bearer {CANARY}" in Echo.seen  # it did reach the one place it is for
    assert looked > 50
    assert "[secret]" in output.read_text()


def test_frames_that_nobody_of_ours_sent_change_nothing(
    tmp_path: Path, limiter_dir: Path, scorecard: Scorecard
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 400), tmp_path / "out.jsonl"
    random = Random(3)
    forged = [
        Hello("wrong", 0, os.getpid()), Hello("", 0, 1), Control("wrong", ["drain"]), Control("", ["set", "rpm=1"]), Close(),
        Drain(),
        Outcomes([], [], 0, 10_000), Join("wrong", 1, 0, 1, 0, 10**9), Attach("wrong", 1, "x", Rates(1), 100.0),
        Need(0, [10**9] * 100, -(10**9)), Throttled(1e9, 10**9), *samples(),
    ]  # fmt: skip
    with MockProcess(MockSettings(latency="50ms")) as mock:
        started = Run(*ask_flags(mock.base_url, source, output, "--rpm", "12000", "--procs", "2"))
        until(lambda: mock.stats()["ok"] > 20)
        (folder,) = Path(tempfile.gettempdir()).glob(f"engine-{started.pid}-*")
        places = [folder / "c", *(path for path in limiter_dir.rglob("*") if path.is_socket())]
        assert len(places) == 2
        context = zmq.Context()
        sent = 0
        for place in places:
            socket = context.socket(zmq.DEALER)
            socket.connect(f"ipc://{place}")
            for _ in range(1_500):
                good = encode(random.choice(forged))
                frame = random.choice(
                    (good, mangle(good, random), random.randbytes(200), b"", b"\xdd\xff\xff\xff\xff")
                )
                parts = [frame] * random.choice((1, 1, 1, 2, 5))
                socket.send_multipart(parts)
                sent += 1
            socket.send(b"x" * 20_000_000)
            socket.close(linger=2000)
        summary = started.summary()
        context.destroy(linger=0)
    stats = {"ok": summary["ok"], "failed": summary["failed"], "requests": summary["requests"]}
    stats |= {"worker_deaths": summary["worker_deaths"], "limiter ended": "limiter ended" in started.err}
    good = {"ok": 400, "failed": 0, "requests": 400, "worker_deaths": 0, "limiter ended": False}
    scorecard.add(Promise.P10_DATA, "frames at our sockets", 1, int(stats != good), frames=sent)
    assert stats == good


@pytest.mark.not_quick
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nothing_of_a_run_is_for_others_whatever_the_umask(
    tmp_path: Path, limiter_dir: Path, umask: int, scorecard: Scorecard
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl"
    wide: set[str] = set()
    looked = 0
    with MockProcess(MockSettings(latency="50ms")) as mock:
        flags = ask_flags(mock.base_url, source, output, "--rpm", "12000", "--procs", "2")
        started = Run(*flags, prefix=("bash", "-c", f'umask {umask:03o}; exec "$@"', "bash"))
        while not started.is_over():
            folders = [
                Path(f"{output}.run"),
                limiter_dir,
                *Path(tempfile.gettempdir()).glob(f"engine-{started.pid}-*"),
            ]
            for folder in folders:
                for path in (folder, *folder.rglob("*")):
                    try:
                        mode = path.lstat().st_mode
                    except OSError:
                        continue
                    looked += 1
                    inside_private = any(
                        stat.S_IMODE(parent.stat().st_mode) == 0o700
                        for parent in path.parents
                        if parent in folders
                    )
                    # A socket's own mode matters little in a folder that nobody else may enter.
                    if stat.S_IMODE(mode) & 0o077 and not (stat.S_ISSOCK(mode) and inside_private):
                        wide.add(f"{path.name} {stat.S_IMODE(mode):o}")
            time.sleep(0.05)
        assert started.wait() == 0
    scorecard.add(Promise.P9_SECRETS, "permissions", 1, int(bool(wide)), places=looked)
    assert looked > 20
    assert wide == set()


@pytest.mark.not_quick
def test_what_rows_and_servers_say_reaches_the_terminal_harmless(tmp_path: Path) -> None:
    evil = "\x1b]52;c;aGk=\x07\x1b[2J\u202e\r"
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": f"{evil} {n}"}) + "\n" for n in range(30)))
    with MockProcess(MockSettings(answer=evil, faults=())) as mock:
        started = Run(
            *ask_flags(mock.base_url, source, output, "--model", evil.strip("\r"), "--max-failures", "1")
        )
        started.wait()
    for text in (started.out, started.err):
        assert not any(character in text for character in "\x1b\x07\u202e\r")
    if output.exists():
        assert all(evil.strip() in record["text"] for record in read_rows(output))
