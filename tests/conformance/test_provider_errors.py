"""Errors as real servers word them, and what every provider makes of them: one table, all providers.

The bodies are written after the vendors' documentation and after replies that users have published; the names
in them are made up.
"""

import json
from typing import Any, NamedTuple

import pytest

from engine.core.errors import ErrorKind
from engine.core.model import Failure, Reply, Target
from engine.providers import PROVIDERS, make_provider

K = ErrorKind
MADE = {
    name: make_provider(Target(name, base_url="https://host.example/v1", model="m"))
    for name in sorted(PROVIDERS)
}


class Case(NamedTuple):
    """One error reply and what it is. ``says`` is part of the message."""

    title: str
    status: int
    body: Any  # bytes as they are, anything else as JSON
    kind: ErrorKind
    says: str = ""
    wait_s: float | None = None
    headers: dict[str, str] = {}  # noqa: RUF012


def openai(
    message: str, type_: str = "invalid_request_error", code: Any = None, param: Any = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


TPM = "Rate limit reached for gpt-x in organization org-1 on tokens per min (TPM): Limit {}, Used {}, Requested {}. "
GEMINI_DAY = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"},
        ],
    }
}
GEMINI_MINUTE = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"},
        ],
    }
}
GEMINI_INFO_DAY = {
    "error": {
        "code": 429,
        "message": "Quota exceeded",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quota_limit": "RequestsPerDayPerProject"}}
        ],
    }
}

