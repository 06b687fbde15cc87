"""Bodies that arrive from clients and workers, read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from runpod_comfy.emulator.jobs import Policy, Request
from runpod_comfy.errors import ApiError

if TYPE_CHECKING:
    from runpod_comfy.emulator.jobs import EndpointConfig

__all__ = ["cut_piece", "parse_message", "parse_request"]

_MIB: Final = 1024 * 1024
_WRITTEN_LEVELS: Final = 250


def parse_request(body: bytes, config: EndpointConfig, *, sync: bool) -> Request:
    """Check the body of ``/run`` or ``/runsync``; other top-level keys than the documented ones are dropped.

    Raises:
        ApiError: 400. The texts, but for the words on size, and the shape of the answer are unconfirmed; so is
            whether RunPod refuses an ``input`` that is no object and a policy out of range.
    """
    limit_bytes = config.runsync_body_limit_bytes if sync else config.run_body_limit_bytes
    if len(body) > limit_bytes:
        raise _bad_request(f"exceeded max body size of {limit_bytes / _MIB:g}MiB", config)
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise _bad_request(f"the body is not JSON: {exc}", config) from exc
    if not isinstance(request, dict) or not isinstance(request.get("input"), dict):
        raise _bad_request('the body must be an object with the key "input", which must be an object', config)
    for_worker = {key: request[key] for key in ("input", "s3Config", "webhook") if request.get(key) is not None}
    if not _can_be_sent_on(for_worker, body):
        raise _bad_request("the body is nested too deeply", config)
    return Request(for_worker=for_worker, policy=_parse_policy(request.get("policy"), config))


def _parse_policy(policy: Any, config: EndpointConfig) -> Policy:
    if policy is None:
        policy = {}
    if not isinstance(policy, dict):
        raise _bad_request("policy must be an object", config)

    def seconds(key: str, *, default_s: float, min_s: float) -> float:
        value = policy.get(key)
        if value is None:
            return default_s
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _bad_request(f"policy.{key} must be a number of milliseconds", config)
        if not min_s <= value / 1000 <= config.max_policy_s:
            limits = f"{min_s * 1000:g} to {config.max_policy_s * 1000:g}"
            raise _bad_request(f"policy.{key} is {value}; it must be {limits} milliseconds", config)
        return float(value / 1000)

    return Policy(
        execution_timeout_s=seconds(
            "executionTimeout", default_s=config.default_execution_timeout_s, min_s=config.min_execution_timeout_s
        ),
        ttl_s=seconds("ttl", default_s=config.default_ttl_s, min_s=config.min_ttl_s),
        low_priority=bool(policy.get("lowPriority")),
    )


def _bad_request(text: str, config: EndpointConfig) -> ApiError:
    return ApiError(text, status_code=400, endpoint_id=config.endpoint_id)


def parse_message(body: bytes) -> dict[str, Any] | None:
    """Read a worker's message; None if it is no JSON object.

    The SDK writes NaN as ``NaN``, which is not JSON; what RunPod does then is unconfirmed.
    """
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return message if isinstance(message, dict) and _can_be_sent_on(message, body) else None


def _can_be_sent_on(message: dict[str, Any], body: bytes) -> bool:
    """Whether this JSON can be written again: of what orjson reads, it writes no more than 254 levels."""
    if body.count(b"[") + body.count(b"{") <= _WRITTEN_LEVELS:
        return True
    try:
        orjson.dumps([message])
    except TypeError:
        return False
    return True


def cut_piece(output_json: bytes, limit_bytes: int) -> list[bytes]:
    """Return a piece, or the several strings that one over the limit becomes, as JSON.

    The documents say that larger outputs are split over chunks; how is unconfirmed. Here a string is cut into strings
    and the JSON text of any other value into strings.
    """
    if len(output_json) <= limit_bytes:
        return [output_json]
    text = orjson.loads(output_json) if output_json.startswith(b'"') else output_json.decode()
    # A character takes at most six bytes of JSON, and only one each in the common case, a long ASCII string.
    step = limit_bytes - 2 if len(output_json) == len(text) + 2 else max(1, (limit_bytes - 2) // 6)
    return [orjson.dumps(text[start : start + step]) for start in range(0, len(text), step)]
