"""Checks of the place to run: whether it answers, takes the key, has workers. All are free, and start no worker."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runpod_comfy import _loop
from runpod_comfy.cli.checkup.finding import fault, fine, skipped
from runpod_comfy.cli.prices import open_rest
from runpod_comfy.errors import (
    AuthenticationError,
    ConfigurationError,
    NotFound,
    RateLimited,
    RunpodComfyError,
    TransportError,
)
from runpod_comfy.serverless.connect import connect
from runpod_comfy.serverless.exchange import proxy_for
from runpod_comfy.settings import DEFAULT_BASE_URL, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runpod_comfy.cli.checkup.finding import Finding
    from runpod_comfy.cli.targets import Target
    from runpod_comfy.serverless.api import EndpointHealth
    from runpod_comfy.serverless.rest import EndpointFacts
    from runpod_comfy.settings import EndpointSettings

__all__ = ["check_clock", "check_comfyui", "check_endpoint", "check_workers"]

_LARGEST_SKEW_S = 300.0
"""S3-compatible storage refuses requests that are 15 minutes off; a clock that is 5 off is on its way there."""

_RAISE = "set max workers on the endpoint's page in RunPod's console to 1 or more"


def check_endpoint(
    settings: EndpointSettings,
    target: Target,
    environ: Mapping[str, str],
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Finding | EndpointHealth]:
    """Ask the endpoint for its health, and yield what that tells; last the health itself, where it came."""
    name = settings.endpoint_id
    try:
        proxy = proxy_for(settings.base_url)
    except ConfigurationError as exc:
        yield fault("proxy", str(exc).partition(";")[0], "unset HTTPS_PROXY https_proxy ALL_PROXY all_proxy")
        yield skipped("endpoint", "not asked: the proxy comes first")
        return

    async def ask() -> tuple[EndpointHealth, datetime | None, EndpointFacts | None]:
        health, date = await (await connect(settings)).api.health_and_date()
        return health, date, await _facts(settings)

    try:
        health, date, facts = _loop.run_sync(ask)
    except AuthenticationError as exc:
        where = "RUNPOD_API_KEY" if environ.get("RUNPOD_API_KEY") else "the stored key"
        yield fault("key", f"RunPod does not accept {where} for endpoint {name} ({exc.status_code})", _renewed(environ))
        return
    except NotFound:
        yield fault("endpoint", f"there is no endpoint {name!r}, or the key is another account's", _named(target))
        return
    except RateLimited:
        fix = "wait a minute; stop other programs that use this key"
        yield fault("rate limit", "RunPod refuses requests: there were too many (429)", fix)
        return
    except TransportError as exc:
        yield _no_way(settings, target, environ, proxy, exc)
        return
    except RunpodComfyError as exc:
        yield fault("endpoint", f"{exc}", "try again in some minutes; https://uptime.runpod.io shows outages")
        return
    yield fine("endpoint", f"{name} answers and takes the key" + (", through a proxy" if proxy else ""))
    yield fine("rate limit", "requests are taken")
    yield check_workers(health, facts)
    yield check_clock(date, now())
    yield health


async def _facts(settings: EndpointSettings) -> EndpointFacts | None:
    """Return how the endpoint is set up, where RunPod's REST API v2 (unconfirmed) tells."""
    try:
        rest = await open_rest(settings)
        return None if rest is None else await rest.endpoint(settings.endpoint_id)
    except RunpodComfyError:
        return None


