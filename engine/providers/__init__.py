"""The providers' table: name -> where its class is. A new provider is one file and one line here."""

from importlib import import_module
from typing import cast

from engine.core.errors import UsageError
from engine.core.model import Target
from engine.providers.base import Provider

PROVIDERS: dict[str, str] = {
    "openai": "engine.providers.openai:OpenAI",
    "azure": "engine.providers.azure:Azure",
    "anthropic": "engine.providers.anthropic:Anthropic",
    "ollama": "engine.providers.ollama:Ollama",
    "http": "engine.providers.http:Http",
    "mock": "engine.providers.mock:Mock",
}


def provider_class(name: str) -> type[Provider]:
    """The class of a provider, imported when asked for. Raises UsageError for an unknown name."""
    place = PROVIDERS.get(name)
    if place is None:
        raise UsageError(f"There is no provider named {name!r}. Known: {', '.join(PROVIDERS)}.")
    module, _, attribute = place.partition(":")
    return cast(type[Provider], getattr(import_module(module), attribute))


def make_provider(target: Target) -> Provider:
    """The provider for a job's target. Raises UsageError when it cannot serve it."""
    return provider_class(target.provider)(target)
