"""A workflow on its way to being a template: its variables, and the text of the template."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from runpod_comfy.errors import TemplateError
from runpod_comfy.near import nearest
from runpod_comfy.workflow.authoring.find import find_places, own_title
from runpod_comfy.workflow.authoring.names import is_taken, name_places, same_value
from runpod_comfy.workflow.authoring.places import Place
from runpod_comfy.workflow.authoring.titles import find_titled
from runpod_comfy.workflow.authoring.write import jinja_text, template_text
from runpod_comfy.workflow.declarations import ABSENT, Declaration
from runpod_comfy.workflow.declarations_yaml import declarations_text
from runpod_comfy.workflow.graph import as_link

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runpod_comfy.workflow.authoring.titles import Titled
    from runpod_comfy.workflow.object_info import ObjectInfo

__all__ = ["Draft", "DraftVariable", "draft_template", "titled_template"]

_MOST_CHOICES: Final = 100
_FRACTIONS: Final = frozenset({"cfg", "guidance", "denoise"})
_SEED_BELOW: Final = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftVariable:
    """One variable of a draft.

    Attributes:
        declaration: What its header will say.
        places: What it fills.
        expressions: The template's text at each place.
    """

    declaration: Declaration
    places: tuple[Place, ...]
    expressions: tuple[str, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """Its name."""
        return self.declaration.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A template that is not written yet.

    Attributes:
        graph: The workflow in API format.
        variables: What varies, by name.
    """

    graph: Mapping[str, Any] = field(repr=False)
    variables: Mapping[str, DraftVariable]

    def text(self) -> str:
        """Return the template."""
        expressions = {
            (place.node_id, place.input_name): expression
            for variable in self.variables.values()
            for place, expression in zip(variable.places, variable.expressions, strict=True)
        }
        declared = {name: each.declaration for name, each in self.variables.items()}
        return template_text(self.graph, expressions, header=_header(declared))


def draft_template(
    graph: Mapping[str, Any],
    info: ObjectInfo | None = None,
    *,
    source: str = "workflow",
    keep: Collection[str] = (),
    add: Mapping[str, str] | None = None,
) -> Draft:
    """Find what varies in a workflow.

    Args:
        graph: The workflow in API format, as ``check_graph`` passes it.
        info: The node types, for ranges, choices and help.
        source: What messages call the workflow.
        keep: Names of variables that shall stay as they are now.
        add: Further variables: their names with the node's input, ``{"strength": "12.strength_model"}``. The node's
            title can stand for its id.

    Raises:
        TemplateError: There is no such variable to keep, or no such input to add.
    """
    titled = find_titled(graph, source=source)
    added = [_asked_for(graph, info, name, where, source) for name, where in (add or {}).items()]
    special = {(each.node_id, each.input_name) for each in titled} | {
        (place.node_id, place.input_name) for _, place in added
    }
    found = [place for place in find_places(graph, info) if (place.node_id, place.input_name) not in special]
    variables = {variable.name: variable for variable in _titled(graph, info, titled, source)}
    for name, place in added:
        if name in variables:
            raise TemplateError(f"{source}: there are two variables {name!r}; call one of them by another name.")
        variables[name] = _variable(name, [place])
    for name, places in name_places(found, reserved=variables).items():
        variables[name] = _variable(name, places)
    if unknown := [name for name in keep if name not in variables]:
        near = nearest(unknown[0], variables)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise TemplateError(
            f"{source}: there is no variable {unknown[0]!r} to keep.{meant} There are: {', '.join(variables)}."
        )
    return Draft(graph=graph, variables={name: each for name, each in variables.items() if name not in set(keep)})


def titled_template(graph: Mapping[str, Any], *, source: str) -> str | None:
    """Return the template that a workflow's titles make of it; None where no title names a variable.

    Raises:
        TemplateError: A title does not say which of several values it means.
    """
    titled = find_titled(graph, source=source)
    if not titled:
        return None
    return Draft(graph=graph, variables={each.name: each for each in _titled(graph, None, titled, source)}).text()


def _titled(
    graph: Mapping[str, Any], info: ObjectInfo | None, titled: list[Titled], source: str
) -> list[DraftVariable]:
    by_name: dict[str, list[Titled]] = {}
    for each in titled:
        by_name.setdefault(each.name, []).append(each)
    found = []
    for name, group in by_name.items():
        places = [_place(graph, info, each.node_id, each.input_name, name) for each in group]
        if other := next((place for place in places if not same_value(place, places[0])), None):
            raise TemplateError(
                f"{source}: {places[0].node} and {other.node} are both titled ${name}, and hold different values. Give "
                "them the same value, or names of their own."
            )
        variable = _variable(name, places)
        needed = any(each.needed for each in group) and variable.declaration.type != "list"
        help_ = next((each.help for each in group if each.help), variable.declaration.help)
        declaration = replace(variable.declaration, help=help_)
        found.append(replace(variable, declaration=replace(declaration, default=ABSENT) if needed else declaration))
    return found


