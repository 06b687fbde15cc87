"""A Jinja environment whose templates are JSON: each value is written for the place where it stands.

Jinja joins everything into one text as it goes, and then nobody can tell a template's own quotes from those of a
prompt. Here compiled templates yield *pieces* instead (``jinja_pieces`` generates that code): a ``str`` is the
template's own text, a tuple ``(value, line, template name)`` is a value still to be written, and a ``Fragment`` is
pieces that a macro or block gave. Only ``JsonEnvironment.assemble``, which sees all pieces in the order in which
control flow put them, writes values, and follows JSON's own lexical states through the template's text to know how.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final, cast

from jinja2 import BaseLoader, StrictUndefined, Template, TemplateNotFound, TemplateRuntimeError, Undefined
from jinja2.environment import TemplateModule
from jinja2.exceptions import UndefinedError
from jinja2.filters import FILTERS, sync_do_join
from jinja2.loaders import split_template_path
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing as jinja_missing
from jinja2.utils import pass_eval_context

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.inputs import InputNames
from runpod_comfy.workflow.jinja_pieces import PieceGenerator, is_punctuation
from runpod_comfy.workflow.json_text import State, advance, json_text, plain_text, string_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from jinja2 import Environment
    from jinja2.nodes import EvalContext
    from jinja2.runtime import Context

__all__ = ["JsonEnvironment", "MissingVariable", "UnwritableValue"]

_STRING: Final = State.STRING
# Line ends to Python but not to JSON: `indent` would break a string there.
_LINE_ENDS: Final = {char: f"\\u{char:04x}" for char in (0x85, 0x2028, 0x2029)}


class MissingVariable(UndefinedError):
    """The template used a variable that it was not given.

    Attributes:
        variable: The variable's name.
    """

    def __init__(self, variable: str, message: str | None = None) -> None:
        super().__init__(message)
        self.variable = variable


class UnwritableValue(Exception):
    """A value could not be written where it stands; its cause says why.

    Attributes:
        template: The name of the template or included file that prints it.
        line: The line there.
        reason: The cause.
    """

    def __init__(self, template: str | None, line: int, reason: Exception) -> None:
        super().__init__(template, line)
        self.template = template
        self.line = line
        self.reason = reason


class _Undefined(StrictUndefined):
    """Tells a variable that was not given from an attribute or item that is not there."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = jinja_missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
    ) -> None:
        if hint is None and obj is jinja_missing and name is not None:
            exc = cast(type[TemplateRuntimeError], functools.partial(MissingVariable, name))
        if isinstance(obj, InputNames) and isinstance(name, int):
            hint = f"the template uses input_images[{name}], and {obj.counted()} given. Give more photos."
        super().__init__(hint, obj, name, exc)


class _Verbatim(str):
    """What ``|safe`` gives: template text, as its author wishes."""

    __slots__ = ()


class _JsonText(str):
    """What ``|tojson`` gives: one or more whole JSON values, which are content where they stand in a string."""

    __slots__ = ()


class _Punctuation(str):
    """A literal like ``","`` that is printed as such: template text where JSON's punctuation stands."""

    __slots__ = ()


class Fragment:
    """Template text that a macro, call, block or loop gave: it can be printed, and nothing else.

    Its values are not written yet, since that depends on where it will stand; so there is no text that a filter,
    an operator or a method could work on.
    """

    __slots__ = ("pieces",)

    def __init__(self, pieces: Iterable[Any]) -> None:
        self.pieces = tuple(pieces)

    def __bool__(self) -> bool:
        return bool(_capture(self.pieces))

    def _refuse(self, *_: object) -> Any:
        raise TemplateRuntimeError(
            "what a macro, call, include or block gives is template text: it can only be printed. Apply filters and "
            "operators to the values inside it, or capture it first: {% set x %}…{% endset %}{{ x|upper }}"
        )

    __str__ = __len__ = __iter__ = __getitem__ = __contains__ = __format__ = __int__ = __float__ = _refuse
    __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse


class _Joiner:
    """Jinja's ``joiner``; its separator is template text when it is a literal of JSON's punctuation."""

    def __init__(self, sep: str = _Punctuation(", ")) -> None:
        self._separator = sep
        self._used = False

    def __call__(self) -> str:
        if self._used:
            return self._separator
        self._used = True
        return _Punctuation()


def _capture(pieces: Iterable[Any]) -> str:
    """Return pieces as a plain string, values unescaped: what ``{% set x %}`` and ``{% filter %}`` hold."""
    text = []
    for piece in pieces:
        value = piece[0] if type(piece) is tuple else piece
        if isinstance(value, TemplateModule):
            text.append(_capture(value._body_stream))  # noqa: SLF001 - Jinja has no public name for the pieces
        elif isinstance(value, Fragment):
            text.append(_capture(value.pieces))
        else:
            text.append(_printed(value))
    return "".join(text)


def _printed(value: Any) -> str:
    """Return a value as it reads inside a string; an inline if without else prints nothing, as in Jinja."""
    return str(value) if isinstance(value, Undefined) else plain_text(value)


def _safe(value: Any) -> _Verbatim:
    return _Verbatim(_printed(value))


def _tojson(value: Any, indent: int | None = None) -> _JsonText:
    text = json_text(value)
    if indent is not None:
        text = json.dumps(json.loads(text), indent=indent, ensure_ascii=False)
    return _JsonText(text.translate(_LINE_ENDS))


