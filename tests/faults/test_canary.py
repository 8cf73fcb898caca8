"""Keys in what the other canary scan does not see: every command's output, a terminal, tracebacks, hostile echoes, core files."""

import base64
import json
import os
import pty
import re
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from literal import Rogue, reply
from runs import Run, ask_flags, read_rows, until, write_rows
from scorecard import Promise, Scorecard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CANARY = 'q7Zk/+=9"3f\\Wm0x'  # nothing that looks like a key of any provider, and much that is written otherwise elsewhere
CHAT = b'{"choices":[{"message":{"role":"assistant","content":"fine"},"finish_reason":"stop"}]}'
CRASH = Path(__file__).parent / "crash"
KEYED = ("--api-key-env", "MY_KEY")


def shapes() -> list[str]:
    """The key as it might stand somewhere."""
    coded = base64.b64encode(CANARY.encode()).decode().rstrip("=")
    return [
        CANARY,
        quote(CANARY),
        quote(CANARY, safe=""),
        json.dumps(CANARY)[1:-1],
        repr(CANARY)[1:-1],
        coded,
        base64.b64encode(f"user:{CANARY}".encode()).decode()[7:],  # as Basic authentication repeats it
        CANARY.encode().hex(),
    ]


def hits(text: str) -> bool:
    return any(shape in text for shape in shapes())


def files_with_key(folder: Path) -> list[str]:
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and hits(path.read_bytes().decode("latin-1"))
    ]


@pytest.mark.not_quick
def test_no_command_says_the_key_while_a_run_goes_on_or_after_it(
    tmp_path: Path, limiter_dir: Path, scorecard: Scorecard
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 150), tmp_path / "out.jsonl"
    environment = {"MY_KEY": CANARY}
    commands = [
        ("status", str(output)), ("status", str(output), "--json"), ("quota",), ("quota", "--json"),
        ("ctl", str(output), "pause"),
        ("ctl", str(output), "resume"), ("ctl", str(output), "set", "rpm=5000"), ("export", str(output), "-o", "-"),
        ("ctl", str(output), "drain"),
    ]  # fmt: skip
    released = threading.Event()

    def answer(request: bytes) -> bytes:
        if len(rogue.requests) > 12:
            released.wait(100.0)  # the run goes on for as long as it is asked about
        return reply(CHAT)

    with Rogue(answer) as rogue:
        flags = ask_flags(
            f"http://127.0.0.1:{rogue.port}/v1",
            source,
            output,
            *KEYED,
            "--rpm",
            "6000",
            "--procs",
            "1",
            "--meta",
        )
        begin = ("bash", "-c", 'ulimit -c unlimited; exec "$@"', "bash")
        started = Run(*flags, "--in-flight", "4", environment=environment, prefix=begin)
        until(lambda: len(rogue.requests) > 8)
        pids = [started.pid, *(child.pid for child in started.children("engine.worker"))]
        cores = [
            re.search(r"Max core file size\s+(\S+)", Path(f"/proc/{pid}/limits").read_text()) for pid in pids
        ]
        images = [int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) for pid in pids]
        done = [Run(*command, environment=environment) for command in commands[:4]]
        done += [
            one
            for command in commands[4:]
            for one in [Run(*command, environment=environment)]
            if one.wait() < 99
        ]
        codes = [one.wait() for one in done]
        released.set()
        started.wait()
        again = [Run(*flags, "--explain", environment=environment), Run("doctor", environment=environment)]
        codes += [one.wait() for one in again[:1]]
        again[1].wait()
    told = [one.out + one.err for one in (*done, *again, started)]
    said = [text for text in told if hits(text)]
    kept = files_with_key(tmp_path) + files_with_key(limiter_dir)
    found = said + kept
    scorecard.add(Promise.P9_SECRETS, "what commands say", len(told), len(said))
    scorecard.add(Promise.P9_SECRETS, "files beside commands", 1, int(bool(kept)))
    assert found == [] and codes == [0] * len(codes)
    assert [core is not None and core.group(1) for core in cores] == ["0"] * 2
    assert images == [0, 0]
    assert "[secret]" in again[0].out  # it is named there, and masked
    assert f"Bearer {CANARY}".encode() in rogue.requests[0]


