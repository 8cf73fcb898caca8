"""A job's table of steps: what every row goes through, each with a provider, limits and time-outs of its own.

Rules of this file:
1. What a step does not say itself is as the job has it; a step with an address of its own inherits no secret.
   One with another provider than the job's has nothing of the job's address either: its key is not for that.
2. Every refusal is a UsageError that names the step, made before anything is read or sent.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine.config import CALL, MODES, StepPlan, StepSettings, Timeouts
from engine.core.errors import UsageError
from engine.core.model import Target
from engine.core.quota import Rates
from engine.providers import provider_class
from engine.settingtable import SETTINGS, UnknownSetting, limits_of, read_own

STEPS_MAX: Final = 64
KINDS: Final = ("ask", "request", "call")
_QUESTIONS: Final = ("prompt", "prompt_file", "messages", "system")
_REQUESTS: Final = ("url", "method", "header", "body", "select")
_OWN: Final = (
    *_QUESTIONS, *_REQUESTS, "provider", "base_url", "endpoint", "model", "api_version", "max_tokens", "temperature",
    "param", "schema", "into", "timeout", "retries", "api_key_env", *Rates._fields,
)  # fmt: skip
_ADDRESS: Final = ("base_url", "endpoint", "api_version")  # of one provider, and of no other
_FURTHER: Final = ("name", "kind", "take", "when", "keep", "function", "mode")
_ALIASES: Final = {"params": "param", "headers": "header"}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_Headers = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]  # without a secret, and with one


@dataclass(frozen=True, slots=True)
class Readers:
    """How a job reads what its steps say as it would itself. Each takes the job's settings with the step's own over them."""

    target: Callable[[Mapping[str, Any]], Target]
    step: Callable[[Mapping[str, Any], tuple[tuple[str, str], ...], bool], StepSettings]
    headers: Callable[[list[str]], _Headers]
    timeouts: Callable[[float], Timeouts]


def read_steps(
    tables: Sequence[Mapping[str, Any]], values: Mapping[str, Any], readers: Readers
) -> tuple[StepPlan, ...]:
    """The steps that a job's tables describe. ``values``: its settings."""
    if len(tables) > STEPS_MAX:
        raise UsageError(f"A job may have {STEPS_MAX} steps, not {len(tables)}.")
    if values["endpoints"]:
        raise UsageError(
            "A job has endpoints or steps, not both. Give each step its own base_url, or leave the steps out."
        )
    plans: list[StepPlan] = []
    are_kept = False  # whether the job's limits are any step's
    for number, table in enumerate(tables, 1):
        name = str(table.get("name", f"step_{number}"))
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"A step's name begins with a letter and has letters, digits, - and _ (at most 40), not {name!r}."
            )
        if any(plan.name == name for plan in plans):
            raise UsageError(f"Two steps have the name {name!r}.")
        try:
            plan, is_elsewhere = _plan(name, table, values, readers)
        except UsageError as error:
            raise UsageError(f"Step {name}: {error}") from None
        plans.append(plan)
        are_kept = are_kept or not is_elsewhere
    idle = [limit for limit in Rates._fields if values[limit] is not None]
    if idle and not are_kept:
        raise UsageError(
            f"The job's {' and '.join(idle)} would hold for no step: they are for the job's own provider and address, and every "
            f"step goes elsewhere, or sends nothing. Give each step its own, like {idle[0]} = {values[idle[0]]} under "
            "[[steps]]. Nothing was sent."
        )
    return tuple(plans)


