"""RunPod's management API (REST v2): what the queue's API does not tell, such as prices, bills and logs.

Shapes: the OpenAPI document that RunPod publishes. Nothing of it was confirmed on hosted RunPod, and a key may lack the
rights for it, so whatever asks here can do without the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import aiohttp

from runpod_comfy.errors import ApiError, AuthenticationError, NotFound, ProtocolError, ServerError, TransportError
from runpod_comfy.serverless.exchange import proxy_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = ["EndpointFacts", "GpuPrice", "LogLine", "RestApi", "WorkerFacts"]

_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=10)
_MAX_LINE_BYTES = 1024 * 1024
_SHOWN_BODY_CHARS = 200
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """How an endpoint is set up; what was not told is None or empty."""

    name: str | None = None
    pools: tuple[str, ...] = ()
    gpu_count: int = 1
    workers_max: int | None = None
    idle_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """One worker that is up."""

    worker_id: str
    status: str = ""
    gpu_type: str | None = None
    started_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPrice:
    """What a kind of GPU costs in serverless workers, in US dollars an hour."""

    name: str
    pool: str
    per_hour_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of a worker's log; ``at`` is RFC 3339, or "" where it was not told."""

    at: str
    source: str
    text: str


class RestApi:
    """The management API for one key.

    Args:
        base_url: Its address, without a trailing slash.
        api_key: The key; it goes to that address alone.
        session: The connection pool.
    """

    def __init__(self, base_url: str, api_key: str, *, session: aiohttp.ClientSession) -> None:
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._key = api_key
        self._session = session
        self._proxy = proxy_for(base_url)

    async def endpoint(self, endpoint_id: str) -> EndpointFacts:
        """Return how an endpoint is set up: ``GET /serverless/{id}``."""
        told = _object(await self._json(f"serverless/{quote(endpoint_id, safe='')}"))
        gpu, workers = _object(told.get("gpu")), _object(told.get("workers"))
        count = _number(gpu.get("count"))
        most = _number(workers.get("max"))
        pools = gpu.get("pools")
        return EndpointFacts(
            name=_text(told.get("name")),
            pools=tuple(map(str, pools)) if isinstance(pools, list) else (),
            gpu_count=int(count) if count else 1,
            workers_max=None if most is None else int(most),
            idle_timeout_s=_number(workers.get("idleTimeout")),
        )

    async def workers(self, endpoint_id: str) -> list[WorkerFacts]:
        """Return the workers that are up: ``GET /serverless/{id}/workers``."""
        told = _object(await self._json(f"serverless/{quote(endpoint_id, safe='')}/workers")).get("workers")
        return [
            WorkerFacts(
                worker_id=str(each["id"]),
                status=str(each.get("status", "")),
                gpu_type=_text(each.get("gpuTypeId")),
                started_at=_text(each.get("startedAt")),
            )
            for each in (told if isinstance(told, list) else ())
            if isinstance(each, dict) and each.get("id")
        ]

    async def gpu_prices(self) -> list[GpuPrice]:
        """Return what kinds of GPU cost: ``GET /catalog/gpus``."""
        told = _object(await self._json("catalog/gpus")).get("gpus")
        found = []
        for each in told if isinstance(told, list) else ():
            price = _number(_object(_object(each).get("price")).get("serverless"))
            if price:
                found.append(
                    GpuPrice(
                        name=str(each.get("name") or each.get("id")), pool=str(each.get("pool")), per_hour_usd=price
                    )
                )
        return found

    async def billed(self, endpoint_id: str, *, start: str, end: str) -> tuple[dict[str, float], str, str] | None:
        """Return what was billed for an endpoint, by part, and from when to when: ``GET /billing/serverless``.

        Args:
            endpoint_id: The endpoint.
            start: From then on, RFC 3339.
            end: Until then.

        Returns:
            US dollars by part (``total``, ``gpu``, …), and the first and last time of the days that they are for.
        """
        query = {"serverlessId": endpoint_id, "startTime": start, "endTime": end, "bucketSize": "day"}
        told = _object(await self._json(f"billing/serverless?{urlencode(query)}"))
        records = told.get("records")
        if not isinstance(records, list) or not records:
            return None
        parts: dict[str, float] = {}
        for record in map(_object, records):
            for name, value in record.items():
                amount = _number(value)
                if name.endswith("Amount") and amount is not None:
                    parts[name.removesuffix("Amount")] = parts.get(name.removesuffix("Amount"), 0.0) + amount
        times = [_object(each) for each in records]
        first = min((str(each.get("startTime", start)) for each in times), default=start)
        last = max((str(each.get("endTime", end)) for each in times), default=end)
        return parts, first, last

    async def logs(
        self, endpoint_id: str, worker_id: str, *, since: str | None, follow: bool, quiet_s: float = 3.0
    ) -> AsyncGenerator[LogLine]:
        """Yield a worker's log: ``GET /serverless/{id}/workers/{worker}/logs``, server-sent events.

        Args:
            endpoint_id: The endpoint.
            worker_id: The worker.
            since: From then on, RFC 3339.
            follow: Go on as lines come; else it ends once none has come for ``quiet_s``.
            quiet_s: How long, in seconds.
        """
        place = f"serverless/{quote(endpoint_id, safe='')}/workers/{quote(worker_id, safe='')}/logs"
        query = urlencode({"since": since} if since else {"tail": "1000"})
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=None if follow else quiet_s)
        headers = {**self._headers, "Accept": "text/event-stream"}
        data: list[str] = []
        try:
            async with self._session.get(
                f"{self._base_url}/{place}?{query}",
                headers=headers,
                timeout=timeout,
                proxy=self._proxy,
                allow_redirects=False,
            ) as answer:
                await self._refuse(answer, place)
                async for raw in answer.content:
                    line = raw.decode("utf-8", "replace").rstrip("\r\n")
                    if line.startswith("data:") and sum(map(len, data)) < _MAX_LINE_BYTES:
                        data.append(line.removeprefix("data:").removeprefix(" "))
                    elif not line and data:
                        yield _log_line("\n".join(data))
                        data = []
        except TimeoutError:
            return  # quiet: that was all
        except (aiohttp.ClientError, ValueError) as exc:  # aiohttp's words for a line that never ends
            raise TransportError(f"RunPod's log of worker {worker_id} broke off: {type(exc).__name__}.") from exc

    async def _json(self, path: str) -> Any:
        try:
            async with self._session.get(
                f"{self._base_url}/{path}",
                headers=self._headers,
                timeout=_TIMEOUT,
                proxy=self._proxy,
                allow_redirects=False,
            ) as answer:
                await self._refuse(answer, path)
                return json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise TransportError(
                f"RunPod's management API did not answer to {_bare(path)}: {type(exc).__name__}."
            ) from exc
        except ValueError as exc:
            raise ProtocolError(f"RunPod's management API answered {_bare(path)} with no JSON.") from exc

    async def _refuse(self, answer: aiohttp.ClientResponse, path: str) -> None:
        if answer.status == 200:  # noqa: PLR2004 - the one that is documented
            return
        body = (await answer.content.read(_SHOWN_BODY_CHARS)).decode("utf-8", "replace").replace(self._key, "<key>")
        kind: type[ApiError] = {401: AuthenticationError, 403: AuthenticationError, 404: NotFound}.get(
            answer.status, ServerError if answer.status >= _SERVER_ERROR else ApiError
        )
        raise kind(
            f"RunPod's management API answered {_bare(path)} with {answer.status}: {' '.join(body.split())}",
            status_code=answer.status,
            body=body,
        )


def _log_line(data: str) -> LogLine:
    try:
        told = _object(json.loads(data))
    except ValueError:
        return LogLine(at="", source="", text=data)
    return LogLine(at=str(told.get("ts", "")), source=str(told.get("source", "")), text=str(told.get("line", "")))


def _bare(path: str) -> str:
    return f"/{path.partition('?')[0]}"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None
