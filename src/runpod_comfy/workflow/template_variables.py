"""Which variables a template takes, read from its syntax tree and from those of the files it names.

Jinja's own ``meta`` module stops at the file's edge and takes ``{% set %}`` names seen by blocks and includes for
variables, so the scopes are followed here.
"""

# ruff: noqa: N802 - a visitor's methods are named after the classes of nodes

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jinja2 import nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

__all__ = ["TemplateVariables", "find_variables"]

_NEVER_VARIABLES: Final = frozenset({"loop", "self", "super", "caller", "varargs", "kwargs"})
_Names = frozenset[str]


@dataclass(frozen=True, slots=True)
class TemplateVariables:
    """What a template takes.

    Attributes:
        needed: Without these it cannot be rendered, or not along every path.
        optional: It has an answer for when these are not given.
        complete: Whether that is all: False where an include's name is known only when rendering.
    """

    needed: frozenset[str]
    optional: frozenset[str]
    complete: bool


@dataclass(slots=True)
class _Scope:
    """The names that are bound at one point: certainly, or only along some path."""

    bound: set[str]
    maybe: set[str]

    def inner(self, *names: str) -> _Scope:
        return _Scope(self.bound.union(names), self.maybe.difference(names))

    def bind(self, names: Iterable[str]) -> None:
        self.bound.update(names)
        self.maybe.difference_update(self.bound)


def find_variables(
    tree: nodes.Template, *, load: Callable[[str], nodes.Template | None], global_names: Container[str]
) -> TemplateVariables:
    """Find the variables of a template.

    Args:
        tree: The template.
        load: Gives the tree of an included, imported or extended file, None where there is no such file.
        global_names: The environment's own names, such as ``range``.
    """
    finder = _Finder(load, global_names)
    finder.read(tree)
    return TemplateVariables(
        needed=frozenset(finder.free - finder.guarded - _NEVER_VARIABLES),
        optional=frozenset(finder.guarded - _NEVER_VARIABLES),
        complete=finder.complete,
    )


