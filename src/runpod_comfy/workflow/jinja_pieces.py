"""Compile Jinja templates to code that yields pieces instead of text (see ``jinja_json``)."""

# ruff: noqa: D102, N802 - the methods are Jinja's: named after the classes of nodes, and documented there

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator

if TYPE_CHECKING:
    from jinja2.compiler import Frame

__all__ = ["PieceGenerator", "is_punctuation"]

_PUNCTUATION: Final = re.compile(r"[\s\[\]{},:]*")


class PieceGenerator(CodeGenerator):
    """Generates code that yields pieces: the template's text as it is, every expression with its line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._literals: set[int] = set()  # ids of the Const nodes that are punctuation

    def write_commons(self) -> None:
        super().write_commons()
        # In generated code `concat` is what {% set %} and {% filter %} capture with. Jinja's runtime joins blocks
        # with `environment.concat`, and macros return through return_buffer_contents: those stay pieces.
        self.writeline("concat = environment.capture")

    def return_buffer_contents(self, frame: Frame, force_unescaped: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - Jinja's signature
        self.writeline(f"return environment.concat({frame.buffer})")

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible  # a constant is a value too: written by where it stands
        return super()._output_child_to_const(node, frame, finalize)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:  # noqa: ARG002 - Jinja's signature
        self._mark_punctuation(node)
        self.write("(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:  # noqa: ARG002 - Jinja's signature
        self.write(f", {node.lineno}, {self.name!r})")

    def visit_FilterBlock(self, node: nodes.FilterBlock, frame: Frame) -> None:
        inner = frame.inner()
        inner.symbols.analyze_node(node)
        self.enter_frame(inner)
        self.buffer(inner)
        self.blockvisit(node.body, inner)
        self.start_write(frame, node)
        self.write("(")
        self.visit_Filter(node.filter, inner)
        self.write(f", {node.lineno}, {self.name!r})")
        self.end_write(frame)
        self.leave_frame(inner)

    def visit_CallBlock(self, node: nodes.CallBlock, frame: Frame) -> None:
        call_frame, macro = self.macro_body(node, frame)
        self.writeline("caller = ")
        self.macro_def(macro, call_frame)
        self.start_write(frame, node)
        self.write("(")
        self.visit_Call(node.call, frame, forward_caller=True)
        self.write(f", {node.lineno}, {self.name!r})")
        self.end_write(frame)

    def visit_Include(self, node: nodes.Include, frame: Frame) -> None:
        if frame.buffer is not None and not node.with_context:
            # Jinja yields past the buffer here: the text would appear somewhere else.
            self.fail("'without context' does not work inside a macro, call, set or filter", node.lineno)
        super().visit_Include(node, frame)

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier, frame: Frame) -> None:  # noqa: ARG002 - Jinja's name
        self.fail("autoescape is for HTML; here every value is written as JSON by itself", node.lineno)

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:
        with self._filter_test_common(node, frame, is_filter=True):
            if node.node is None:  # the filter of a {% filter %} or {% set x | … %}
                self.write(f"concat({frame.buffer})")
            else:
                self.write("environment.filterable(")
                self.visit(node.node, frame)
                self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.join_printed((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: FBT001, FBT002 - Jinja's signature
        if isinstance(node.node, nodes.Name) and node.node.name == "joiner":
            for argument in (*node.args, *(keyword.value for keyword in node.kwargs)):
                self._mark_punctuation(argument)
        super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if id(node) in self._literals:
            self.write(f"environment.punctuation({node.value!r})")
        else:
            super().visit_Const(node, frame)

    def _mark_punctuation(self, expression: nodes.Expr) -> None:
        """Note the literals that this expression may give, if they are JSON's punctuation (and at least one is)."""
        literals = [
            leaf for leaf in _leaves(expression) if isinstance(leaf, nodes.Const) and is_punctuation(leaf.value)
        ]
        if any(leaf.value.strip() for leaf in literals):
            self._literals.update(map(id, literals))


def _leaves(expression: nodes.Expr | None) -> list[nodes.Expr]:
    """Return the expressions of which one is the result of ``expression``."""
    match expression:
        case None:
            return []
        case nodes.CondExpr():
            return _leaves(expression.expr1) + _leaves(expression.expr2)
        case nodes.And() | nodes.Or():
            return _leaves(expression.left) + _leaves(expression.right)
        case _:
            return [expression]


def is_punctuation(value: Any) -> bool:
    """Return whether a literal is nothing but JSON's punctuation and white space."""
    # No JSON has "{{": it is how templates say a literal "{{".
    return isinstance(value, str) and _PUNCTUATION.fullmatch(value) is not None and "{{" not in value