CASES = [
    # OpenAI
    Case(
        "openai tokens a minute",
        429,
        openai(TPM.format(30000, 29937, 385) + "Please try again in 644ms.", "tokens", "rate_limit_exceeded"),
        K.RATE_LIMITED,
        "Limit 30000",
        0.644,
    ),
    Case(
        "openai requests a minute",
        429,
        openai("Rate limit reached ... Please try again in 20s.", "requests", "rate_limit_exceeded"),
        K.RATE_LIMITED,
        wait_s=20.0,
    ),
    Case(
        "openai minutes and seconds",
        429,
        openai("Please try again in 1m2.5s. Visit the page.", "requests", "rate_limit_exceeded"),
        K.RATE_LIMITED,
        wait_s=62.5,
    ),
    Case(
        "openai one request over the limit",
        429,
        openai(
            "Request too large for gpt-x in organization org-1 on tokens per min (TPM): Limit 30000, Requested 31000. "
            "The input or output tokens must be reduced.",
            "tokens",
            "rate_limit_exceeded",
        ),
        K.REQUEST_TOO_LARGE,
    ),
    Case(
        "openai says too large but it fits",
        429,
        openai("Request too large on TPM: Limit 30000, Requested 29000.", "tokens", "rate_limit_exceeded"),
        K.RATE_LIMITED,
    ),
    Case(
        "used and requested over the limit together",
        429,
        openai(
            TPM.format(30000, 20000, 24754) + "Please try again in 18.642s.", "tokens", "rate_limit_exceeded"
        ),
        K.RATE_LIMITED,
        wait_s=18.642,
    ),
    Case(
        "limits with thousands separators",
        429,
        openai("Limit 30,000, Requested 30,001."),
        K.REQUEST_TOO_LARGE,
    ),
    Case("openai slow down", 429, openai("Slow down", "rate_limit_error", "slow_down"), K.RATE_LIMITED),
    Case(
        "openai no money, older",
        429,
        openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
        K.QUOTA_EXHAUSTED,
    ),
    *(
        Case(f"openai {code}", 429, openai("No.", "insufficient_quota", code), K.QUOTA_EXHAUSTED)
        for code in (
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
        )
    ),
    Case(
        "openai billing code without the type",
        429,
        openai("No.", "x", "billing_hard_limit_reached"),
        K.QUOTA_EXHAUSTED,
    ),
    Case("openai 402", 402, openai("Payment required"), K.QUOTA_EXHAUSTED),
    Case(
        "openai context",
        400,
        openai(
            "This model's maximum context length is 8192 tokens.",
            code="context_length_exceeded",
            param="messages",
        ),
        K.REQUEST_TOO_LARGE,
    ),
    Case(
        "openai parameter",
        400,
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model.",
            code="unsupported_parameter",
        ),
        K.BAD_REQUEST,
        "Unsupported parameter",
    ),
    Case(
        "openai flagged prompt",
        400,
        openai(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
            code="invalid_prompt",
        ),
        K.CONTENT_REFUSED,
    ),
    Case("openai key", 401, openai("Incorrect API key provided.", code="invalid_api_key"), K.UNAUTHORISED),
    Case("openai country", 403, openai("Country, region, or territory not supported"), K.UNAUTHORISED),
    Case("openai model", 404, openai("The model `x` does not exist", code="model_not_found"), K.NOT_FOUND),
    Case(
        "openai model, forbidden", 403, openai("Project has no access", code="model_not_found"), K.NOT_FOUND
    ),
    Case("openai 500", 500, openai("The server had an error", "server_error"), K.SERVER_ERROR),
    Case(
        "openai overloaded",
        503,
        openai("That model is overloaded", "service_unavailable_error", "server_is_overloaded"),
        K.OVERLOADED,
    ),
    Case(
        "a failing server that speaks of rate limits",
        500,
        openai("upstream said rate limit", "rate_limit_error", "rate_limit_exceeded"),
        K.SERVER_ERROR,
    ),
    Case(
        "a header forbids to retry",
        429,
        openai("No."),
        K.QUOTA_EXHAUSTED,
        headers={"x-should-retry": "false"},
    ),
    # Azure
    Case(
        "azure 429",
        429,
        {
            "error": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation have exceeded token rate limit of your "
                "current pricing tier. Please retry after 33 seconds.",
            }
        },
        K.RATE_LIMITED,
        wait_s=33.0,
    ),
    Case(
        "azure 429 with an absurd wait",
        429,
        {"error": {"code": "429", "message": "Please retry after 86400 seconds."}},
        K.RATE_LIMITED,
        wait_s=120.0,
    ),
    Case(
        "azure shared capacity",
        429,
        {"error": {"code": "429", "message": "The system is currently experiencing high demand"}},
        K.RATE_LIMITED,
    ),
    Case(
        "azure filter",
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering the content management policy.",
                "code": "content_filter",
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            }
        },
        K.CONTENT_REFUSED,
    ),
    Case(
        "azure filter, by the inner code only",
        400,
        {"error": {"message": "No.", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        K.CONTENT_REFUSED,
    ),
    Case(
        "azure deployment",
        404,
        {
            "error": {
                "code": "DeploymentNotFound",
                "message": "The API deployment for this resource does not exist.",
            }
        },
        K.NOT_FOUND,
    ),
    Case(
        "azure gateway", 401, {"statusCode": 401, "message": "Access denied"}, K.UNAUTHORISED, "Access denied"
    ),
    Case("azure headers", 431, b"", K.BAD_REQUEST),
    # Anthropic
    *(
        Case(
            f"anthropic {word}",
            status,
            {"type": "error", "error": {"type": word, "message": "M"}, "request_id": "r"},
            kind,
        )
        for status, word, kind in (
            (400, "invalid_request_error", K.BAD_REQUEST),
            (401, "authentication_error", K.UNAUTHORISED),
            (402, "billing_error", K.QUOTA_EXHAUSTED),
            (403, "permission_error", K.UNAUTHORISED),
            (404, "not_found_error", K.NOT_FOUND),
            (409, "conflict_error", K.SERVER_ERROR),
            (413, "request_too_large", K.REQUEST_TOO_LARGE),
            (429, "rate_limit_error", K.RATE_LIMITED),
            (500, "api_error", K.SERVER_ERROR),
            (504, "timeout_error", K.TIMEOUT),
            (529, "overloaded_error", K.OVERLOADED),
        )
    ),
    Case(
        "anthropic credit",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API.",
            },
        },
        K.QUOTA_EXHAUSTED,
    ),
    Case(
        "anthropic spend limit",
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "enforced",
                "code": "enforced_spend_limit_reached",
            },
        },
        K.QUOTA_EXHAUSTED,
    ),
    Case(
        "anthropic long context",
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "Extra usage is required for long context requests.",
            },
        },
        K.REQUEST_TOO_LARGE,
    ),
    Case(
        "anthropic prompt too long",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 215000 tokens > 200000 maximum",
            },
        },
        K.REQUEST_TOO_LARGE,
    ),
    Case(
        "anthropic reset headers",
        429,
        {"type": "error", "error": {"type": "rate_limit_error", "message": "would exceed the rate limit"}},
        K.RATE_LIMITED,
        wait_s=30.0,
        headers={
            "date": "Sat, 21 Nov 2026 03:00:00 GMT",
            "anthropic-ratelimit-requests-remaining": "7",
            "anthropic-ratelimit-requests-reset": "2026-11-21T03:01:00Z",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-21T03:00:30Z",
        },
    ),
    # Gemini, list-wrapped on the OpenAI-compatible route
    Case("gemini minute", 429, [GEMINI_MINUTE], K.RATE_LIMITED, wait_s=38.0),
    Case("gemini day", 429, [GEMINI_DAY], K.QUOTA_EXHAUSTED),
    Case("gemini day, not wrapped", 429, GEMINI_INFO_DAY, K.QUOTA_EXHAUSTED),
    Case(
        "gemini key",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid. Please pass a valid API key.",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        K.UNAUTHORISED,
    ),
    Case(
        "gemini overloaded",
        503,
        [{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}],
        K.OVERLOADED,
    ),
    Case(
        "gemini internal",
        500,
        [{"error": {"code": 500, "message": "x", "status": "INTERNAL"}}],
        K.SERVER_ERROR,
    ),
    # Ollama
    Case("ollama model", 404, {"error": "model 'x' not found"}, K.NOT_FOUND, "model 'x' not found"),
    Case(
        "ollama queue",
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        K.OVERLOADED,
    ),
    Case("ollama cancelled", 499, {"error": "request cancelled"}, K.SERVER_ERROR),
    Case("ollama parameter", 400, {"error": "invalid format"}, K.BAD_REQUEST, "invalid format"),
    # vLLM, SGLang
    Case(
        "vllm context",
        400,
        openai(
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in "
            "the messages, 1000 in the completion).",
            "BadRequestError",
            400,
        ),
        K.REQUEST_TOO_LARGE,
    ),
    Case("vllm model", 404, openai("The model `x` does not exist.", "NotFoundError", 404), K.NOT_FOUND),
    Case("vllm validation", 422, openai("bad", "UnprocessableEntityError", 422), K.BAD_REQUEST),
    Case("vllm fault", 500, openai("boom", "InternalServerError", 500), K.SERVER_ERROR),
    Case("vllm key", 401, {"error": "Unauthorized"}, K.UNAUTHORISED, "Unauthorized"),
    Case(
        "older vllm and sglang, flat",
        400,
        {
            "object": "error",
            "message": "top_p must be in (0, 1]",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        K.BAD_REQUEST,
        "top_p must be",
    ),
    # Groq, Together, Mistral
    Case("groq flex", 498, openai("capacity", "capacity_exceeded"), K.OVERLOADED),
    Case("groq too large", 413, openai("Request too large: Limit 6000, Requested 7000"), K.REQUEST_TOO_LARGE),
    Case(
        "together dynamic limit",
        429,
        {"error": {"message": "busy", "type": "x", "error_type": "dynamic_token_limited"}},
        K.RATE_LIMITED,
        wait_s=2.5,
        headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2.5"},
    ),
    Case("together overloaded", 503, openai("overloaded"), K.OVERLOADED),
    Case("together spend limit", 402, openai("limit"), K.QUOTA_EXHAUSTED),
    Case(
        "together context",
        403,
        openai(
            "Input token count + max_tokens parameter exceeds the context length of the model being queried."
        ),
        K.REQUEST_TOO_LARGE,
    ),
    Case(
        "mistral flat",
        429,
        {
            "object": "error",
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
        },
        K.RATE_LIMITED,
        "Rate limit exceeded",
    ),
    Case("mistral minimal", 429, {"message": "Requests rate limit exceeded"}, K.RATE_LIMITED),
    Case(
        "mistral capacity, 429",
        429,
        {"message": "Service tier capacity exceeded for this model."},
        K.RATE_LIMITED,
    ),
    Case(
        "mistral capacity", 503, {"message": "Service tier capacity exceeded for this model."}, K.OVERLOADED
    ),
    Case(
        "mistral model",
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model"},
        K.NOT_FOUND,
    ),
    # Frameworks, proxies, nothing
    Case(
        "fastapi",
        422,
        {"detail": [{"loc": ["body"], "msg": "field required"}]},
        K.BAD_REQUEST,
        "field required",
    ),
    Case("fastapi text", 404, {"detail": "Not Found"}, K.NOT_FOUND, "Not Found"),
    Case(
        "html",
        502,
        b"<html>\n<head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
        K.SERVER_ERROR,
        "an HTML page, '502 Bad Gateway'",
    ),
    Case("html without a title", 503, b"<!DOCTYPE html><body><h1>Busy</h1></body>", K.OVERLOADED, "Busy"),
    Case("plain text", 504, b"upstream request timeout", K.TIMEOUT, "upstream request timeout"),
    Case("nothing", 500, b"", K.SERVER_ERROR, "without a message"),
    Case("nothing, 429", 429, b"", K.RATE_LIMITED, wait_s=7.0, headers={"retry-after": "7"}),
    Case("json null", 400, b"null", K.BAD_REQUEST),
    Case("empty error", 400, {"error": {}}, K.BAD_REQUEST),
    Case("error is a number", 400, {"error": 5}, K.BAD_REQUEST),
    Case("a string alone", 400, '"no"', K.BAD_REQUEST, "no"),
    Case("not the end of a reply", 101, b"", K.PROTOCOL_ERROR),
    Case("a redirect", 307, b"", K.REDIRECT_REFUSED),
    Case("a wait on 503", 503, b"", K.OVERLOADED, wait_s=2.0, headers={"retry-after": "2"}),
    Case("a wait means nothing on 400", 400, b"", K.BAD_REQUEST, headers={"retry-after": "2"}),
]


def test_titles_of_cases_are_unique() -> None:
    assert len({case.title for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", sorted(PROVIDERS))
@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_an_error_is_of_its_kind_at_every_provider(name: str, case: Case) -> None:
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    failure = MADE[name].parse(Reply(case.status, case.headers, body))
    assert isinstance(failure, Failure)
    assert failure.kind is case.kind
    assert failure.wait_s == (None if case.wait_s is None else pytest.approx(case.wait_s))
    assert failure.status == case.status
    assert case.says in failure.message
