"""What is written beside an image: a variable of it, or a Jinja expression over all of them.

>>> Caption("prompt").of({"variables": {"prompt": "a mug", "style": "ink"}})
'a mug'
>>> Caption("prompt ~ ', ' ~ style").of({"variables": {"prompt": "a mug", "style": "ink"}})
'a mug, ink'
>>> Caption("{{ prompt }}, {{ style }}").of({"variables": {"prompt": "{{ 1 }}", "style": "ink"}})
'{{ 1 }}, ink'

The expression is the user's own. What it shows is not: a value is text, and never evaluated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runpod_comfy.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Caption", "values_of"]

_DEFAULT: Final = "prompt"


class Caption:
    """How captions are made; without a text it is the variable ``prompt``, where there is one.

    Args:
        text: A variable's name, an expression, or a template with ``{{ … }}``.

    Raises:
        ConfigurationError: It is no Jinja.
    """

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
        written = text or _DEFAULT
        source = written if "{{" in written or "{%" in written else f"{{{{ {written} }}}}"
        try:
            self._template = environment.from_string(source)
        except TemplateError as exc:
            raise ConfigurationError(f"--caption {text!r} is no Jinja: {exc.message}.") from exc

    def of(self, image: Mapping[str, Any]) -> str:
        """Return an image's caption, given its line of the manifest.

        Raises:
            ConfigurationError: It uses what this image does not have, or fails.
        """
        if self.text is None:
            value = image.get("variables", {}).get(_DEFAULT, image.get("columns", {}).get(_DEFAULT))
            return "" if value is None else str(value)
        values = values_of(image)
        try:
            return self._template.render(values)
        except UndefinedError as exc:
            there = ", ".join(sorted(values))
            raise ConfigurationError(
                f"--caption {self.text!r}: {exc.message} for {image.get('file')}. There are: {there}."
            ) from exc
        except Exception as exc:  # whatever an expression can do wrong, such as dividing by nothing
            raise ConfigurationError(
                f"--caption {self.text!r} fails for {image.get('file')}: {type(exc).__name__}: {exc}."
            ) from exc


def values_of(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an image's line says by name: its row's columns, its variables over them, and its numbers."""
    return {
        "id": image.get("row_id"),
        "row": image.get("index"),
        "sample": image.get("sample"),
        "seed": image.get("seed"),
        "width": image.get("width"),
        "height": image.get("height"),
        **image.get("columns", {}),
        **image.get("variables", {}),
    }