@pass_eval_context
def _join(eval_ctx: EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    """Jinja's ``join``; ``[{{ names|map("tojson")|join(", ") }}]`` stays JSON."""
    items = list(value)
    joined = sync_do_join(eval_ctx, items, d, attribute)
    is_json = bool(items) and all(isinstance(item, _JsonText) for item in items) and is_punctuation(d)
    return _JsonText(joined) if is_json else joined


def _keeping_json(filter_: Callable[..., str]) -> Callable[..., str]:
    """Let a filter that, without texts as arguments, changes only white space between tokens give JSON for JSON."""

    def keeping(value: Any, *args: Any, **kwargs: Any) -> str:
        result = filter_(value, *args, **kwargs)
        is_json = isinstance(value, _JsonText) and not any(isinstance(arg, str) for arg in (*args, *kwargs.values()))
        return _JsonText(result) if is_json else result

    return keeping


class _FreshModuleTemplate(Template):
    """A template that is run anew for each import.

    Jinja runs an imported file once and keeps the result, so that a ``joiner`` in it would remember the last
    rendering, and two threads would share it.
    """

    def _get_default_module(self, ctx: Context | None = None) -> TemplateModule:
        shared = ctx.globals_keys - self.globals.keys() if ctx is not None else set()
        return self.make_module({name: ctx.parent[name] for name in shared} if ctx is not None else None)


class _FolderLoader(BaseLoader):
    """Loads files of one folder and its subfolders, and nothing that a link makes of another place."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, None]:  # noqa: ARG002 - Jinja's signature
        if self._folder is None:
            raise TemplateNotFound(
                template, f"{template!r} cannot be included: a template made of a string has no folder. Give folder=…"
            )
        folder = self._folder.resolve()
        path = folder.joinpath(*split_template_path(template)).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise TemplateNotFound(template, f"there is no file {template!r} in the template's folder ({folder})")
        try:
            return path.read_text(encoding="utf-8-sig"), str(path), None
        except (OSError, UnicodeDecodeError) as exc:
            raise TemplateError(f"{template} cannot be included: {exc}.", template=template) from exc


class JsonEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates to pieces and assembles pieces to JSON text.

    Args:
        folder: Where includes, imports and parents come from, or None.
    """

    code_generator_class = PieceGenerator
    template_class = _FreshModuleTemplate
    concat = staticmethod(Fragment)  # type: ignore[assignment]  # Jinja's runtime passes the result on, and nothing else
    capture = staticmethod(_capture)
    punctuation = staticmethod(_Punctuation)

    def __init__(self, folder: Path | None) -> None:
        # Not optimized: folding would make a value of a literal before we see that it is one.
        super().__init__(undefined=_Undefined, loader=_FolderLoader(folder), auto_reload=False, optimized=False)
        self.filters.update(safe=_safe, tojson=_tojson, join=_join)
        self.filters.update({name: _keeping_json(FILTERS[name]) for name in ("indent", "trim")})
        self.globals["joiner"] = _Joiner
        # The same pieces of template text come back in every rendering, mostly in the same state.
        self._after: tuple[dict[str, State], ...] = tuple({} for _ in State)

    @staticmethod
    def filterable(value: Any) -> Any:
        """Return what a filter is applied to, unless it is template text.

        Raises:
            TemplateRuntimeError: It is.
        """
        if isinstance(value, Fragment | TemplateModule):
            Fragment(())._refuse()  # noqa: SLF001 - the one text for this fault
        return value

    @staticmethod
    def join_printed(values: tuple[Any, ...]) -> str:
        """Return what ``~`` gives: its operands as they read inside a string."""
        return "".join([_printed(JsonEnvironment.filterable(value)) for value in values])

    def assemble(self, pieces: Iterable[Any]) -> str:
        """Return the rendered text.

        Raises:
            UnwritableValue: A value cannot be written where it stands, or was not given.
        """
        out: list[str] = []
        self._write(pieces, State.OUTSIDE, out)
        return "".join(out)

    def _write(self, pieces: Iterable[Any], state: State, out: list[str]) -> State:
        after = self._after
        for piece in pieces:
            if type(piece) is str:
                out.append(piece)
                found = after[state].get(piece)
                if found is None:
                    found = after[state][piece] = advance(piece, state)
                state = found
            elif type(piece) is Fragment:
                state = self._write(piece.pieces, state, out)
            else:
                value, line, template = piece
                try:
                    if state is _STRING and type(value) is str:  # much the most frequent
                        out.append(string_content(value))
                    else:
                        state = self._write_value(value, state, out)
                except UnwritableValue:  # of a fragment's own piece
                    raise
                except Exception as exc:
                    raise UnwritableValue(template, line, exc) from exc
        return state

    def _write_value(self, value: Any, state: State, out: list[str]) -> State:
        match value:
            case Fragment():
                return self._write(value.pieces, state, out)
            case TemplateModule():
                return self._write(value._body_stream, state, out)  # noqa: SLF001 - Jinja has no public name for it
            case _Verbatim():
                out.append(value)
                return advance(value, state)
            case Undefined():
                out.append(str(value))  # raises where it is strict; an inline if without else gives nothing
                return state
        if state.in_escape:
            raise TemplateError("a value stands right after a backslash. Write two backslashes for one.")
        if state is _STRING:
            out.append(string_content(plain_text(value)))
        elif not state.in_comment:  # a line break or */ in a value would end the comment
            out.append(value if isinstance(value, _JsonText | _Punctuation) else json_text(value))
            state = State.OUTSIDE
        return state
