"""What a function may return, what its exceptions become, and how the step that calls it is made."""

import dataclasses
import datetime
from typing import Any

import numpy
import pytest

from engine.config import StepSettings
from engine.core.errors import ErrorKind, UsageError
from engine.core.model import Failure, Reply
from engine.credentials import Secret
from engine.steps import make_step
from engine.steps.base import Done
from engine.steps.call import MESSAGE_CHARS_MAX, TRACE_CHARS_MAX, Call, checked, raised


@dataclasses.dataclass
class Found:
    """What a function may return."""

    name: str
    on: datetime.date


LOOP: list[Any] = []
LOOP.append(LOOP)


def told(value: Any) -> Any:
    """A returned value as the row's column holds it, or the failure's message."""
    step = Call(StepSettings(kind="call", function="json:dumps", into="found"))
    result = checked(value, 1_000_000)
    if isinstance(result, Reply):
        absorbed = step.start({}).absorb(result)
        if isinstance(absorbed, Done):
            assert tuple(absorbed.fields) == step.answer_columns == ("found",)
            return absorbed.fields["found"]
        result = absorbed  # type: ignore[assignment]
    assert isinstance(result, Failure) and result.kind is ErrorKind.FUNCTION_ERROR
    return result.message


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        ("text \u2028 é", "text \u2028 é"),
        (2**70, 2**70),
        (float("nan"), None),
        ((1, {2}), [1, [2]]),
        ({"a": [True, 1.5]}, {"a": [True, 1.5]}),
        (Found("x", datetime.date(2024, 2, 29)), {"name": "x", "on": "2024-02-29"}),
        (numpy.int64(7), 7),
        ({"scores": numpy.array([0.5, 1.5], numpy.float32)}, {"scores": [0.5, 1.5]}),
    ],
)
def test_what_is_json_or_has_one_meaning_in_it_is_kept(value: Any, kept: Any) -> None:
    assert told(value) == kept


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"raw", "bytes: decode them"),
        (object(), "no JSON (objects of type object are not JSON)"),
        ({(1, 2): 3}, "no JSON"),
        (LOOP, "contains itself"),
        ("\ud800", "not Unicode"),
        ("x" * 1_000_001, "1,000,003 bytes of JSON; 1,000,000 are allowed"),
    ],
)
def test_what_is_no_json_is_a_failure_with_a_sentence(value: Any, says: str) -> None:
    assert told(value).startswith("the function returned ")
    assert says in told(value)


def test_what_is_nested_deeper_than_a_record_may_be_is_a_failure() -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    assert "nested deeper" in told(deep)


def test_an_exception_has_its_text_and_the_frames_that_raised_it() -> None:
    def inner() -> None:
        raise KeyError("colour")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise ValueError("no colour") from error

    with pytest.raises(ValueError) as caught:
        outer()
    failure = raised(caught.value)
    assert (failure.kind, failure.message) == (ErrorKind.FUNCTION_ERROR, "ValueError: no colour")
    assert "in inner" in failure.trace and failure.trace.endswith("ValueError: no colour\n")
    assert failure.trace.index("KeyError: 'colour'") < failure.trace.index("ValueError: no colour")


def test_a_long_traceback_keeps_its_end_and_a_long_message_its_beginning() -> None:
    failure = raised(ValueError("first " + "x" * 100_000 + " last"))
    assert len(failure.trace) == TRACE_CHARS_MAX and failure.trace.endswith(" last\n")
    assert len(failure.message) == MESSAGE_CHARS_MAX and failure.message.startswith("ValueError: first xx")


def test_an_exception_that_cannot_be_shown_fails_its_row_and_nothing_else() -> None:
    class Shy(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    failure = raised(Shy())
    assert failure.message == "Shy" and "Shy" in failure.trace
    assert raised(SystemExit(3)).message == "SystemExit: 3"
    assert raised(KeyboardInterrupt()).message == "KeyboardInterrupt"


def test_a_secret_in_an_exception_is_masked_in_its_message_and_its_traceback() -> None:
    secret = Secret("sk-canary-1234567890")
    failure = raised(ValueError(f"refused: {secret.reveal()}"))
    assert "canary" not in failure.message and "canary" not in failure.trace


def test_the_step_says_what_it_gives_and_hands_over_the_row() -> None:
    settings = StepSettings(kind="call", function="json:dumps", into="text")
    step = make_step("call", settings, None, None)  # type: ignore[arg-type]
    assert isinstance(step, Call)
    assert step.answer_columns == ("text",) and step.columns == frozenset()
    called = step.start({"a": 1})
    assert called.arguments == {"a": 1} and called.call.charge.tokens == 0


def test_a_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="Known: loop, thread, process"):
        Call(StepSettings(kind="call", function="json:dumps", mode="fork"))


def test_a_name_that_a_script_did_not_have_yet_is_told_with_why() -> None:
    def message(home: str, body: str) -> str:
        names: dict[str, Any] = {"__name__": home}
        exec(f"def f():\n    {body}\ndef helper():\n    return LATER", names)
        try:
            names["f"]()
        except Exception as error:
            return raised(error).message
        raise AssertionError

    hint = "A worker has the names that there were when its Pool was made"
    assert hint in message("__main__", "return LATER")
    assert hint in message("__engine_main__", "return helper()")
    assert hint not in message("a.module", "return LATER")
    assert hint not in message("__main__", "return local; local = 1")
    assert hint not in message("__main__", "raise NameError('of its own', name='helper')")
