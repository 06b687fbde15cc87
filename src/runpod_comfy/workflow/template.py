"""A workflow template: Jinja over ComfyUI's API format, rendered to a graph.

Nobody who writes a template thinks about escaping: ``"text": "{{ prompt }}"`` and ``"seed": {{ seed }}`` come out as
valid JSON whatever the prompt holds (see ``jinja_json`` for how).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import TemplateError as JinjaError
from jinja2 import TemplateNotFound, TemplateSyntaxError

from runpod_comfy.errors import TemplateError
from runpod_comfy.workflow.jinja_json import JsonEnvironment, MissingVariable, UnwritableValue
from runpod_comfy.workflow.relaxed_json import read_json
from runpod_comfy.workflow.template_variables import find_variables

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from jinja2 import nodes

__all__ = ["WorkflowTemplate"]

# What every executor passes; a template is free to ignore them.
_ALWAYS_GIVEN: Final = frozenset({"input_images_dir", "input_images", "batch_size"})
_Place = tuple[str | None, int | None]  # a template's name and a line of it
_SHOWN: Final = 200  # characters of a foreign error's text, which may quote a value


class WorkflowTemplate:
    """A workflow with variables.

    ::

        template = WorkflowTemplate("workflow.json.jinja")
        template.variables  # frozenset({"input_images_dir", "batch_size", "prompt"})
        graph = template.render(input_images_dir="/in", batch_size=8, prompt='a "noir" portrait')

    Values are written as JSON for the place where they stand: inside a JSON string they are string content, outside
    one they are JSON values. The rendered text may have comments and trailing commas. Includes, imports and parents
    are files of the template's folder. A template never changes once it is made; it can be rendered from several
    threads, copied and pickled (a copy in another process reads included files there).

    Args:
        path: A file in UTF-8.

    Raises:
        TemplateError: The file cannot be read or is no Jinja template.
    """

    __slots__ = ("__weakref__", "_compiled", "_environment", "_folder", "_name", "_path", "_source", "_variables")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = Path(path)
        self._set_up(_read(file), name=file.name, path=file, folder=file.parent)

    @classmethod
    def from_string(
        cls, text: str, *, name: str = "<string>", folder: str | os.PathLike[str] | None = None
    ) -> WorkflowTemplate:
        """Make a template of a text.

        Args:
            text: The template.
            name: What errors call it.
            folder: Where its includes come from; without one it has none.

        Raises:
            TemplateError: It is no Jinja template.
        """
        return cls._make(text, name, None, None if folder is None else Path(folder))

    @classmethod
    def _make(cls, source: str, name: str, path: Path | None, folder: Path | None) -> WorkflowTemplate:
        template = cls.__new__(cls)
        template._set_up(source, name=name, path=path, folder=folder)  # noqa: SLF001 - a second constructor
        return template

    def _set_up(self, source: str, *, name: str, path: Path | None, folder: Path | None) -> None:
        self._source, self._name, self._path, self._folder = source.removeprefix("\ufeff"), name, path, folder
        self._environment = JsonEnvironment(folder)
        try:
            tree = self._environment.parse(self._source, name, name)
            self._variables = find_variables(tree, load=self._tree, global_names=self._environment.globals)
            code = self._environment.compile(tree, name, name)
            self._compiled = self._environment.template_class.from_code(
                self._environment, code, self._environment.make_globals(None)
            )
        except Exception as exc:
            raise self._explained(exc, place=_place(exc)) from exc

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkflowTemplate._make, (self._source, self._name, self._path, self._folder)

    def __repr__(self) -> str:
        return f"<WorkflowTemplate {self._name!r}>"

    @property
    def name(self) -> str:
        """The file's name, or what ``from_string`` was told."""
        return self._name

    @property
    def path(self) -> Path | None:
        """The file as it was given, or None."""
        return self._path

    @property
    def source(self) -> str:
        """The template's text."""
        return self._source

    @property
    def variables(self) -> frozenset[str]:
        """The variables it needs, its includes' among them; those with a default are ``optional_variables``.

        One that is used in a branch only is needed as well, though rendering misses it only where that branch is taken.
        """
        return self._variables.needed

    @property
    def optional_variables(self) -> frozenset[str]:
        """The variables it can do without: they have a ``default`` or are tested by ``is defined``."""
        return self._variables.optional

    def uses(self, name: str) -> bool:
        """Return whether giving this variable can change anything (True where an include makes that unknowable)."""
        return name in self.variables or name in self.optional_variables or not self._variables.complete

    def render(self, variables: Mapping[str, Any] | None = None, /, **more: Any) -> dict[str, Any]:
        """Render the workflow.

        Args:
            variables: Values by name.
            more: Further values; these win. ``input_images_dir``, ``input_images`` and ``batch_size`` may be given to
                any template, others must be variables of this one.

        Returns:
            The graph as it is in JSON: nodes by id.

        Raises:
            TemplateError: A variable is missing (then all that are missing are named) or unknown, a value cannot be
                written as JSON, or the rendered text is not JSON.
        """
        graph = read_json(self.render_text(variables, **more), template=self._name)
        if not isinstance(graph, dict):
            raise TemplateError(
                f"{self._name} renders to a JSON {_json_type(graph)}; a workflow is an object of nodes by id.",
                template=self._name,
            )
        return graph

    def render_text(self, variables: Mapping[str, Any] | None = None, /, **more: Any) -> str:
        """Render the text that ``render`` reads; arguments and errors are the same."""
        given = {**(variables or {}), **more}
        if unknown := [name for name in given if not (self.uses(name) or name in _ALWAYS_GIVEN)]:
            raise self._misfit(given, missing=self.variables.difference(given), unknown=unknown)
        try:
            context = self._compiled.new_context(given)
            return self._environment.assemble(self._compiled.root_render_func(context))
        except UnwritableValue as exc:
            raise self._failed(exc.reason, given, place=(exc.template, exc.line)) from exc.reason
        except Exception as exc:
            raise self._failed(exc, given, place=_place(exc)) from exc

    def _failed(self, exc: Exception, given: Mapping[str, Any], *, place: _Place) -> TemplateError:
        """Make the error for whatever rendering raised."""
        if not isinstance(exc, MissingVariable):
            return self._explained(exc, place=place)
        if exc.variable in given:
            return TemplateError(
                f"{self._name}: the variable {exc.variable!r} was given, but an imported file that uses it does not "
                "see it. Write {% import … with context %}, or pass the value to the macro.",
                template=self._name,
                missing=(exc.variable,),
            )
        if not self.uses(exc.variable):  # `loop` outside a loop, or a name in a file that sees no variables
            return self._explained(exc, place=place)
        return self._misfit(given, missing=self.variables.difference(given) | {exc.variable}, unknown=())

    def _tree(self, name: str) -> nodes.Template | None:
        """Return the syntax tree of a file in the folder; what is not there matters only when it is rendered."""
        try:
            source, file, _ = self._environment.loader.get_source(self._environment, name)  # type: ignore[union-attr]  # it has a loader
        except TemplateNotFound:
            return None
        return self._environment.parse(source, name, file)

    def _misfit(self, given: Iterable[str], *, missing: Iterable[str], unknown: Iterable[str]) -> TemplateError:
        """Make the error that names each variable that is missing or unknown, with what was probably meant."""
        missing, unknown = sorted(missing), [str(name) for name in unknown]
        takes = sorted(self.variables | self.optional_variables)
        idle = [name for name in given if not self.uses(name)]
        parts = []
        if missing:
            named = ", ".join(name + _near(name, idle, "{} was given") for name in missing)
            noun = "variables" if missing[1:] else "a variable"
            parts.append(f"{self._name} was not given {noun} it needs: {named}.")
        if unknown:
            named = ", ".join(name + _near(name, takes, "did you mean {}?") for name in unknown)
            noun = "variables" if unknown[1:] else "a variable"
            parts.append(f"{self._name} does not use {noun} it was given: {named}.")
        parts.append(f"It takes: {', '.join(takes) or 'no variables'}.")
        return TemplateError(" ".join(parts), template=self._name, missing=tuple(missing))

    def _explained(self, exc: Exception, *, place: _Place) -> TemplateError:
        """Turn whatever compiling or rendering raised into an error of ours that says where."""
        name, line = place
        if isinstance(exc, TemplateError):
            if exc.template is not None:  # an included file that cannot be read
                return exc
            reason = str(exc)
        elif type(exc) is TemplateSyntaxError:
            reason = (
                f"{str(exc.message).rstrip('.')}. (Text that is not meant as Jinja, such as a literal {{{{ or {{%, is "
                "written {{ '{{' }} or between {% raw %} and {% endraw %}.)"
            )
        elif isinstance(exc, JinjaError):
            reason = _cut(exc.message or type(exc).__name__)
        else:
            reason = _cut(f"{type(exc).__name__}: {exc}")
        where = f"{name or self._name}, line {line}" if line else name or self._name
        return TemplateError(f"{where}: {reason}", template=name or self._name, line=line)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as exc:
        raise TemplateError(f"There is no template {file}.", template=file.name) from exc
    except IsADirectoryError as exc:
        raise TemplateError(f"{file} is a folder; give the template file in it.", template=file.name) from exc
    except UnicodeDecodeError as exc:
        line = file.read_bytes().count(b"\n", 0, exc.start) + 1
        raise TemplateError(
            f"{file} is not UTF-8 (line {line}). Save it as UTF-8.", template=file.name, line=line
        ) from exc
    except (OSError, ValueError) as exc:  # ValueError: a null character in the path
        raise TemplateError(f"The template {file} cannot be read: {exc}.", template=file.name) from exc


def _place(exc: BaseException) -> _Place:
    """Return the template and line at which an error arose, from the innermost compiled template that it crossed."""
    if isinstance(exc, TemplateSyntaxError):
        return exc.name, exc.lineno
    place: _Place = (None, None)
    traceback = exc.__traceback__
    while traceback is not None:
        template = traceback.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            place = (template.name, template.get_corresponding_lineno(traceback.tb_lineno))
        traceback = traceback.tb_next
    return place


def _near(name: str, candidates: Iterable[str], phrase: str) -> str:
    close = difflib.get_close_matches(name, [str(candidate) for candidate in candidates], n=1)
    return f" ({phrase.format(close[0])})" if close else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _json_type(value: Any) -> str:
    return "array" if isinstance(value, list) else "string" if isinstance(value, str) else "value"
