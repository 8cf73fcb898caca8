"""The mock as a process."""

import pytest

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess


def test_the_process_is_reached_past_a_proxy_and_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with MockProcess(MockSettings()) as mock:
        mock.control({"latency": "1ms"})
        assert mock.stats()["requests"] == 0
        process = mock._process
    assert process.returncode == 0


def test_settings_that_cannot_be_served_end_the_start_with_an_error() -> None:
    class Broken(MockSettings):
        def as_json(self) -> bytes:
            return b'{"nonsense": 1}'

    with pytest.raises(RuntimeError, match="did not start"):
        MockProcess(Broken())
