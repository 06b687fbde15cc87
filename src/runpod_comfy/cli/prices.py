"""Where the price of a worker comes from: the command line, the profile, or RunPod's catalogue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runpod_comfy.cost import Price
from runpod_comfy.profiles import read_profile

if TYPE_CHECKING:
    from runpod_comfy.serverless.rest import EndpointFacts, GpuPrice, RestApi
    from runpod_comfy.settings import EndpointSettings

__all__ = ["catalogue_price", "known_price", "open_rest", "today"]


def today() -> str:
    """Return the day as ``YYYY-MM-DD``."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def known_price(per_hour_usd: float | None) -> Price | None:
    """Return the price that was given, or the profile's, or None; nothing is asked of RunPod."""
    if per_hour_usd is not None:
        return Price(per_hour_usd=per_hour_usd, source="from --price", as_of=today())
    profile = read_profile()
    if profile.price_per_hour_usd is None:
        return None
    return Price(
        per_hour_usd=profile.price_per_hour_usd, source=f"from profile {profile.name}", as_of=profile.price_as_of
    )


def catalogue_price(facts: EndpointFacts, prices: list[GpuPrice], *, as_of: str) -> Price | None:
    """Return the price of the cheapest GPU that the endpoint may run on: less than that no worker costs.

    Args:
        facts: How the endpoint is set up.
        prices: RunPod's catalogue.
        as_of: The day on which it was read.
    """
    fitting = [each for each in prices if each.pool in facts.pools or each.name in facts.pools]
    if not fitting:
        return None
    cheapest = min(fitting, key=lambda each: each.per_hour_usd)
    count = f"{facts.gpu_count} x " if facts.gpu_count > 1 else ""
    source = f"{count}{cheapest.name} in RunPod's catalogue (unconfirmed)"
    return Price(per_hour_usd=cheapest.per_hour_usd * facts.gpu_count, source=source, as_of=as_of)


async def open_rest(settings: EndpointSettings) -> RestApi | None:
    """Return RunPod's management API, or None for an endpoint elsewhere; must run on the background loop."""
    from runpod_comfy.serverless.connect import http_session  # noqa: PLC0415 - not for `--help`
    from runpod_comfy.serverless.rest import RestApi  # noqa: PLC0415 - likewise
    from runpod_comfy.settings import rest_url  # noqa: PLC0415 - likewise

    url = rest_url(settings.base_url)
    return None if url is None else RestApi(url, settings.api_key, session=await http_session())