def _plan(
    name: str, table: Mapping[str, Any], values: Mapping[str, Any], readers: Readers
) -> tuple[StepPlan, bool]:
    """The step, and whether the job's key and limits are another place's than where it goes."""
    own = _own(table)
    kind = _kind(table, own)
    merged = {**values, **own}
    unused = {"ask": _REQUESTS, "request": _QUESTIONS, "call": (*_QUESTIONS, *_REQUESTS)}[kind]
    if kind == "call" and (limit := next((one for one in Rates._fields if one in own), "")):
        raise UsageError(
            f"{limit} is for steps that send requests. What a function itself sends nobody counts: let the function keep to its "
            "limits."
        )
    for key in unused:
        if key in own:
            raise UsageError(f"{key} is not for steps of kind {kind}.")
        merged[key] = SETTINGS[key].default
    if merged["provider"] != values["provider"]:
        for key in _ADDRESS:
            merged[key] = own.get(key, SETTINGS[key].default)
    is_elsewhere = kind != "ask" or _address(merged) != _address(values)
    if is_elsewhere and "api_key_env" not in own:
        merged["api_key_env"] = None
    if kind == "request":
        merged["provider"] = "http"
        merged["schema"] = own.get("schema")
        merged["method"] = own.get("method", "GET" if merged["body"] is None else "POST")
    if any(key in own for key in ("prompt", "prompt_file", "messages")):
        for key in ("prompt", "prompt_file", "messages"):
            merged[key] = own.get(key)
    merged["into"] = own.get("into") or (name if "schema" not in own else None)
    plain, secret = ((), ()) if kind == "call" else readers.headers(own.get("header", []))
    target = CALL if kind == "call" else readers.target(merged)
    if kind == "call":
        step = _call(table, merged)
    else:
        step = readers.step(merged, plain, kind == "request")
    retries = own["retries"] if "retries" in own else 0 if kind == "call" else merged["retries"]
    limits = own if is_elsewhere else merged  # the job's are another quota's
    plan = StepPlan(
        name=name,
        step=step,
        target=target,
        take=_take(table.get("take", {})),
        when=_text(table, "when"),
        keep=_switch(table, "keep"),
        api_key_env=merged["api_key_env"] or "",
        takes_usual_key=not is_elsewhere or "provider" in own,
        secret_headers=secret,
        retries=retries,
        timeouts=readers.timeouts(merged["timeout"]),
        **limits_of({limit: limits.get(limit) for limit in Rates._fields if kind != "call"}),
    )
    return plan, is_elsewhere


def _address(values: Mapping[str, Any]) -> tuple[str, str]:
    """Where settings send a call: a provider, and its address as far as it is known."""
    provider = values["provider"]
    return provider, (values["base_url"] or provider_class(provider).default_base_url).rstrip("/")


def _own(table: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return read_own(table, _OWN, _FURTHER, _ALIASES)
    except UnknownSetting as error:
        known = ", ".join((*_FURTHER, *_OWN))
        raise UsageError(f"there is no setting {error.name!r} for a step. Known: {known}.") from None


def _kind(table: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    usual = "call" if "function" in table else "request" if "url" in own else "ask"
    kind = str(table.get("kind", usual))
    if kind not in KINDS:
        raise UsageError(f"there is no kind of step named {kind!r}. Known: {', '.join(KINDS)}.")
    if kind != "call" and "function" in table:
        raise UsageError(f"a function is for steps of kind call, not {kind}.")
    return kind


def _call(table: Mapping[str, Any], merged: Mapping[str, Any]) -> StepSettings:
    function, mode = _text(table, "function"), _text(table, "mode")
    if not function:
        raise UsageError('it needs a function, like function = "package.module:name".')
    if mode not in MODES:
        raise UsageError(f"there is no mode {mode!r}. Known: {', '.join(MODES[1:])}.")
    return StepSettings(kind="call", function=function, mode=mode, into=merged["into"], into_given=True)


def _take(raw: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(raw, Mapping) or not all(isinstance(source, str) for source in raw.values()):
        raise UsageError('take is a table like { html = "page" }: a name in the step, and the column it is.')
    return tuple((str(name), source) for name, source in raw.items())


def _text(table: Mapping[str, Any], key: str) -> str:
    raw = table.get(key, "")
    if not isinstance(raw, str):
        raise UsageError(f"{key} is a text, not {raw!r}.")
    return raw


def _switch(table: Mapping[str, Any], key: str) -> bool:
    raw = table.get(key, True)
    if not isinstance(raw, bool):
        raise UsageError(f"{key} is true or false, not {raw!r}.")
    return raw