def check_workers(health: EndpointHealth, facts: EndpointFacts | None = None) -> Finding:
    """Say whether workers would take a job.

    Args:
        health: What ``/health`` says.
        facts: How the endpoint is set up, where that is known.
    """
    workers, waiting = health.workers, health.jobs.get("inQueue", 0)
    seen = ", ".join(f"{count} {state}" for state, count in sorted(workers.items()) if count)
    up = sum(workers.get(each, 0) for each in ("idle", "running", "ready", "initializing"))
    if up:
        return fine("workers", seen)
    if facts is not None and facts.workers_max == 0:
        # Docs: after 7 days without requests RunPod sets the maximum to 0, and jobs wait until they expire.
        return fault("workers", "the endpoint's maximum is 0 workers: jobs wait until they expire", _RAISE)
    if workers.get("unhealthy", 0):
        return fault("workers", f"all are unhealthy: they fail as they start ({seen})", "runpod-comfy logs")
    if workers.get("throttled", 0):
        fix = "allow more GPU kinds or data centres on the endpoint's page in RunPod's console"
        return fault("workers", f"all are throttled: RunPod has no free GPU of the endpoint's kinds ({seen})", fix)
    if waiting:
        return fault("workers", f"there is none, and {waiting} jobs wait: the endpoint's maximum may be 0", _RAISE)
    return fine("workers", "none is up; a job starts one")


def check_clock(theirs: datetime | None, ours: datetime) -> Finding:
    """Compare this machine's clock with the server's."""
    if theirs is None:
        return skipped("clock", "the server does not tell the time")
    skew_s = (ours - theirs).total_seconds()
    if abs(skew_s) < _LARGEST_SKEW_S:
        return fine("clock", "right")
    way = "ahead of" if skew_s > 0 else "behind"
    text = f"this machine's clock is {abs(skew_s) / 60:,.0f} minutes {way} the server's: buckets refuse signed requests"
    return fault("clock", text, "sudo timedatectl set-ntp true")


def check_comfyui(target: Target) -> Iterator[Finding]:
    """Ask a ComfyUI server for its version."""
    from runpod_comfy.executors.comfyui import ComfyServerWorkflowExecutor  # noqa: PLC0415 - not for RunPod's users

    shown = shown_url(target.name or "")
    try:
        with ComfyServerWorkflowExecutor(target.name) as server:
            version = server.version()
    except RunpodComfyError as exc:
        port = urlsplit(target.name or "").port or 80
        fix = f"python main.py --listen --port {port}   in ComfyUI's folder, or name another server with --comfyui"
        yield fault("comfyui", f"{shown} is no ComfyUI that answers: {exc}", fix)
        return
    yield fine("comfyui", f"{version} at {shown}")


def _renewed(environ: Mapping[str, str]) -> str:
    if environ.get("RUNPOD_API_KEY"):
        return "export RUNPOD_API_KEY=<KEY>   with one from https://console.runpod.io/user/settings"
    return "runpod-comfy init   with a key from https://console.runpod.io/user/settings"


def _named(target: Target) -> str:
    match target.variable:
        case "RUNPOD_ENDPOINT_ID":
            return "export RUNPOD_ENDPOINT_ID=<ENDPOINT_ID>   (its page in RunPod's console shows it)"
        case str(named) if named.startswith("profile "):
            return f"runpod-comfy init --profile {shlex.quote(named.removeprefix('profile '))} --endpoint <ENDPOINT_ID>"
        case _:
            return "--endpoint <ENDPOINT_ID>, as its page in RunPod's console shows it"


def _no_way(
    settings: EndpointSettings, target: Target, environ: Mapping[str, str], proxy: str | None, exc: TransportError
) -> Finding:
    if proxy is not None:
        fix = f"unset HTTPS_PROXY https_proxy   or: export NO_PROXY={urlsplit(settings.base_url).hostname}"
        return fault("proxy", f"no way through the proxy {shown_url(proxy)}: {exc}", fix)
    if settings.base_url == DEFAULT_BASE_URL:
        return fault("network", f"{exc}", "curl -sI https://api.runpod.ai   (a firewall or a missing connection?)")
    by_variable = environ.get("RUNPOD_ENDPOINT_BASE_URL") and not target.base_url
    fix = "unset RUNPOD_ENDPOINT_BASE_URL" if by_variable else "leave --base-url out, or take it out of the profile"
    return fault("base url", f"{shown_url(settings.base_url)} is not RunPod's address, and does not answer: {exc}", fix)
