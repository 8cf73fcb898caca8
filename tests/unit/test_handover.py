"""What a worker is told."""

import pytest
from jobs import job

from engine.credentials import AuthHeader, Secret
from engine.handover import (
    ChildSettings,
    Surroundings,
    WorkerSettings,
    decode_handover,
    encode_handover,
)


def test_a_worker_gets_back_what_the_coordinator_handed_over() -> None:
    settings = WorkerSettings(job=job(rpm=5), slot=3, run_id="r", token="t", socket="/s", parent_pid=7)
    auth = ((AuthHeader("Authorization", ("Bearer ", Secret("sk-canary"))),), ())
    line = encode_handover(settings, auth)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode_handover(line, WorkerSettings) == (settings, auth)


def test_functions_and_what_they_need_of_their_program_go_with_the_settings_and_do_not_show() -> None:
    home = Surroundings(("/a", "/b"), ("main.py", "--x"), {"f-1": b"\x00\xff pickled \n"})
    settings = WorkerSettings(job=job(), slot=0, run_id="r", token="t", socket="/s", surroundings=home)
    line = encode_handover(settings, ())
    assert line.count(b"\n") == 1
    assert decode_handover(line, WorkerSettings) == (settings, ())
    assert "pickled" not in repr(settings)
    child = ChildSettings("m:f", True, 10, home, 7)
    assert decode_handover(encode_handover(child), ChildSettings) == (child, ())


def test_a_secret_never_shows_and_is_never_pickled() -> None:
    import pickle

    secret = Secret("sk-canary")
    assert "canary" not in f"{secret} {secret!r} {[secret]}"
    assert secret != "sk-canary"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
