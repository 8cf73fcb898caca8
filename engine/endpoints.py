"""A job's table of endpoints: several places that its rows may go to, each with limits, a key and a weight of its own.

Rules of this file:
1. What an endpoint does not say itself is as the job has it.
2. Every refusal is a UsageError that names the endpoint, made before anything is read or sent.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from engine.config import Endpoint, Job, jobs_of
from engine.core.errors import UsageError
from engine.core.model import Target
from engine.core.quota import Rates
from engine.credentials import Auth, all_secrets
from engine.providers import make_provider
from engine.settingtable import UnknownSetting, limits_of, read_own

ENDPOINTS_MAX: Final = 64
_OWN: Final = ("provider", "base_url", "url", "model", "api_version", "api_key_env", *Rates._fields)
_Headers = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]  # without a secret, and with one
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")


class _Weight(NamedTuple):
    number: float
    is_percent: bool


def read_endpoints(
    tables: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    target_of: Callable[[Mapping[str, Any]], Target],
    headers_of: Callable[[Any], _Headers],
) -> tuple[Endpoint, ...]:
    """The endpoints that a job's tables describe. ``values``: its settings; ``target_of`` may refuse some of them.

    An endpoint with an address of its own inherits no secret: neither the job's key nor its secret headers.
    """
    if len(tables) > ENDPOINTS_MAX:
        raise UsageError(f"A job may have {ENDPOINTS_MAX} endpoints, not {len(tables)}.")
    names, weights, made = [], [], []
    for number, table in enumerate(tables, 1):
        name = str(table.get("name", number))
        if not _NAME.fullmatch(name):
            raise UsageError(f"An endpoint's name has letters, digits, - and _ (at most 40), not {name!r}.")
        if name in names:
            raise UsageError(f"Two endpoints have the name {name!r}.")
        names.append(name)
        merged = {**values, **_own(name, table)}
        weights.append(_weight(name, table.get("weight", 1)))
        is_elsewhere = any(key in table for key in ("base_url", "base-url", "url", "provider"))
        if is_elsewhere and not any(key in table for key in ("api_key_env", "api-key-env")):
            merged["api_key_env"] = None
        try:
            target = target_of(merged)
            plain, secret = headers_of(table.get("headers", merged["header"]))
        except UsageError as error:
            raise UsageError(f"Endpoint {name}: {error}") from None
        if secret and is_elsewhere and "headers" not in table:
            raise UsageError(
                f"The header {secret[0][0]} names a secret, and endpoint {name} has an address of its own: give each "
                "such endpoint headers of its own."
            )
        made.append((name, target, merged, is_elsewhere, plain, secret))
    if len({target.provider == "http" for _, target, *_ in made}) > 1:
        raise UsageError("Endpoints of provider http and of other providers cannot be in one job.")
    _check_sum(weights)
    return tuple(
        Endpoint(
            name=name,
            target=target,
            weight=weight.number,
            url=merged["url"],
            api_key_env=merged["api_key_env"] or "",
            takes_usual_key=not is_elsewhere,
            headers=plain,
            secret_headers=secret,
            **limits_of({limit: merged[limit] for limit in Rates._fields}),
        )
        for (name, target, merged, is_elsewhere, plain, secret), weight in zip(made, weights, strict=True)
    )


def refuse_overruled(tables: Sequence[Mapping[str, Any]], told: set[str]) -> None:
    """Refuse a setting that was given with the command and that an endpoint's table says otherwise."""
    for number, table in enumerate(tables, 1):
        for key in ("header" if raw == "headers" else raw.replace("-", "_") for raw in table):
            if key in told and (key in _OWN or key == "header"):
                raise UsageError(
                    f"--{key.replace('_', '-')} is given, and endpoint {table.get('name', number)} has one of its own in the "
                    "job file: change it there."
                )


def check_different(job: Job, auth: tuple[Auth, ...]) -> None:
    """Refuse two endpoints that are one: they would share a quota, and a limit given to each would count for both."""
    seen: dict[tuple[object, ...], str] = {}
    for endpoint, its_job, headers in zip(job.endpoints, jobs_of(job), auth, strict=False):
        target = its_job.target
        if target.provider == "mock":
            continue  # each has a mock of its own
        same = (make_provider(target).origin, target.model, frozenset(all_secrets(headers)))
        if same in seen:
            raise UsageError(
                f"The endpoints {seen[same]} and {endpoint.name} are one and the same: address, model and key are equal. "
                "Leave one of them out."
            )
        seen[same] = endpoint.name


def _own(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    further = ("name", "weight", "headers")
    try:
        return read_own(table, _OWN, further)
    except UnknownSetting as error:
        known = ", ".join((*further, *_OWN))
        raise UsageError(f"Endpoint {name} has an unknown setting {error.name!r}. Known: {known}.") from None
    except UsageError as error:
        raise UsageError(f"Endpoint {name}: {error}") from None


def _weight(name: str, raw: Any) -> _Weight:
    is_percent = isinstance(raw, str) and raw.strip().endswith("%")
    try:
        number = float(raw.strip().removesuffix("%")) if isinstance(raw, str) else float(raw)
    except (ValueError, TypeError):
        number = -1.0
    if isinstance(raw, bool) or not 0.0 <= number <= 1e6:
        raise UsageError(
            f"Endpoint {name}: weight {raw!r} cannot be used: a number from 0, or a share like 70%."
        )
    return _Weight(number, is_percent)


def _check_sum(weights: list[_Weight]) -> None:
    total = sum(weight.number for weight in weights)
    percents = [weight for weight in weights if weight.is_percent]
    if percents and len(percents) < len(weights):
        raise UsageError("The weights of the endpoints are shares in percent for all of them or for none.")
    if percents and abs(total - 100.0) > 0.1:
        raise UsageError(f"The weights of the endpoints add up to {total:g} %, not to 100 %.")
    if weights and total <= 0.0:
        raise UsageError("The weights of the endpoints add up to nothing: one at least has to be above 0.")
