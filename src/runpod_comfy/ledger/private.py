"""What of a template's variables may be written down."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["keepable_variables"]

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:key|apikey|token|secret|password|passwd|passphrase|credentials?|auth|authorization|bearer|cookie)s?(?:_|$)",
    re.IGNORECASE,
)
# Keys of RunPod, OpenAI and its like, Hugging Face, GitHub, AWS, comfy.org, Civitai-like hex, JSON web tokens.
_SECRET_VALUE = re.compile(
    r"\b(?:rpa_|sk-|hf_|gh[opsu]_|github_pat_|AKIA|comfyui-|Bearer )[A-Za-z0-9_\-.]{8,}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}"
)
_MAX_CHARS = 10_000
"""A longer text is no prompt but data, such as an image in base64."""


def keepable_variables(
    variables: Mapping[str, Any], *, secrets: Iterable[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the variables to write down, and the names of those that are withheld.

    >>> keepable_variables({"prompt": "a fox", "hf_token": "abc", "steps": 8})
    ({'prompt': 'a fox', 'steps': 8}, ('hf_token',))

    Withheld are variables that are named like a secret (``…key``, ``token``, ``password``, …), that look like a known
    kind of key, that hold one of ``secrets``, that are very long, or that are no JSON. Nobody can tell a secret by
    looking at it: one that is called ``prompt`` is kept.
    """
    known = [secret for secret in secrets if secret]
    kept: dict[str, Any] = {}
    withheld: list[str] = []
    for name, value in variables.items():
        text = _json(value)
        if (
            text is None
            or len(text) > _MAX_CHARS
            or any(_SECRET_NAME.search(each) for each in (_snake_case(name), *map(_snake_case, _keys_in(value))))
            or _SECRET_VALUE.search(text)
            or any(secret in text for secret in known)
        ):
            withheld.append(name)
        else:
            kept[name] = json.loads(text)
    return kept, tuple(withheld)


def _json(value: Any) -> str | None:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    return text


def _keys_in(value: Any) -> list[str]:
    """Return the names in nested objects: a secret may be one level down."""
    if isinstance(value, dict):
        return [*map(str, value), *(name for each in value.values() for name in _keys_in(each))]
    if isinstance(value, (list, tuple)):
        return [name for each in value for name in _keys_in(each)]
    return []


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_")
