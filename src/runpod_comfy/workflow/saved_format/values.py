"""Which saved value belongs to which input of a node.

The editor saves the values of a node's fields in a row, without names until 2026. The row follows the node type's
inputs, with a few values in between that are the editor's own: what becomes of a seed after a run, upload buttons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runpod_comfy.workflow.object_info import InputType, NodeType, ObjectInfo
    from runpod_comfy.workflow.saved_format.model import SavedNode

__all__ = ["CONTROL_WORDS", "as_input", "fields_of", "name_values", "name_values_by_sockets"]

CONTROL_WORDS: Final = frozenset({"fixed", "increment", "decrement", "randomize"})
"""What the editor saves behind a seed."""

_EMPTY: Final = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}


def fields_of(node: SavedNode, node_type: NodeType, info: ObjectInfo) -> list[InputType]:
    """Return the inputs that the editor gives a field on this node, in the order of their values."""
    sockets = {slot.name: slot for slot in node.inputs}
    found = []
    for each in node_type.inputs.values():
        socket = sockets.get(each.name)
        # Custom nodes bring field types of their own: such an input has no socket, or one that says it has a field.
        own = socket.widget is not None if socket else not info.gives(each.type) and each.type != "*"
        if each.is_value or own:
            found.append(each)
    return found


def name_values(node: SavedNode, fields: Sequence[InputType]) -> dict[str, Any]:
    """Return the values of a node's fields by input name; what was not saved has the type's default.

    Where the file has both, the row counts: people who edit files by hand change the row, and the editor reads it. The
    names count where the row does not fit the type, as after a change of the node.
    """
    if node.named_values and not node.values:
        return _by_name(node, fields)
    named, left = _by_place(node, fields)
    if left and node.named_values:
        return _by_name(node, fields)
    return named


def _by_place(node: SavedNode, fields: Sequence[InputType]) -> tuple[dict[str, Any], list[Any]]:
    """Return the values by name, and those for which there is no field (but an upload button's)."""
    named: dict[str, Any] = {}
    rest = list(node.values)[::-1]  # the next one is last
    pending = list(fields)[::-1]
    while pending:
        each = pending.pop()
        value = rest.pop() if rest else None
        named[each.name] = _or_default(value, each)
        # Some custom nodes take the control away and leave a gap.
        if each.is_controlled and rest and (rest[-1] is None or _is_control_word(rest[-1])):
            rest.pop()
        pending.extend(reversed(_branch(each, named[each.name])))
    return named, [value for value in rest if value not in (None, "image")]


def name_values_by_sockets(node: SavedNode) -> dict[str, Any] | None:
    """Return a node's values by the names that the file itself gives, without knowing its type.

    None where the file does not say enough: the editor leaves out sockets of fields in some versions.
    """
    if node.named_values:
        own = {"control_after_generate", "upload", "audioUI", "videopreview"}
        return {name: value for name, value in node.named_values.items() if name not in own}
    names = [slot.widget for slot in node.inputs if slot.widget is not None]
    values = [
        value
        for index, value in enumerate(node.values)
        if not (index and _is_control_word(value) and _is_whole(node.values[index - 1]))
    ]
    return dict(zip(names, values, strict=True)) if len(names) == len(values) else None


def as_input(value: Any) -> Any:
    """Return a field's value as the API takes it: a bare list would be read as a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _by_name(node: SavedNode, fields: Sequence[InputType]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for each in _with_branches(fields, node.named_values):
        named[each.name] = _or_default(node.named_values.get(each.name), each)
    return named


def _with_branches(fields: Sequence[InputType], values: Any) -> Iterator[InputType]:
    for each in fields:
        yield each
        yield from _with_branches(_branch(each, values.get(each.name)), values)


def _branch(choice: InputType, value: Any) -> list[InputType]:
    inner = choice.branches.get(value, ()) if isinstance(value, str) else ()
    return [each for each in inner if each.is_value]


def _or_default(value: Any, field: InputType) -> Any:
    if value is not None:
        return value
    return field.default if field.default is not None else _EMPTY.get(field.type)


def _is_control_word(value: Any) -> bool:
    return isinstance(value, str) and value in CONTROL_WORDS


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
