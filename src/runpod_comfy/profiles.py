"""Named places to run at, kept in one file of the user's; the key apart from it.

::

    # <user's configuration folder>/runpod-comfy/config.toml, or the file that RUNPOD_COMFY_CONFIG names
    [profiles.default]
    endpoint = "4m7x2k9q"
    price_per_hour_usd = 1.1        # of a worker of this endpoint, for estimates
    price_as_of = "2026-11-24"

``RUNPOD_COMFY_PROFILE`` chooses another than ``default``. A key is stored in the system's keyring where the package
``keyring`` is installed and has one, else in ``credentials.toml`` beside that file, which only its owner may read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_PROFILE",
    "Profile",
    "config_file",
    "credentials_file",
    "read_key",
    "read_profile",
    "store_key",
    "store_profile",
]

DEFAULT_PROFILE = "default"

_KEYRING_SERVICE = "runpod-comfy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One place to run at, as the file has it; what it does not say is None.

    Attributes:
        name: Its name.
        endpoint: The RunPod endpoint's id.
        base_url: Another address of RunPod's API.
        comfyui: The address of a ComfyUI server, in place of an endpoint.
        price_per_hour_usd: What a worker costs, in US dollars an hour; for estimates.
        price_as_of: The day on which that was the price, as ``YYYY-MM-DD``.
    """

    name: str = DEFAULT_PROFILE
    endpoint: str | None = None
    base_url: str | None = None
    comfyui: str | None = None
    price_per_hour_usd: float | None = None
    price_as_of: str | None = None


_TYPES: dict[str, tuple[type, ...]] = {
    "endpoint": (str,),
    "base_url": (str,),
    "comfyui": (str,),
    "price_per_hour_usd": (int, float),
    "price_as_of": (str,),
}


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the profiles' file, whether it exists or not."""
    env = os.environ if environ is None else environ
    if named := env.get("RUNPOD_COMFY_CONFIG"):
        return Path(named)
    import platformdirs  # noqa: PLC0415 - 16 ms that whoever names the file does not need

    return platformdirs.user_config_path("runpod-comfy", appauthor=False) / "config.toml"


def read_profile(name: str | None = None, environ: Mapping[str, str] | None = None) -> Profile:
    """Return a profile; an empty one where there is no file, or the default one is not in it.

    Args:
        name: The profile; None takes ``RUNPOD_COMFY_PROFILE``, then ``default``.
        environ: In place of ``os.environ``.

    Raises:
        ConfigurationError: The file is broken, or has no profile of that name.
    """
    env = os.environ if environ is None else environ
    wanted = name or env.get("RUNPOD_COMFY_PROFILE") or DEFAULT_PROFILE
    path = config_file(env)
    profiles = _table(_read_toml(path), "profiles", path)
    if wanted not in profiles:
        if wanted == DEFAULT_PROFILE:
            return Profile()
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigurationError(f"There is no profile {wanted!r} in {path}; there are: {known}. Or run init.")
    values = _table(profiles, wanted, path)
    for key, value in values.items():
        if key in _TYPES and (isinstance(value, bool) or not isinstance(value, _TYPES[key])):
            raise ConfigurationError(f"{path}: {key} of profile {wanted!r} is {value!r}, which is of the wrong type.")
    return Profile(name=wanted, **{key: values[key] for key in _TYPES if key in values})


def store_profile(profile: Profile, environ: Mapping[str, str] | None = None) -> Path:
    """Write a profile into the file and return its path; other profiles and comments stay as they are.

    Raises:
        ConfigurationError: The file is broken.
        OSError: It cannot be written.
    """
    path = config_file(environ)
    _read_toml(path)
    values = {each.name: getattr(profile, each.name) for each in fields(profile) if each.name != "name"}
    _update_toml(path, ("profiles", profile.name), values, mode=0o644)
    return path


def read_key(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the key that was stored for a profile, or None."""
    path = credentials_file(environ)
    stored = _read_toml(path).get(name)
    if isinstance(stored, dict) and isinstance(stored.get("api_key"), str):
        return stored["api_key"] or None
    # Only where something was stored: asking a keyring may open a window or start a service.
    if isinstance(stored, dict) and stored.get("keyring") is True and (ring := _keyring()) is not None:
        found: str | None = ring.get_password(_KEYRING_SERVICE, name)
        return found
    return None


def store_key(name: str, key: str, environ: Mapping[str, str] | None = None) -> str:
    """Store a profile's key and say where, in words.

    Raises:
        OSError: There is no keyring, and the file cannot be written.
    """
    path = credentials_file(environ)
    ring = _keyring()
    if ring is not None:
        ring.set_password(_KEYRING_SERVICE, name, key)
        _update_toml(path, (name,), {"keyring": True, "api_key": None}, mode=0o600)
        return "the system's keyring"
    _update_toml(path, (name,), {"keyring": None, "api_key": key}, mode=0o600)
    return str(path)


def credentials_file(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the file for keys where there is no keyring, whether it exists or not."""
    return config_file(environ).with_name("credentials.toml")


def _keyring() -> Any:
    """Return the keyring, or None where there is none that keeps anything."""
    try:
        import keyring  # noqa: PLC0415 - optional, and slow to load
        from keyring.backends import fail, null  # noqa: PLC0415 - likewise
    except ImportError:
        return None
    return None if isinstance(keyring.get_keyring(), (fail.Keyring, null.Keyring)) else keyring


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        import tomllib  # noqa: PLC0415 - 4 ms that whoever has no such file does not need

        return tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as exc:
        # A parser's message names the place and shows nothing of what stands there.
        raise ConfigurationError(f"{path} cannot be read: {exc}. Mend it, or move it away.") from exc


def _table(values: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    found = values.get(key, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path}: [{key}] is no table. Mend it, or move the file away.")
    return found


def _update_toml(path: Path, keys: tuple[str, ...], values: Mapping[str, Any], *, mode: int) -> None:
    """Set values in a table of a file, None removing one; the file is replaced whole."""
    import tomlkit  # noqa: PLC0415 - only writing needs it

    document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
    table: Any = document
    for position, key in enumerate(keys):
        if key not in table:
            # A super table has no header of its own.
            table[key] = tomlkit.table(is_super_table=position < len(keys) - 1)
        table = table[key]
    for key, value in values.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(tomlkit.dumps(document))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
