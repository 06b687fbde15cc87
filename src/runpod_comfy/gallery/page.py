"""The page: data, style and script joined to one file that opens from disk.

Browsers give a page from ``file://`` no modules, no ``fetch`` and no pixels of a canvas, so everything is inside. What
a prompt says is foreign text: it is in a block of JSON that nothing executes, and the page's policy runs this one
script, known by its hash, and no other.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runpod_comfy.errors import ConfigurationError
from runpod_comfy.gallery.data import gallery_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runpod_comfy.dataset.manifest import TaskRecord

__all__ = ["PAGE_NAME", "Gallery", "page_text", "run_of", "safe_json", "write_whole"]

PAGE_NAME = "gallery.html"

_SCRIPTS = ("items", "search", "choices", "tiles", "grid", "xy", "stage", "viewer", "compare", "facets", "live", "main")
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """A dataset's page.

    Attributes:
        root: The dataset's folder.
        shown_as: The folder as commands name it, such as ``out``.
        run: What ``run.json`` says.
    """

    root: Path
    shown_as: str
    run: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """What choices are kept under in the browser, where all pages from disk share one store."""
        found = self.run.get("id")
        if isinstance(found, str) and found:
            return found
        name = f"{self.root.resolve().name} {self.run.get('seed')}"
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def images_wanted(self) -> int | None:
        """How many images a task makes, where that is known."""
        found = self.run.get("num_samples")
        return found if isinstance(found, int) else None

    def about(self) -> dict[str, Any]:
        """Return what the page says of the dataset as a whole."""
        # A run without an id was picked or is old, and its selection must not be refused elsewhere for what we made up.
        return {
            "run": self.run_id,
            "run_in_selection": self.run.get("id"),
            "title": self.root.resolve().name,
            "folder": self.shown_as,
        }

    def write(self, tasks: Mapping[str, TaskRecord], *, live: Mapping[str, Any] | None = None) -> Path:
        """Write the page whole and return its path.

        Args:
            tasks: What the manifest says.
            live: Where the page finds what comes later, while a batch runs; see ``live``.

        Raises:
            OSError: It cannot be written.
        """
        data = gallery_data(tasks.items(), images_wanted=self.images_wanted, files=files_in(self.root))
        path = self.root / PAGE_NAME
        write_whole(path, page_text({**self.about(), **data, "live": live}, is_live=live is not None))
        return path


def run_of(root: Path) -> dict[str, Any]:
    """Return what ``run.json`` says; nothing where it is missing.

    Raises:
        ConfigurationError: It cannot be read.
    """
    path = root / "run.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise ConfigurationError(f"{path} is not JSON. Put it back as it was.") from exc
    return found if isinstance(found, dict) else {}


def page_text(data: Mapping[str, Any], *, is_live: bool = False) -> str:
    """Return the page for data as ``gallery_data`` gives it.

    Args:
        data: What it shows.
        is_live: Whether it may load further data from beside it.
    """
    assets = resources.files("runpod_comfy.gallery") / "assets"
    style = assets.joinpath("gallery.css").read_text("utf-8")
    body = "\n".join(assets.joinpath(f"{name}.js").read_text("utf-8") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{body}\n}})();\n'
    more = " 'self' file:" if is_live else ""
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:; media-src 'self' file:; "
        f"script-src {_hash(script)}{more}; style-src {_hash(style)}"
    )
    parts = {"policy": policy, "style": style, "script": script, "data": safe_json(data)}
    template = assets.joinpath("gallery.html").read_text("utf-8")
    # In one pass, so that nothing inside a part is taken for a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def safe_json(value: Any) -> str:
    """Return JSON that is at once JavaScript, ends no ``<script>`` and encodes as UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def files_in(root: Path) -> set[str]:
    """Return the files below ``images`` and ``files``, as the manifest names them."""
    found: set[str] = set()
    for top in ("images", "files"):
        for folder, _, names in os.walk(root / top):
            inside = Path(folder).relative_to(root).as_posix()
            found.update(f"{inside}/{name}" for name in names)
    return found


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        part.write_bytes(text.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