@pytest.mark.not_quick
def test_a_terminal_sees_neither_the_key_nor_what_rows_and_servers_would_do_to_it(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    evil = "\x1b]52;c;aGk=\x07\x1b]8;;http://x\x1b\\\x1b[41m\u202e\x9b2J"
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": f"{evil} {n}"}) + "\n" for n in range(40)))

    def answer(request: bytes) -> bytes:
        time.sleep(0.1)
        return reply(
            json.dumps({"error": {"message": f"{evil} {CANARY} {evil}"}}).encode(), "401 Unauthorized"
        )

    master, slave = pty.openpty()
    seen = bytearray()

    def watch() -> None:
        try:
            while data := os.read(master, 65_536):
                seen.extend(data)
        except OSError:
            return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with Rogue(answer) as rogue:
        flags = ask_flags(
            f"http://127.0.0.1:{rogue.port}/v1", source, output, *KEYED, "--procs", "1", "--in-flight", "1"
        )
        shown = [flag for flag in flags if flag not in ("--no-progress", "--json")]
        terminal = ("bash", "-c", f'exec "$@" 2>{os.ttyname(slave)} >{os.ttyname(slave)}', "bash")
        assert (
            Run(
                *shown, "--model", evil, environment={"MY_KEY": CANARY, "TERM": "xterm"}, prefix=terminal
            ).wait()
            == 3
        )
    os.close(slave)
    watcher.join(5.0)
    os.close(master)
    text = seen.decode("utf-8", "replace")
    wrong = [piece for piece in ("\x1b]", "\x07", "\x1b[41m", "\u202e", "\x9b") if piece in text]
    scorecard.add(Promise.P10_DATA, "what a terminal sees", 1, int(bool(wrong) or hits(text)))
    assert wrong == [] and not hits(text)
    assert "\x1b[" in text and "key was refused" in text  # it was a live view, and it told what happened


@pytest.mark.quick(code=[6])
@pytest.mark.parametrize(
    ("point", "code"),
    [
        ("engine.worker.fetch:Fetcher.start", 0),  # a worker dies of it, and another one goes on
        ("engine.worker.loop:Worker.run", 0),
        (
            "engine.worker.loop:Worker._on_message",
            0,
        ),  # the loop calls it, and would log what it raises as it is
        ("engine.coordinator.session:Session._outcomes", 6),
        ("engine.store.store:Store.apply", 6),
        ("engine.coordinator.run:run_job", 6),
    ],
)
def test_a_fault_of_our_own_is_told_without_the_key_that_its_text_quotes(
    tmp_path: Path, limiter_dir: Path, point: str, code: int, scorecard: Scorecard
) -> None:
    source, output, marker = (
        write_rows(tmp_path / "in.jsonl", 30),
        tmp_path / "out.jsonl",
        tmp_path / "raised",
    )
    environment = {
        "MY_KEY": CANARY, "ENGINE_CRASH_AT": f"{point}:raise:1:{marker}", "ENGINE_CRASH_TEXT": CANARY.encode()[::-1].hex(),
        "PYTHONPATH": os.pathsep.join((str(CRASH), os.environ.get("PYTHONPATH", ""))),
    }  # fmt: skip
    with Rogue(lambda request: reply(CHAT)) as rogue:
        flags = ask_flags(f"http://127.0.0.1:{rogue.port}/v1", source, output, *KEYED, "--procs", "1")
        started = Run(*flags, environment=environment)
        ended = started.wait()
    told = started.out + started.err
    found = files_with_key(tmp_path) + files_with_key(limiter_dir) + [told] * hits(told)
    scorecard.add(Promise.P9_SECRETS, "faults that quote the key", 1, int(bool(found)))
    assert marker.exists(), "the point was never reached"
    assert found == []
    assert ended == code and "[secret] in it" in told, told
    assert ("Traceback" in told) is (code == 6)


def test_a_server_that_says_the_key_back_in_any_form_is_quoted_without_it(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    forms = shapes()

    def answer(request: bytes) -> bytes:
        found = re.search(rb"row (\d+) ", request)
        assert found is not None
        number = int(found.group(1))
        said, kind = forms[number % len(forms)], number // len(forms) % 3
        body = (
            said.encode()
            if kind == 0
            else json.dumps({"error": {"message": f"bad key {said}", "code": said}}).encode()
        )
        return reply(body, ("400 Bad Request", "422 Unprocessable", "200 OK")[kind], f"X-Request-Id: {said}")

    rows = 3 * len(forms)
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with Rogue(answer) as rogue:
        flags = ask_flags(
            f"http://127.0.0.1:{rogue.port}/v1",
            source,
            output,
            *KEYED,
            "--procs",
            "1",
            "--retries",
            "0",
            "--meta",
        )
        started = Run(*flags, environment={"MY_KEY": CANARY})
        started.wait()
    ends = read_rows(output)
    told = [row["_error"] for row in ends]
    found = [text for text in (*told, started.out + started.err) if hits(text)] + files_with_key(tmp_path)
    scorecard.add(Promise.P9_SECRETS, "keys said back", rows, min(rows, len(found)))
    assert found == [] and len(rogue.requests) == rows
    assert sum("[secret]" in text for text in told) >= rows // 2, told