class _Finder:
    """Walks trees in the order of execution and collects names that nothing binds."""

    def __init__(self, load: Callable[[str], nodes.Template | None], global_names: Container[str]) -> None:
        self.free: set[str] = set()
        self.guarded: set[str] = set()
        self.complete = True
        self._load = load
        self._global_names = global_names
        self._trees: dict[str, nodes.Template | None] = {}
        self._seen: set[tuple[str, _Names, _Names, _Names]] = set()
        # Of the file that is being read:
        self._file_names: _Names = frozenset()  # what it binds at its top level: blocks and macros see it
        self._replaced: _Names = frozenset()  # the blocks of its parents that it replaces
        self._overridden: _Names = frozenset()  # its own blocks that a child replaces

    def read(self, tree: nodes.Template) -> None:
        """Collect the names of a template that nothing includes."""
        self._read(tree, _Scope(set(), set()), frozenset(), frozenset())

    def _read(self, tree: nodes.Template, scope: _Scope, names: _Names, overridden: _Names) -> None:
        outer = self._file_names, self._replaced, self._overridden
        self._file_names = names | _top_level_names(tree.body)
        for parent in tree.find_all(nodes.Extends):
            for loaded in map(self._tree, self._named(parent.template)):
                self._file_names |= _top_level_names(loaded.body if loaded else ())
        self._replaced = frozenset(
            block.name
            for block in tree.find_all(nodes.Block)
            if not any(name.name == "super" for name in block.find_all(nodes.Name))
        )
        self._overridden = overridden
        self._visit_all(tree.body, scope)
        self._file_names, self._replaced, self._overridden = outer

    def _visit_all(self, found: Iterable[nodes.Node], scope: _Scope) -> None:
        for node in found:
            self._visit(node, scope)

    def _visit(self, node: nodes.Node, scope: _Scope) -> None:
        visit = getattr(self, f"_visit_{type(node).__name__}", None)
        if visit is not None:
            visit(node, scope)
        else:
            self._visit_all(node.iter_child_nodes(), scope)

    def _visit_Name(self, node: nodes.Name, scope: _Scope) -> None:
        if node.ctx != "load":
            scope.bind([node.name])
        elif node.name in scope.maybe or (node.name in self._global_names and node.name not in scope.bound):
            self.guarded.add(node.name)
        elif node.name not in scope.bound:
            self.free.add(node.name)

    def _visit_NSRef(self, node: nodes.NSRef, scope: _Scope) -> None:
        self._visit_Name(nodes.Name(node.name, "load"), scope)

    def _visit_Call(self, node: nodes.Call, scope: _Scope) -> None:
        # Called, `range` is Jinja's; printed, `{{ range }}` is meant as a variable.
        called = isinstance(node.node, nodes.Name) and node.node.name in self._global_names
        self._visit_all(node.iter_child_nodes(exclude=("node",) if called else ()), scope)

    def _visit_Test(self, node: nodes.Test, scope: _Scope) -> None:
        self._visit_guard(node, scope, guards=node.name in {"defined", "undefined"})

    def _visit_Filter(self, node: nodes.Filter, scope: _Scope) -> None:
        self._visit_guard(node, scope, guards=node.name in {"default", "d"})

    def _visit_guard(self, node: nodes.Test | nodes.Filter, scope: _Scope, *, guards: bool) -> None:
        if guards and isinstance(node.node, nodes.Name):
            if node.node.name not in scope.bound:
                self.guarded.add(node.node.name)
            self._visit_all(node.iter_child_nodes(exclude=("node",)), scope)
        else:
            self._visit_all(node.iter_child_nodes(), scope)

    def _visit_Assign(self, node: nodes.Assign, scope: _Scope) -> None:
        self._visit(node.node, scope)
        self._visit(node.target, scope)

    def _visit_AssignBlock(self, node: nodes.AssignBlock, scope: _Scope) -> None:
        self._visit_all([*node.body, *([node.filter] if node.filter else [])], scope.inner())
        self._visit(node.target, scope)

    def _visit_FilterBlock(self, node: nodes.FilterBlock, scope: _Scope) -> None:
        self._visit_all([*node.body, node.filter], scope.inner())

    def _visit_If(self, node: nodes.If, scope: _Scope) -> None:
        branches = []
        for branch in (node, *node.elif_):
            self._visit(branch.test, scope)
            branches.append(scope.inner())
            self._visit_all(branch.body, branches[-1])
        branches.append(scope.inner())
        self._visit_all(node.else_, branches[-1])
        certain = set.intersection(*(branch.bound for branch in branches))
        scope.maybe |= set.union(*(branch.bound | branch.maybe for branch in branches)) - certain
        scope.bind(certain)

    def _visit_For(self, node: nodes.For, scope: _Scope) -> None:
        self._visit(node.iter, scope)
        body = scope.inner("loop")
        self._visit(node.target, body)
        self._visit_all([*([node.test] if node.test else []), *node.body], body)
        self._visit_all(node.else_, scope.inner())

    def _visit_With(self, node: nodes.With, scope: _Scope) -> None:
        self._visit_all(node.values, scope)
        body = scope.inner()
        self._visit_all([*node.targets, *node.body], body)

    def _visit_Macro(self, node: nodes.Macro, scope: _Scope) -> None:
        scope.bind([node.name])
        self._visit_macro_body(node, scope)

    def _visit_CallBlock(self, node: nodes.CallBlock, scope: _Scope) -> None:
        self._visit(node.call, scope)
        self._visit_macro_body(node, scope)

    def _visit_macro_body(self, node: nodes.Macro | nodes.CallBlock, scope: _Scope) -> None:
        # A macro runs when it is called: what the file binds further down is there by then.
        body = scope.inner("caller", "varargs", "kwargs", *self._file_names)
        self._visit_all(node.defaults, body)
        self._visit_all([*node.args, *node.body], body)

    def _visit_Block(self, node: nodes.Block, scope: _Scope) -> None:
        if node.name not in self._overridden:
            around = scope if node.scoped else _Scope(set(), set())
            self._visit_all(node.body, around.inner(*self._file_names))

    def _visit_Import(self, node: nodes.Import, scope: _Scope) -> None:
        self._follow(node, scope)
        scope.bind([node.target])

    def _visit_FromImport(self, node: nodes.FromImport, scope: _Scope) -> None:
        self._follow(node, scope)
        scope.bind(_imported_names(node))

    def _visit_Include(self, node: nodes.Include, scope: _Scope) -> None:
        self._follow(node, scope)

    def _visit_Extends(self, node: nodes.Extends, scope: _Scope) -> None:
        self._follow(node, scope)

    def _follow(self, node: nodes.Import | nodes.FromImport | nodes.Include | nodes.Extends, scope: _Scope) -> None:
        """Read the file that a node names, unless it cannot see our variables."""
        self._visit(node.template, scope)
        if isinstance(node, nodes.Extends):
            names, overridden = self._file_names, self._overridden | self._replaced
        elif node.with_context:
            names, overridden = frozenset(), frozenset()
        else:
            return
        for name in self._named(node.template):
            tree = self._tree(name)
            key = (name, frozenset(scope.bound | names), frozenset(scope.maybe), overridden)
            if tree is not None and key not in self._seen:
                self._seen.add(key)
                self._read(tree, scope.inner(*names), names, overridden)

    def _named(self, template: nodes.Expr) -> list[str]:
        match template:
            case nodes.Const(value=str(name)):
                return [name]
            case nodes.List(items=items) | nodes.Tuple(items=items):
                return [name for item in items for name in self._named(item)]
            case _:
                self.complete = False
                return []

    def _tree(self, name: str) -> nodes.Template | None:
        if name not in self._trees:
            self._trees[name] = self._load(name)
        return self._trees[name]


def _top_level_names(body: Iterable[nodes.Node]) -> frozenset[str]:
    """Return what a file binds outside its loops, blocks and macros."""
    names: set[str] = set()
    for node in body:
        match node:
            case nodes.Assign(target=target) | nodes.AssignBlock(target=target):
                targets = [target, *target.find_all(nodes.Name)]
                names.update(name.name for name in targets if isinstance(name, nodes.Name))
            case nodes.Macro(name=name) | nodes.Import(target=name):
                names.add(name)
            case nodes.FromImport():
                names.update(_imported_names(node))
            case nodes.If():
                names |= _top_level_names([*node.body, *node.elif_, *node.else_])
            case _:
                pass
    return frozenset(names)


def _imported_names(node: nodes.FromImport) -> list[str]:
    return [name[1] if isinstance(name, tuple) else name for name in node.names]
