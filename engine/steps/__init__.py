"""The steps' table: kind -> where its class is. A new step is one file and one line here."""

from importlib import import_module
from typing import Any, cast

from engine.providers.base import Provider
from engine.steps.base import Step

STEPS: dict[str, str] = {
    "ask": "engine.steps.ask:Ask",
    "request": "engine.steps.request:Request",
}


def make_step(kind: str, settings: dict[str, Any], provider: Provider) -> Step:
    """The step of that kind; ``settings`` are its own (see ``StepSettings`` in ``engine.config``)."""
    module, _, attribute = STEPS[kind].partition(":")
    return cast(Step, getattr(import_module(module), attribute)(settings, provider))
