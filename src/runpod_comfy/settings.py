"""Where settings come from: arguments, then the environment, then the user's profile; read here and nowhere else.

| setting | argument | environment | file |
| --- | --- | --- | --- |
| API key | ``api_key=``, ``runpod.api_key`` | ``RUNPOD_API_KEY`` | profile, then RunPod's ``~/.runpod/config.toml`` |
| endpoint | ``endpoint=`` | ``RUNPOD_ENDPOINT_ID`` | profile (see ``profiles``) |
| base URL | ``base_url=`` | ``RUNPOD_ENDPOINT_BASE_URL`` | profile |
| ledger | ``ledger=`` | ``RUNPOD_COMFY_LEDGER`` | |
| ComfyUI | ``url=`` | ``COMFYUI_URL`` | |

Nothing is read at import. The ``runpod`` package is never imported (it takes 1.5 s); where the caller has imported it,
its ``api_key`` is honoured.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit, urlunsplit

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.profiles import read_key, read_profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.profiles import Profile

__all__ = [
    "DEFAULT_BASE_URL",
    "DEFAULT_COMFYUI_URL",
    "EndpointSettings",
    "InputUrls",
    "WorkerProtocol",
    "WorkerSettings",
    "cache_dir",
    "comfyui_url",
    "endpoint_target",
    "ledger_path",
    "rest_url",
    "shown_url",
    "shown_value",
    "stored_key",
]

DEFAULT_BASE_URL = "https://api.runpod.ai/v2"
DEFAULT_REST_URL = "https://api.runpod.io/v2"
DEFAULT_COMFYUI_URL = "http://127.0.0.1:8188"

InputUrls: TypeAlias = Literal["https", "any", "off"]
WorkerProtocol: TypeAlias = Literal["native", "worker-comfyui"]

_SHOWN_CHARS = 60
_DEFAULT_SLOTS, _MAX_SLOTS = 3, 32
_DEFAULT_STALL_S, _MAX_STALL_S = 1800, 7 * 24 * 3600

_NO_KEY = (
    "No RunPod API key. Pass api_key=…, set runpod.api_key or the environment variable RUNPOD_API_KEY, or store it "
    "with `runpod-comfy init`. "
    "Keys are made at https://console.runpod.io/user/settings."
)
_NO_ENDPOINT = (
    "No RunPod endpoint. Pass endpoint='<ENDPOINT_ID>' or set the environment variable RUNPOD_ENDPOINT_ID. "
    "The id is on the endpoint's page in RunPod's console."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """One RunPod endpoint and the key for it.

    Attributes:
        endpoint_id: The endpoint.
        api_key: The key; kept out of ``repr``.
        base_url: Where RunPod's API is, without a trailing slash.
    """

    endpoint_id: str
    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL

    @classmethod
    def resolve(
        cls,
        *,
        endpoint: object = None,
        api_key: str | None = None,
        base_url: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> EndpointSettings:
        """Settle the three from arguments, environment and file.

        Args:
            endpoint: An endpoint id, or an object with an ``endpoint_id``, such as ``runpod.Endpoint``.
            api_key: The key.
            base_url: Another address of the API, such as an emulator's.
            environ: In place of ``os.environ``.

        Raises:
            ConfigurationError: There is no key or no endpoint, or one of the three cannot be right.
        """
        env = os.environ if environ is None else environ
        profile = read_profile(environ=env)
        return cls(
            endpoint_id=_endpoint_id(endpoint, env, profile),
            api_key=_api_key(api_key, env, profile),
            base_url=_base_url(base_url, env, profile),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What the worker on the GPU machine needs to know; the table in ``docs/worker.md`` names the variables.

    Attributes:
        comfyui_url: The ComfyUI server it drives.
        comfyui_dir: ComfyUI's folder, where the worker runs on the same machine; else None.
        command: What starts ComfyUI, or ``()`` where somebody else does.
        volume: Where a network volume with models and custom nodes would be.
        warmup: A workflow to run before the first job, or None.
        protocol: How requests are answered: ``native`` lines, or as RunPod's official ComfyUI worker does.
        input_urls: Which inputs by URL are fetched.
        aggregate: Whether RunPod keeps all lines for ``/status`` too: only where outputs go to a bucket, since an
            aggregate over RunPod's result limit ends the job as COMPLETED with no output at all.
        comfy_org_api_key: The key for nodes that call paid services, where a request brings none; out of ``repr``.
        stall_s: A running prompt that gives no sign of life for so many seconds is taken to hang; None waits for ever.
            Half an hour by default: a node that loads a model or waits for a service gives no sign either.
        slots: How many jobs the worker has in hand at once; ComfyUI computes one prompt after the other all the same.
            With one slot the SDK leaves the GPU idle for a second between two jobs, and with two for a part of it; with
            three it never does, unless jobs take less than a second (measured: ``docs/worker-measurements.md``).
    """

    comfyui_url: str = DEFAULT_COMFYUI_URL
    comfyui_dir: str | None = None
    command: tuple[str, ...] = ()
    volume: str = "/runpod-volume"
    warmup: str | None = None
    protocol: WorkerProtocol = "native"
    input_urls: InputUrls = "https"
    aggregate: bool = False
    slots: int = _DEFAULT_SLOTS
    stall_s: float | None = _DEFAULT_STALL_S
    comfy_org_api_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> WorkerSettings:
        """Read the worker's variables.

        Raises:
            ConfigurationError: One of them has a value that it does not take; the text names it.
        """
        env = os.environ if environ is None else environ
        return cls(
            comfyui_url=comfyui_url(environ=env),
            comfyui_dir=env.get("COMFYUI_DIR") or None,
            command=_comfyui_command(env),
            volume=env.get("WORKER_VOLUME") or "/runpod-volume",
            warmup=env.get("WORKER_WARMUP") or None,
            protocol=_choice(env, "WORKER_PROTOCOL", WorkerProtocol, default="native"),
            input_urls=_choice(env, "WORKER_INPUT_URLS", InputUrls, default="https"),
            aggregate=bool(env.get("BUCKET_ENDPOINT_URL")),
            comfy_org_api_key=env.get("COMFY_ORG_API_KEY") or None,
            slots=_whole_number(env, "WORKER_SLOTS", default=_DEFAULT_SLOTS, lowest=1, highest=_MAX_SLOTS),
            stall_s=_whole_number(env, "WORKER_STALL_S", default=_DEFAULT_STALL_S, lowest=0, highest=_MAX_STALL_S)
            or None,
        )


