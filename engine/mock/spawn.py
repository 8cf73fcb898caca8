"""The mock provider as a child process, with its statistics at hand: for tests and benchmarks."""

import json
import select
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Any, Self

from engine.mock.settings import MockSettings

START_MAX_S = 20.0
# Proxies of the environment are not for a server on this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class MockProcess:
    """A mock provider that runs until ``close``, or until the block it was opened for ends."""

    def __init__(self, settings: MockSettings | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.mock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write((settings or MockSettings()).as_json() + b"\n")
        self._process.stdin.flush()
        ready = b""
        if select.select([self._process.stdout], [], [], START_MAX_S)[0]:
            ready = self._process.stdout.readline()
        if not ready:
            self._process.kill()
            self.close()
            raise RuntimeError(f"the mock provider did not start within {START_MAX_S:g} s")
        self.port = int(json.loads(ready)["port"])
        self.origin = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.origin}/v1"

    def stats(self) -> dict[str, Any]:
        """What arrived; see ``TruthLog.snapshot``."""
        found: dict[str, Any] = json.loads(self._ask("/stats"))
        return found

    def log(self) -> list[dict[str, Any]]:
        """Every request, where the settings have ``log``."""
        return [json.loads(line) for line in self._ask("/log").splitlines()]

    def control(self, changes: dict[str, Any]) -> None:
        """Change settings while it runs."""
        self._ask("/control", json.dumps(changes).encode())

    def reset(self) -> None:
        """Forget what arrived."""
        self._ask("/reset", b"{}")

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.origin + path, data=body)  # noqa: S310 - loopback, our own server
        with _direct.open(request, timeout=30) as reply:
            data: bytes = reply.read()
        return data

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
