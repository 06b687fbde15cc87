"""A griffe extension: docstrings as this package writes them, as Markdown for the API reference.

Examples become blocks of code, without the marks that are for doctest; roles such as ``:meth:`` become code.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from griffe import Docstring, Extension

if TYPE_CHECKING:
    from griffe import Object

_EXAMPLE = re.compile(r"(?m)^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*)*")
_ROLE = re.compile(r":(?:meth|func|class|attr|data):`~?([^`]+)`")


class PlainDocstrings(Extension):
    """Rewrites each docstring once, when its object has been read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if isinstance(obj.docstring, Docstring):
            obj.docstring.value = _as_markdown(obj.docstring.value)


def _as_markdown(text: str) -> str:
    text = _ROLE.sub(r"`\1`", text)
    return _EXAMPLE.sub(lambda found: f"{found['indent']}```python\n{_as_code(found[0])}\n{found['indent']}```", text)


def _as_code(example: str) -> str:
    code = re.sub(r" *# doctest: \+\w+.*", "", example)
    return re.sub(r"(?m)^( *)(?:>>>|\.\.\.)(?: |$)", r"\1", code)
