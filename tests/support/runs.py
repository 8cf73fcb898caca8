"""Whole runs as a user starts them: real processes, real sockets, the mock provider as the witness."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil


def prompts_of(count: int) -> list[str]:
    """So many prompts, which all differ."""
    return [f"row {number} says hello" for number in range(count)]


def write_rows(path: Path, count: int) -> Path:
    """A JSONL input of the prompts of ``prompts_of``."""
    with path.open("w") as file:
        for number, prompt in enumerate(prompts_of(count)):
            file.write(json.dumps({"id": number, "text": prompt}) + "\n")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL output."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


STARTED: list["Run"] = []
ROOT = Path(__file__).parents[2]


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that ended, and that nobody has asked about, does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Run:
    """One ``engine`` command in a process of its own."""

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        stdin: bytes | None = None,
        prefix: tuple[str, ...] = (),
        folder: Path | None = None,
    ) -> None:
        """``prefix``: a command that becomes the engine's, such as a shell that sets limits first.

        ``folder``: where it is given.
        """
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "engine", *arguments],
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **({"PYTHONPATH": str(ROOT)} if folder else {}), **(environment or {})},
            cwd=folder,
        )
        STARTED.append(self)
        self._stdin = stdin
        self.pid = self._process.pid
        self.out = self.err = ""
        self.output = arguments[arguments.index("-o") + 1] if "-o" in arguments else ""

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit code."""
        out, err = self._process.communicate(self._stdin, timeout_s)
        self.out, self.err = out.decode(), err.decode()
        return self._process.returncode

    def clear_away(self) -> None:
        """Kill it, should it still run, and release its pipes."""
        if self._process.poll() is None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def summary(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """The summary of a run with ``--json``."""
        self.wait(timeout_s)
        return self.last_json()

    def last_json(self) -> dict[str, Any]:
        """What it printed last with ``--json``, once it is over."""
        lines = [line for line in (self.out + "\n" + self.err).splitlines() if line.startswith("{")]
        assert lines, self.err
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def children(self, name: str = "") -> list[psutil.Process]:
        """Its children, or those whose command line names a module."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
            return [child for child in found if not name or name in " ".join(child.cmdline())]
        except psutil.Error:
            return []

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the coordinator."""
        self._process.send_signal(number)


def run(*arguments: str, **options: Any) -> Run:
    """Start a command and wait for its end."""
    started = Run(*arguments, **options)
    started.wait()
    return started


def until(condition: Any, timeout_s: float = 20.0) -> None:
    """Wait for something that other processes do; fails after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def ask_flags(base_url: str, source: Path, output: Path, *more: str) -> tuple[str, ...]:
    """The usual flags of a run against the mock."""
    return (
        "run", str(source), "-o", str(output), "--base-url", base_url, "--model", "mock", "--prompt", "{{ text }}",
        "--json", "--no-progress", *more,
    )  # fmt: skip
