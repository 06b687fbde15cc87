"""A workflow template: Jinja over ComfyUI's API format, rendered to a graph.

Nobody who writes a template thinks about escaping: ``"text": "{{ prompt }}"`` and ``"seed": {{ seed }}`` come out as
valid JSON whatever the prompt holds (see ``jinja_json`` for how).
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from jinja2 import TemplateError as JinjaError
from jinja2 import TemplateNotFound, TemplateSyntaxError

from runpod_comfy.errors import TemplateError
from runpod_comfy.near import nearest
from runpod_comfy.workflow.declarations import ABSENT
from runpod_comfy.workflow.graph import check_graph
from runpod_comfy.workflow.jinja_json import JsonEnvironment, MissingVariable, UnwritableValue
from runpod_comfy.workflow.loading import read_beside, read_source, read_workflow
from runpod_comfy.workflow.relaxed_json import read_json
from runpod_comfy.workflow.template_variables import find_variables

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Mapping

    from jinja2 import nodes

    from runpod_comfy.workflow.declarations import Declaration
    from runpod_comfy.workflow.object_info import ObjectInfo

__all__ = ["WorkflowTemplate"]

# What every executor passes; a template is free to ignore them.
_ALWAYS_GIVEN: Final = frozenset({"input_images_dir", "input_images", "batch_size"})
_Place = tuple[str | None, int | None]  # a template's name and a line of it
# Declarations in a comment at the top.
_HEADER: Final = re.compile(r"\s*\{#-?\s*runpod-comfy:[^\S\n]*\n(?P<yaml>.*?)-?#\}", re.DOTALL)
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

    A plain workflow is a template too: a file in API format, one as ComfyUI's editor saves it, or an image that ComfyUI
    saved. Nodes titled ``$prompt`` or ``$prompt.text`` are its variables. ``from_workflow`` finds more of them.

    Args:
        path: A file in UTF-8, or an image.
        object_info: The node types of a ComfyUI, which some saved workflows need.

    Raises:
        TemplateError: The file cannot be read or is no Jinja template, or what it declares contradicts itself.
        WorkflowGraphError: It is a saved workflow that cannot be converted; the text names the nodes.
    """

    __slots__ = (
        "__weakref__",
        "_beside",
        "_compiled",
        "_declarations",
        "_environment",
        "_folder",
        "_included",
        "_name",
        "_path",
        "_source",
        "_variables",
    )

    def __init__(self, path: str | os.PathLike[str], *, object_info: ObjectInfo | None = None) -> None:
        file = Path(path)
        self._set_up(
            read_source(file, object_info), name=file.name, path=file, folder=file.parent, beside=read_beside(file)
        )

    @classmethod
    def from_workflow(
        cls,
        workflow: str | os.PathLike[str] | dict[str, Any],
        *,
        object_info: ObjectInfo | None = None,
        keep: Collection[str] = (),
        add: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> WorkflowTemplate:
        """Make a template of a workflow: find what people vary, and keep today's values as defaults.

        ::

            template = WorkflowTemplate.from_workflow("workflow.json")
            template.declarations["steps"]  # type, default, range …
            template.source  # what `runpod-comfy template create` writes

        Rendered with its defaults it is the same graph.

        Args:
            workflow: A file in any format, or its JSON.
            object_info: The node types of a ComfyUI, for ranges and choices; some saved workflows need it.
            keep: Variables that shall stay as they are now.
            add: Further variables: their names with the node's input, ``{"strength": "12.strength_model"}``.
            name: What errors call it.

        Raises:
            TemplateError: It cannot be read, or there is no such variable or input.
            WorkflowGraphError: It is no workflow, or cannot be converted.
        """
        from runpod_comfy.workflow.authoring.draft import draft_template  # noqa: PLC0415 - rendering needs none of it

        called = name or ("workflow" if isinstance(workflow, dict) else Path(workflow).name)
        graph = check_graph(read_workflow(workflow, object_info, name=called), source=called).data
        return cls.from_string(
            draft_template(graph, object_info, source=called, keep=keep, add=add).text(), name=called
        )

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
        return cls._make(text, name, None, None if folder is None else Path(folder), None)

    @classmethod
    def _make(
        cls, source: str, name: str, path: Path | None, folder: Path | None, beside: str | None
    ) -> WorkflowTemplate:
        template = cls.__new__(cls)
        template._set_up(source, name=name, path=path, folder=folder, beside=beside)  # noqa: SLF001 - a second constructor
        return template

    def _set_up(self, source: str, *, name: str, path: Path | None, folder: Path | None, beside: str | None) -> None:
        self._source, self._name, self._path, self._folder = source.removeprefix("\ufeff"), name, path, folder
        self._beside = beside
        self._included: dict[str, str] = {}
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
        self._declarations = self._declared()

    def _declared(self) -> dict[str, Declaration]:
        """Read what the header or the file beside says about the variables."""
        header = _HEADER.match(self._source)
        if header is None and self._beside is None:
            return {}
        from runpod_comfy.workflow.declarations_yaml import read_declarations  # noqa: PLC0415 - most templates have none

        if header and self._beside is not None:
            raise TemplateError(
                f"{self._name}: its variables are declared in its header and beside it, in {self._name}.yaml. Keep one "
                "of them.",
                template=self._name,
            )
        if header:
            line = self._source.count("\n", 0, header.start("yaml")) + 1
            declared = read_declarations(header["yaml"], template=self._name, first_line=line)
        else:
            declared = read_declarations(self._beside or "", template=f"{self._name}.yaml")
        if idle := [name for name in declared if not self.uses(name)]:
            takes = self._variables.needed | self._variables.optional
            named = ", ".join(name + _near(name, takes, "did you mean {}?") for name in idle)
            raise TemplateError(f"{self._name} declares variables that it does not use: {named}.", template=self._name)
        return declared

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkflowTemplate._make, (self._source, self._name, self._path, self._folder, self._beside)

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
    def included(self) -> Mapping[str, str]:
        """The texts of the files that it includes, imports or extends, by their names below its folder.

        One whose name is known only when rendering is not among them.
        """
        return MappingProxyType(self._included)

    @property
    def declarations_beside(self) -> str | None:
        """The text of the file beside it that declares its variables, or None where there is none."""
        return self._beside

    @property
    def variables(self) -> frozenset[str]:
        """The variables it needs, its includes' among them; those with a default are ``optional_variables``.

        One that is used in a branch only is needed as well, though rendering misses it only where that branch is taken.
        """
        return self._variables.needed - self._with_default()

    @property
    def optional_variables(self) -> frozenset[str]:
        """The variables it can do without: they have a default, or are tested by ``is defined``."""
        return self._variables.optional | (self._variables.needed & self._with_default())

    @property
    def declarations(self) -> Mapping[str, Declaration]:
        """What its header (or the file beside it) says about its variables, by name; most templates declare none."""
        return MappingProxyType(self._declarations)

    def _with_default(self) -> frozenset[str]:
        return frozenset(name for name, each in self._declarations.items() if each.default is not ABSENT)

    def uses(self, name: str) -> bool:
        """Return whether giving this variable can change anything (True where an include makes that unknowable)."""
        return name in self._variables.needed or name in self._variables.optional or not self._variables.complete

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
        if self._declarations:
            given = self._checked(given)
        try:
            context = self._compiled.new_context(given)
            return self._environment.assemble(self._compiled.root_render_func(context))
        except UnwritableValue as exc:
            raise self._failed(exc.reason, given, place=(exc.template, exc.line)) from exc.reason
        except Exception as exc:
            raise self._failed(exc, given, place=_place(exc)) from exc

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the values with the defaults of those that are not given, all of them as they were declared."""
        checked = dict(given)
        faults = []
        for name, declared in self._declarations.items():
            if name in given:
                try:
                    checked[name] = declared.check(given[name])
                except ValueError as exc:
                    faults.append(f"{name}: {exc}")
            elif declared.default is not ABSENT:
                checked[name] = declared.default
        if faults:
            raise TemplateError(
                f"{self._name} does not take these values. " + "; ".join(faults) + ".", template=self._name
            )
        return checked

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
        self._included[name] = source
        return self._environment.parse(source, name, file)

    def _misfit(self, given: Iterable[str], *, missing: Iterable[str], unknown: Iterable[str]) -> TemplateError:
        """Make the error that names each variable that is missing or unknown, with what was probably meant."""
        missing, unknown = sorted(missing), [str(name) for name in unknown]
        takes = sorted(self._variables.needed | self._variables.optional)
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
    close = nearest(name, candidates)
    return f" ({phrase.format(close[0])})" if close else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _json_type(value: Any) -> str:
    return "array" if isinstance(value, list) else "string" if isinstance(value, str) else "value"