def endpoint_target(endpoint_id: str, base_url: str | None = None, *, environ: Mapping[str, str] | None = None) -> str:
    """Return what an endpoint's node types are kept under: its id, which elsewhere than on RunPod is not unique.

    >>> endpoint_target("4m7x2k9q", environ={}), endpoint_target("local", "http://127.0.0.1:8000/v2", environ={})
    ('4m7x2k9q', 'http://127.0.0.1:8000/v2/local')
    """
    env = os.environ if environ is None else environ
    found = _base_url(base_url, env, read_profile(environ=env))
    return endpoint_id if found == DEFAULT_BASE_URL else f"{found}/{endpoint_id}"


def rest_url(base_url: str, *, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the address of RunPod's management API, or None where the endpoint is not RunPod's own.

    ``RUNPOD_REST_BASE_URL`` names another. Without it a key for some other address never goes to RunPod.
    """
    env = os.environ if environ is None else environ
    if named := env.get("RUNPOD_REST_BASE_URL"):
        return _http_url(named, "RUNPOD_REST_BASE_URL")
    return DEFAULT_REST_URL if base_url == DEFAULT_BASE_URL else None


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder for what can be asked for again: ``RUNPOD_COMFY_CACHE``, or the user's cache folder."""
    env = os.environ if environ is None else environ
    if named := env.get("RUNPOD_COMFY_CACHE"):
        return Path(named)
    import platformdirs  # noqa: PLC0415 - 16 ms that whoever names the folder does not need

    return platformdirs.user_cache_path("runpod-comfy", appauthor=False)


def _comfyui_command(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return what starts ComfyUI: ``COMFYUI_COMMAND``, or ``main.py`` of ``COMFYUI_DIR`` unless a server is named."""
    command, folder = env.get("COMFYUI_COMMAND", ""), env.get("COMFYUI_DIR", "")
    try:
        words, more = shlex.split(command), shlex.split(env.get("COMFYUI_ARGS", ""))
    except ValueError as exc:
        raise ConfigurationError(f"COMFYUI_COMMAND or COMFYUI_ARGS cannot be read as a command line: {exc}.") from exc
    if not words and folder and not env.get("COMFYUI_URL") and (Path(folder) / "main.py").is_file():
        words = [sys.executable, str(Path(folder) / "main.py")]
    return (*words, *more) if words else ()


def _choice(env: Mapping[str, str], variable: str, choices: Any, *, default: str) -> Any:
    value = env.get(variable, "").strip() or default
    if value not in get_args(choices):
        raise ConfigurationError(f"{variable} is {value!r}; it takes {' or '.join(map(repr, get_args(choices)))}.")
    return value


def ledger_path(
    ledger: bool | str | os.PathLike[str] | None,  # noqa: FBT001 - it is named at its only callers
    *,
    environ: Mapping[str, str] | None = None,
) -> str | None:
    """Return the ledger's file: the argument, or for True ``RUNPOD_COMFY_LEDGER`` or the user's own; None for none."""
    if ledger is None or ledger is False:
        return None
    if ledger is not True:
        return os.fspath(Path(ledger).absolute())
    env = os.environ if environ is None else environ
    if named := env.get("RUNPOD_COMFY_LEDGER"):
        return os.fspath(Path(named).absolute())
    import platformdirs  # noqa: PLC0415 - 16 ms that whoever names the file does not need

    return os.fspath(platformdirs.user_state_path("runpod-comfy", appauthor=False) / "jobs.sqlite")


def comfyui_url(url: str | None = None, *, environ: Mapping[str, str] | None = None) -> str:
    """Return the ComfyUI server's address: the argument, ``COMFYUI_URL``, or ComfyUI's default port here.

    Raises:
        ConfigurationError: It is no http or https address.
    """
    env = os.environ if environ is None else environ
    return _http_url(url or env.get("COMFYUI_URL") or DEFAULT_COMFYUI_URL, "COMFYUI_URL")


def _whole_number(env: Mapping[str, str], variable: str, *, default: int, lowest: int, highest: int) -> int:
    text = env.get(variable, "").strip()
    if not text:
        return default
    # Not int() alone, which takes "1_0" and digits of other scripts, and refuses 5,000 digits in words of its own.
    if not re.fullmatch(r"[0-9]{1,9}", text) or not lowest <= int(text) <= highest:
        raise ConfigurationError(f"{variable} is {text!r}; it takes a whole number from {lowest} to {highest}.")
    return int(text)


def _base_url(base_url: str | None, env: Mapping[str, str], profile: Profile) -> str:
    found = base_url or env.get("RUNPOD_ENDPOINT_BASE_URL") or profile.base_url or DEFAULT_BASE_URL
    url = _http_url(found, "RUNPOD_ENDPOINT_BASE_URL")
    if "@" in urlsplit(url).netloc:  # aiohttp sends no key beside them, and raises a ValueError of its own
        raise ConfigurationError(
            f"{shown_url(url)} was given with a user or password, and RunPod's API takes a key alone. Leave them out "
            "(argument, or RUNPOD_ENDPOINT_BASE_URL)."
        )
    return url


def _endpoint_id(endpoint: object, env: Mapping[str, str], profile: Profile) -> str:
    found = getattr(endpoint, "endpoint_id", endpoint) or env.get("RUNPOD_ENDPOINT_ID") or profile.endpoint
    if not found:
        raise ConfigurationError(_NO_ENDPOINT)
    if not isinstance(found, str):
        raise ConfigurationError(
            f"endpoint is a {type(found).__name__}; it takes an endpoint id, or an object with an endpoint_id."
        )
    endpoint_id = found.strip()
    if in_url := re.match(r"https?://[^/]+/v2/([^/?#]+)", endpoint_id):
        raise ConfigurationError(f"{endpoint_id!r} is an address; the endpoint's id is {in_url[1]!r}. Pass that.")
    if endpoint_id.startswith("<"):
        raise ConfigurationError(
            f"{endpoint_id!r} stands for your endpoint's id, which is on its page in RunPod's console."
        )
    if not endpoint_id.replace("-", "").replace("_", "").isalnum() or not endpoint_id.isascii():
        raise ConfigurationError(f"{endpoint_id!r} is no endpoint id: it takes the short id, not a URL or a name.")
    return endpoint_id


def _api_key(api_key: str | None, env: Mapping[str, str], profile: Profile) -> str:
    in_file = stored_key(env)
    in_module = getattr(sys.modules.get("runpod"), "api_key", None)
    # `import runpod` copies the file's key into runpod.api_key, where it would outrank the environment.
    if in_module == in_file:
        in_module = None
    if not isinstance(api_key, str | None):
        raise ConfigurationError(f"api_key is a {type(api_key).__name__}; it takes a string.")
    key = api_key or in_module or env.get("RUNPOD_API_KEY") or read_key(profile.name, env) or in_file or ""
    key = key.strip()
    if not key:
        raise ConfigurationError(_NO_KEY)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("The RunPod API key holds characters that no key has. Copy it again, without spaces.")
    return key


def stored_key(env: Mapping[str, str]) -> str | None:
    """Return the key that ``runpod config`` stored, or None; an unreadable file counts as absent."""
    home = env.get("HOME") or env.get("USERPROFILE")
    path = (Path(home) if home else Path.home()) / ".runpod" / "config.toml"
    try:
        text = path.read_text("utf-8")
        import tomllib  # noqa: PLC0415 - 4 ms that whoever has no such file does not need

        stored: Any = tomllib.loads(text)
    except (OSError, ValueError):
        return None
    profile = stored.get("default")
    key = profile.get("api_key") if isinstance(profile, dict) else None
    return key if isinstance(key, str) and key else None


def shown_value(value: object) -> str:
    """Return a value that somebody gave, for a message: short, and whatever it is."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - Python writes no number of over 4,300 digits, and other people's classes raise
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def shown_url(url: str) -> str:
    """Return an address for people: without the user and the password that may stand in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _http_url(url: str, variable: str) -> str:
    text = url.strip()
    # Not shown where it may hold a password.
    shown = "That" if "@" in text else repr(text)
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, or a port that is no number below 65536
        is_address = False
    if not is_address:
        more = f" Write http://{text}." if re.fullmatch(r"[\w.-]+(:\d+)?(/.*)?", text) else ""
        raise ConfigurationError(f"{shown} is no http:// or https:// address (argument, or {variable}).{more}")
    return text.rstrip("/")
