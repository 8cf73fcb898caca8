"""The steps' table: kind -> where its class is. A new step is one file and one line here."""

from importlib import import_module
from typing import cast

from engine.config import StepSettings
from engine.core.errors import UsageError
from engine.core.model import Target
from engine.providers.base import Provider
from engine.steps.base import Step

STEPS: dict[str, str] = {
    "ask": "engine.steps.ask:Ask",
    "request": "engine.steps.request:Request",
    "call": "engine.steps.call:Call",
}


def make_step(kind: str, settings: StepSettings, target: Target, provider: Provider | None) -> Step:
    """The step of that kind. Raises UsageError for an unknown kind, or settings or templates it cannot use."""
    place = STEPS.get(kind)
    if place is None:
        raise UsageError(f"There is no step named {kind!r}. Known: {', '.join(STEPS)}.")
    module, _, attribute = place.partition(":")
    return cast(Step, getattr(import_module(module), attribute)(settings, target, provider))
