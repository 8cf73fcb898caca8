"""Which paths are known, and whose they are."""

import pytest

from engine.mock.questions import route_of


@pytest.mark.parametrize(
    ("path", "query", "api", "style"),
    [
        (b"/openai/responses", b"api-version=2025-04-01", "responses", "azure"),
        (b"/openai/v1/responses", b"", "responses", "azure"),
        (b"/openai/deployments/d/embeddings", b"api-version=1", "embeddings", "azure"),
        (b"/v1/messages", b"", "messages", "anthropic"),
    ],
)
def test_every_providers_paths_are_known(path: bytes, query: bytes, api: str, style: str) -> None:
    route = route_of(path, query)
    assert route is not None
    assert (route.api, route.style) == (api, style)


def test_classic_azure_paths_need_their_version() -> None:
    assert route_of(b"/openai/responses", b"") is None
    assert route_of(b"/openai/deployments/d/embeddings", b"") is None
