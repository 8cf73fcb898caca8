"""Steps as values: what they keep, what they refuse, and schemas of every kind."""

from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest

from engine import Chain, UsageError, ask, call, request
from engine.api.steps import steps_of


def test_a_step_keeps_what_it_was_told_and_nothing_else() -> None:
    step = ask("{{ text }}", model="m", max_tokens=5, params={"seed": 1}, rpm=100)
    told = {"prompt": "{{ text }}", "model": "m", "max_tokens": 5, "param": {"seed": 1}, "rpm": 100}
    assert (step.kind, step.settings) == ("ask", told)
    assert request("http://x/{{ id }}", select="a").settings == {
        "url": "http://x/{{ id }}",
        "select": "a",
        "provider": "http",
    }
    assert call("json:dumps", into="j").settings == {"function": "json:dumps", "into": "j"}
    assert call(len).function is len


def test_chains_and_lists_are_steps_in_order() -> None:
    one, two, three = ask("1"), ask("2"), ask("3")
    assert Chain([one, Chain([two, three])]).steps == (one, two, three)
    assert steps_of([one, Chain([two])]) == (one, two)
    assert steps_of(one) == (one,)


@pytest.mark.parametrize("steps", [[], "ask", 3, [ask("x"), "y"], lambda row: row])
def test_what_is_no_step_is_refused(steps: Any) -> None:
    with pytest.raises(UsageError, match="step"):
        steps_of(steps)
    with pytest.raises(UsageError, match="step"):
        Chain(steps)


def test_settings_that_no_step_has_are_refused() -> None:
    with pytest.raises(UsageError, match=r"ask\(\) does not know procs"):
        ask("x", procs=3)
    with pytest.raises(UsageError, match="needs a function"):
        call(3)  # type: ignore[arg-type]


@dataclass
class Inner:
    score: float


@dataclass
class Plain:
    label: str
    inner: Inner


class Typed(TypedDict):
    label: str


class Structured(msgspec.Struct):
    label: str


class Modelled:
    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object", "properties": {"label": {"type": "string"}}}


@pytest.mark.parametrize("kind", [Plain, Typed, Structured, Modelled])
def test_a_type_is_a_schema_with_its_properties_at_the_top(kind: type) -> None:
    schema = ask("x", schema=kind).settings["schema"]
    assert schema["properties"]["label"] == {"type": "string"}
    if kind is Plain:
        assert schema["properties"]["inner"] == {"$ref": "#/$defs/Inner"}
        assert set(schema["$defs"]["Inner"]["properties"]) == {"score"}


def test_a_schema_may_be_a_mapping_or_a_path_and_not_just_anything() -> None:
    assert ask("x", schema="facts.json").settings["schema"] == "facts.json"
    assert ask("x", schema={"type": "object"}).settings["schema"] == {"type": "object"}
    with pytest.raises(UsageError, match="The schema"):
        ask("x", schema=object())
