"""The secrets that a job's calls carry, out of the environment. They travel beside the Job, never in it.

Rules of this file:
1. A missing key is refused before anything is read or sent, but for servers of this machine or network.
"""

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from engine.config import CALL, Job, has_own_origins, jobs_of
from engine.core.errors import UsageError
from engine.credentials import Auth, AuthHeader, secret_from_environment, secret_header
from engine.providers import make_provider, provider_class


def auth_for(job: Job, environment: Mapping[str, str] | None = None) -> tuple[Auth, ...]:
    """The secrets of each of a job's endpoints or steps, from the environment.

    Raises UsageError where one is missing, or would be sent wherever a row says.
    """
    refuse_astray(job)
    source = os.environ if environment is None else environment
    return tuple(_headers_for(one, source) for one in jobs_of(job))


def refuse_astray(job: Job) -> None:
    """Refuse what must not go where rows say: a secret, above all. Raises UsageError."""
    for one in filter(has_own_origins, jobs_of(job)):
        begins = f"The URL {(one.step.url or '')[:200]!r} takes its whole address from the row"
        if job.endpoints:
            raise UsageError(
                f"{begins}, and rows are divided among endpoints: each endpoint needs an address of its own, with scheme, "
                "host and port written out."
            )
        carried = [f"the header {name}, which names a secret" for name, _ in one.secret_headers]
        carried += [f"the key in {one.api_key_env}"] if one.api_key_env else []
        if carried:
            raise UsageError(
                f"{begins}, and {carried[0]}, would be sent wherever a row says. Write scheme, host and port out, or leave "
                "the secret out. Nothing was sent."
            )
        if one.learn_limits:
            raise UsageError(
                f"{begins}, and limits cannot be learnt from replies of different hosts: give a number, or leave it out."
            )


def _headers_for(job: Job, environment: Mapping[str, str]) -> Auth:
    headers: list[AuthHeader] = []
    for name, value in job.secret_headers:
        try:
            headers.append(secret_header(name, value, environment))
        except KeyError as error:
            raise UsageError(
                f"--header {name} names the environment variable {error}, which is not set. Nothing was sent."
            ) from None
    return (*_key(job, environment), *headers)


def _key(job: Job, environment: Mapping[str, str]) -> Auth:
    """The provider's key as a header; none for a local server, a refusal where a key is missing."""
    auth = None if job.target.provider == CALL.provider else provider_class(job.target.provider).auth
    if auth is None:
        return ()
    is_named = bool(job.api_key_env) or job.takes_usual_key
    variable = job.api_key_env or (auth.environment if job.takes_usual_key else "")
    secret = secret_from_environment(variable, environment) if variable else None
    if secret is not None:
        return (AuthHeader(auth.header, (auth.prefix, secret)),)
    origin = make_provider(job.target).origin
    if not job.api_key_env and (not auth.environment or _is_local(origin)):
        return ()
    if not is_named:
        raise UsageError(
            f"There is no key for {origin}: an endpoint with an address of its own takes no other's key. Name the "
            "environment variable that holds it with api_key_env. Nothing was sent."
        )
    raise UsageError(
        f"There is no key for {origin}: the environment variable {variable} is not set. Set it, or name another one "
        "with --api-key-env. Nothing was sent."
    )


def _is_local(origin: str) -> bool:
    host = urlsplit(origin).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name without a dot is a machine of this network (a container, a host file's entry).
        return "." not in host
    return address.is_loopback or address.is_private
