"""What a ComfyUI behind a proxy wants to see: a bearer token, a name and password, or headers of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.media.wire import to_base64

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["request_headers", "without_credentials"]


def without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return an address without the name and password in it, and those, for they must not reach logs and errors.

    >>> without_credentials("https://me:p%40ss@comfy.example/ui")
    ('https://comfy.example/ui', ('me', 'p@ss'))
    """
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, (unquote(parts.username or ""), unquote(parts.password or ""))


def request_headers(
    *, token: str | None = None, auth: tuple[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the headers for each request.

    Args:
        token: A bearer token.
        auth: Name and password for HTTP basic authentication.
        headers: Further headers.

    Raises:
        ConfigurationError: Two of them say who asks, or one cannot be put into a header; its value is not shown.
    """
    made = dict(headers or {})
    given = [token is not None, auth is not None, any(name.lower() == "authorization" for name in made)]
    if sum(given) > 1:
        raise ConfigurationError(
            "Credentials were given twice: pass one of token=, auth=(name, password), name:password@ in the address, "
            "and an Authorization header."
        )
    if auth is not None:
        if ":" in auth[0]:
            raise ConfigurationError("The name in auth= holds a colon, which HTTP basic authentication cannot send.")
        made["Authorization"] = "Basic " + to_base64(f"{auth[0]}:{auth[1]}".encode())
    if token is not None:
        made["Authorization"] = f"Bearer {token.strip()}"
    for name, value in made.items():
        if not (name.isascii() and value.isascii() and value.isprintable() and value.strip() not in {"", "Bearer"}):
            raise ConfigurationError(
                f"What was given for the header {name} is empty or holds characters that no header has."
            )
    return made
