"""What is said of endpoints that come and go."""

from engine.coordinator.health import SAY_AGAIN_S, HealthNotes


def test_an_endpoint_is_spoken_of_once_and_again_when_all_workers_use_it() -> None:
    notes: list[str] = []
    health = HealthNotes(["east", "west"], notes.append)
    for slot in range(4):
        health.heard(1, slot, "it failed (server_error)", 1.0)
        health.heard(0, slot, "", 1.0)
    assert notes == [
        "endpoint west is left alone for a while: it failed (server_error); its rows go to the others"
    ]
    for slot in range(3):
        health.heard(1, slot, "", 2.0)
    assert len(notes) == 1
    health.gone(3)
    health.heard(1, 0, "", 2.0)
    assert len(notes) == 1  # who knew more is gone
    health.heard(1, 0, "again", 2.0 + SAY_AGAIN_S)
    health.heard(1, 0, "", 3.5 + SAY_AGAIN_S)
    assert "again; its rows" in notes[1]
    assert notes[2:] == ["endpoint west serves again"]


def test_one_that_comes_and_goes_is_not_spoken_of_each_time() -> None:
    notes: list[str] = []
    health = HealthNotes(["east"], notes.append)
    for second in range(int(SAY_AGAIN_S * 3)):
        health.heard(0, 0, "it failed" if second % 2 else "", float(second))
    assert len(notes) <= 8