def _asked_for(
    graph: Mapping[str, Any], info: ObjectInfo | None, name: str, where: str, source: str
) -> tuple[str, Place]:
    node_key, dot, input_name = where.rpartition(".")
    matches = [
        node_id
        for node_id, node in graph.items()
        if node_id == node_key or own_title(node, info) == node_key or node["class_type"] == node_key
    ]
    if not name.isidentifier() or not dot or not matches or input_name not in graph[matches[0]]["inputs"]:
        inputs = list(graph[matches[0]]["inputs"]) if matches else []
        there = f"Node {matches[0]} has: {', '.join(inputs)}." if inputs else "Nodes are named by id or title."
        raise TemplateError(f"{source}: {name}={where} names no input; it takes NAME=NODE.INPUT. {there}")
    if is_taken(name):
        raise TemplateError(
            f"{source}: {name} is a word of Jinja or Python. Call the variable something else, such as {name}_value."
        )
    if as_link(graph[matches[0]]["inputs"][input_name]) is not None:
        raise TemplateError(f"{source}: input {input_name} of node {matches[0]} is linked; it has no value to vary.")
    return name, _place(graph, info, matches[0], input_name, name)


def _place(graph: Mapping[str, Any], info: ObjectInfo | None, node_id: str, input_name: str, name: str) -> Place:
    node = graph[node_id]
    known = info.get(node["class_type"]) if info is not None else None
    value = node["inputs"][input_name]
    own = own_title(node, info)
    title = "" if own.startswith("$") else own
    return Place(
        node_id=node_id,
        input_name=input_name,
        value=value,
        kind="text" if isinstance(value, str) else "number",
        base=name,
        title=title,
        node=f"#{node_id} {title or node['class_type']}",
        input_type=known.inputs.get(input_name) if known is not None else None,
    )


def _variable(name: str, places: list[Place]) -> DraftVariable:
    first = places[0]
    if first.kind == "image" and name == "input_images":
        return _photos(places)
    declaration = _declaration(name, first)
    where = ", ".join(place.node for place in places)
    # In quotes whatever is given is text there; outside of them numbers stay numbers.
    expression = f'"{{{{ {name} }}}}"' if isinstance(first.value, str) else f"{{{{ {name} }}}}"
    return DraftVariable(
        declaration=replace(declaration, node=where), places=tuple(places), expressions=(expression,) * len(places)
    )


def _photos(places: list[Place]) -> DraftVariable:
    """Let photos fill the nodes that load images, in their order; where there are fewer, the names stay."""
    where = ", ".join(f"[{index}] {place.node}" for index, place in enumerate(places))
    return DraftVariable(
        declaration=Declaration(
            name="input_images", type="list", default=[], help="the photos, in this order", node=where
        ),
        places=tuple(places),
        expressions=tuple(
            f'"{{{{ input_images[{index}] | default({jinja_text(place.value)}) }}}}"'
            for index, place in enumerate(places)
        ),
    )


def _declaration(name: str, place: Place) -> Declaration:
    value, known = place.value, place.input_type
    declared = Declaration(
        name=name, type=_type_of(place), default=value, help=_first_sentence(known.help) if known else ""
    )
    least: float | None
    most: float | None
    if known is None:
        least, most = {"seed": (0, _SEED_BELOW - 1), "batch": (1, None)}.get(place.kind, (None, None))
    else:
        least, most = known.least, known.most
    if declared.type in {"int", "float"}:
        # What the workflow has now must stay possible.
        declared = replace(
            declared,
            least=least if least is None or least <= value else None,
            most=most if most is None or most >= value else None,
        )
    choices = known.choices if known is not None and not known.is_upload else None
    if place.kind != "model" and choices and value in choices and len(choices) <= _MOST_CHOICES and _are_words(choices):
        declared = replace(declared, type="choice", choices=choices)
    return declared


def _type_of(place: Place) -> str:
    known, value = place.input_type, place.value
    match value:
        case bool():
            return "bool"
        case str():
            return "text"
        case float():
            return "float"
        case int():
            fraction = known.type == "FLOAT" if known is not None else place.base in _FRACTIONS
            return "float" if fraction else "int"
        case _:
            return "any"


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].rstrip(".")


def _are_words(choices: tuple[Any, ...]) -> bool:
    """Tell choices that a node's code has from files on a server, which another server does not have."""
    return all(isinstance(each, str) and "." not in each for each in choices)


def _header(declared: Mapping[str, Declaration]) -> str:
    if not declared:
        return ""
    return (
        "{# runpod-comfy:\n"
        "# What can be varied; the defaults are what the workflow had. Change names, ranges and help as you like.\n"
        f"{declarations_text(declared)}#}}\n"
    )
