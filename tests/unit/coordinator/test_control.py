"""What ``engine ctl`` may ask, word by word."""

import asyncio
from collections.abc import Callable

import pytest

from engine.coordinator.control import Controls
from engine.core.errors import UsageError
from engine.wire.messages import Control


class FakeSupervisor:
    def __init__(self) -> None:
        self.set: dict[str, int] = {}

    def check_limits(self, limits: dict[str, int], endpoint: int = 0) -> None:
        if "tpm" in limits:
            raise UsageError("This run was started without --tpm.")

    def check_in_flight(self, in_flight: int) -> None:
        if in_flight < 3:
            raise UsageError("3 workers need at least as many requests in flight.")

    def set_limits(self, limits: dict[str, int], endpoint: int = 0) -> None:
        self.set.update({f"{endpoint or ''}{name}": limit for name, limit in limits.items()})

    def set_in_flight(self, in_flight: int) -> None:
        self.set["in_flight"] = in_flight


class FakeSession:
    def __init__(self, *endpoints: str) -> None:
        self.endpoints = list(endpoints or [""])
        self.supervisor = FakeSupervisor()
        self.did: list[object] = []

    def pause(self, is_paused: bool) -> None:
        self.did.append(("pause", is_paused))

    def drain(self) -> None:
        self.did.append("drain")

    def tune(self) -> None:
        self.did.append("tune")


def on_stage(scene: Callable[[FakeSession, Controls], None], *endpoints: str) -> None:
    async def run() -> None:
        session = FakeSession(*endpoints)
        scene(session, Controls(session))  # type: ignore[arg-type]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("words", "did"),
    [(["pause"], [("pause", True)]), (["resume"], [("pause", False)]), (["drain"], ["drain"])],
)
def test_a_word_is_obeyed(words: list[str], did: list[object]) -> None:
    def scene(session: FakeSession, controls: Controls) -> None:
        assert controls.obey(Control(controls.token, words)).ok
        assert session.did == did

    on_stage(scene)


def test_settings_are_read_like_their_flags_and_told_to_the_workers() -> None:
    def scene(session: FakeSession, controls: Controls) -> None:
        answer = controls.obey(Control(controls.token, ["set", "rpm=1200", "in-flight=30"]))
        assert answer.ok
        assert session.supervisor.set == {"rpm": 1200, "in_flight": 30}
        assert session.did == ["tune"]
        assert answer.says == "rpm is 1,200 now, in-flight is 30 now"

    on_stage(scene)


@pytest.mark.parametrize(
    "words",
    [[], ["set"], ["stop"], ["pause", "now"], ["set", "rpm"], ["set", "rpm=-1"], ["set", "rpm=auto"], ["set", "procs=3"],
     ["set", "tpm=5"]],
)  # fmt: skip
def test_what_is_not_understood_changes_nothing_and_is_answered(words: list[str]) -> None:
    def scene(session: FakeSession, controls: Controls) -> None:
        answer = controls.obey(Control(controls.token, words))
        assert not answer.ok
        assert answer.says
        assert (session.did, session.supervisor.set) == ([], {})

    on_stage(scene)


def test_a_stranger_is_not_obeyed() -> None:
    def scene(session: FakeSession, controls: Controls) -> None:
        for token in ("", "ä", controls.token[:-1]):
            assert not controls.obey(Control(token, ["drain"])).ok
        assert session.did == []

    on_stage(scene)


def test_limits_of_one_of_several_endpoints_are_set_by_its_name() -> None:
    def scene(session: FakeSession, controls: Controls) -> None:
        answer = controls.obey(Control(controls.token, ["set", "west.rpm=50", "east.rpm=60", "in-flight=9"]))
        assert answer.says == "west.rpm is 50 now, east.rpm is 60 now, in-flight is 9 now"
        assert session.supervisor.set == {"1rpm": 50, "rpm": 60, "in_flight": 9}

    on_stage(scene, "east", "west")


@pytest.mark.parametrize(
    "word",
    [
        "rpm=50",
        "north.rpm=50",
        "east.rpm=5 west.tpm=5",
        "east.rpm=5 in-flight=1",
        "east.in-flight=5",
        "east.=5",
        ".rpm=5",
    ],
)
def test_with_several_endpoints_a_limit_says_whose_it_is(word: str) -> None:
    def scene(session: FakeSession, controls: Controls) -> None:
        answer = controls.obey(Control(controls.token, ["set", *word.split()]))
        assert not answer.ok
        assert not session.supervisor.set

    on_stage(scene, "east", "west")


def test_a_run_without_a_table_of_endpoints_has_none_by_name() -> None:
    def scene(session: FakeSession, controls: Controls) -> None:
        answer = controls.obey(Control(controls.token, ["set", "east.rpm=50"]))
        assert not answer.ok and "no endpoint named 'east'" in answer.says

    on_stage(scene)
