"""Which names each scope of a module binds, and to what: read from the syntax tree alone."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
MARKS = (ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)  # nodes that hold nothing
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Binding:
    """One thing that a name is bound to.

    kind: "import" (dotted says what), "value" (node, and at `unpacked` the position in it that is taken), "parameter"
    (node is the default, if any), "definition" (node is the function or class), "opaque" (a loop variable, an
    exception …).
    """

    kind: str
    node: ast.AST | None = None
    dotted: str = ""
    unpacked: int | None = None
    annotation: ast.expr | None = None


@dataclass(eq=False)
class Scope:
    """A module, class, function, lambda or comprehension."""

    node: ast.AST
    parent: Scope | None
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    outer: dict[str, str] = field(default_factory=dict)  # names declared global or nonlocal, and which

    def bind(self, name: str, binding: Binding) -> None:
        """Note that `name` is bound here, or where global and nonlocal say."""
        scope = self
        if self.outer.get(name) == "global":
            while scope.parent is not None:
                scope = scope.parent
        elif self.outer.get(name) == "nonlocal" and self.parent is not None:
            scope = self.parent.find(name) or self
        scope.bindings.setdefault(name, []).append(binding)

    def find(self, name: str) -> Scope | None:
        """Return the scope whose binding a use of `name` here means, None if there is none."""
        scope: Scope | None = self
        while scope is not None:
            # The body of a class is not seen from the functions in it.
            if name in scope.bindings and (scope is self or not isinstance(scope.node, ast.ClassDef)):
                return scope
            scope = scope.parent
        return None


@dataclass(eq=False)
class Module:
    """A parsed module: its scopes, the parent of each node, and what its classes keep in attributes."""

    tree: ast.Module
    scope_of: dict[ast.AST, Scope] = field(default_factory=dict)
    parent_of: dict[ast.AST, ast.AST] = field(default_factory=dict)
    attributes: dict[ast.ClassDef, dict[str, list[ast.expr]]] = field(default_factory=dict)
    starred: list[str] = field(default_factory=list)  # modules from which everything is imported
    calls: list[ast.Call] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)

    def enclosing(self, node: ast.AST, kinds: tuple[type, ...]) -> ast.AST | None:
        """Return the nearest node of these kinds around `node`."""
        parent = self.parent_of.get(node)
        while parent is not None and not isinstance(parent, kinds):
            parent = self.parent_of.get(parent)
        return parent

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        """Return the class in whose methods `node` stands."""
        found = self.enclosing(node, (ast.ClassDef,))
        return found if isinstance(found, ast.ClassDef) else None

    def method(self, owner: ast.ClassDef, name: str) -> Function | None:
        """Return the method of this name that the class itself defines."""
        return next((f for f in owner.body if isinstance(f, FUNCTIONS) and f.name == name), None)


def read_module(tree: ast.Module) -> Module:
    """Return the module's scopes."""
    module = Module(tree)
    _Reader(module).body(tree, Scope(tree, None))
    return module


class _Reader:
    """Walks the tree once. Deep expressions recurse as deep as they nest."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def body(self, node: ast.AST, scope: Scope) -> None:
        self.module.scope_of[node] = scope
        _declare_outer(node, scope)
        for child in ast.iter_child_nodes(node):
            self.visit(child, node, scope)

    def visit(self, node: ast.AST, parent: ast.AST, scope: Scope) -> None:
        self.module.parent_of[node] = parent
        self.module.scope_of[node] = scope
        if isinstance(node, FUNCTIONS):
            self.function(node, scope)
        elif isinstance(node, ast.ClassDef):
            scope.bind(node.name, Binding("definition", node))
            self.class_body(node, scope)
        elif isinstance(node, ast.Lambda):
            self.lambda_or_function(node, node.args, Scope(node, scope), scope, [node.body])
        elif isinstance(node, COMPREHENSIONS):
            inner = Scope(node, scope)
            for child in ast.iter_child_nodes(node):
                self.visit(child, node, inner)
        else:
            if isinstance(node, ast.Call):
                self.module.calls.append(node)
            _bind_here(node, scope, self.module)
            for child in ast.iter_child_nodes(node):
                if not isinstance(child, MARKS):
                    self.visit(child, node, scope)

    def class_body(self, node: ast.ClassDef, scope: Scope) -> None:
        self.module.attributes[node] = {}
        inner = Scope(node, scope)
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.stmt) and child in node.body
            self.visit(child, node, inner if inside else scope)
        kept = self.module.attributes[node]
        for name, bindings in inner.bindings.items():
            kept.setdefault(name, []).extend(b.node for b in bindings if isinstance(b.node, ast.expr))

    def function(self, node: Function, scope: Scope) -> None:
        self.module.functions.append(node)
        scope.bind(node.name, Binding("definition", node))
        for outside in (*node.decorator_list, *filter(None, [node.returns])):
            self.visit(outside, node, scope)
        self.lambda_or_function(node, node.args, Scope(node, scope), scope, node.body)

    def lambda_or_function(
        self,
        node: ast.AST,
        arguments: ast.arguments,
        inner: Scope,
        outside: Scope,
        body: list[ast.stmt] | list[ast.expr],
    ) -> None:
        _declare_outer(node, inner)
        for default in (*arguments.defaults, *filter(None, arguments.kw_defaults)):
            self.visit(default, node, outside)
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
        given = zip(
            [*positional, *arguments.kwonlyargs], [*defaults, *arguments.defaults, *arguments.kw_defaults], strict=True
        )
        for argument, value in given:
            inner.bind(argument.arg, Binding("parameter", value, annotation=argument.annotation))
        for rest in filter(None, (arguments.vararg, arguments.kwarg)):
            inner.bind(rest.arg, Binding("opaque"))
        for child in body:
            self.visit(child, node, inner)


def _declare_outer(node: ast.AST, scope: Scope) -> None:
    """Read the scope's own global and nonlocal statements first: they hold for all of it."""
    waiting = list(ast.iter_child_nodes(node))
    while waiting:
        child = waiting.pop()
        if isinstance(child, (ast.Global, ast.Nonlocal)):
            kind = "global" if isinstance(child, ast.Global) else "nonlocal"
            scope.outer.update(dict.fromkeys(child.names, kind))
        elif (isinstance(child, ast.stmt) and not isinstance(child, (*FUNCTIONS, ast.ClassDef))) or isinstance(
            child, (ast.excepthandler, ast.match_case)
        ):
            waiting.extend(ast.iter_child_nodes(child))


def _bind_here(node: ast.AST, scope: Scope, module: Module) -> None:
    """Note what this one node binds."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            scope.bind(name, Binding("import", dotted=alias.name if alias.asname else name))
    elif isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name == "*":
                module.starred.append(base)
            else:
                scope.bind(alias.asname or alias.name, Binding("import", dotted=f"{base}.{alias.name}"))
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            _bind_target(target, node.value, scope, module)
    elif isinstance(node, ast.AnnAssign):
        if isinstance(node.target, ast.Name):
            kind = "value" if node.value is not None else "declared"
            scope.bind(node.target.id, Binding(kind, node.value, annotation=node.annotation))
        elif node.value is not None:
            _bind_target(node.target, node.value, scope, module)
    elif isinstance(node, ast.NamedExpr):
        outside = scope
        while isinstance(outside.node, COMPREHENSIONS) and outside.parent is not None:
            outside = outside.parent
        outside.bind(node.target.id, Binding("value", node.value))
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        scope.bind(node.target.id, Binding("value", node.value, dotted="augmented"))
    elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
        _bind_opaque(node.target, scope)
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        _bind_opaque(node.optional_vars, scope)
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        scope.bind(node.name, Binding("opaque"))
    elif isinstance(node, ast.MatchMapping) and node.rest:
        scope.bind(node.rest, Binding("opaque"))


def _bind_target(target: ast.expr, value: ast.expr, scope: Scope, module: Module) -> None:
    if isinstance(target, ast.Name):
        scope.bind(target.id, Binding("value", value))
    elif isinstance(target, (ast.Tuple, ast.List)):
        same = isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts)
        starred = any(isinstance(e, ast.Starred) for e in target.elts)
        for position, element in enumerate(target.elts):
            if same and not starred and isinstance(value, (ast.Tuple, ast.List)):
                _bind_target(element, value.elts[position], scope, module)
            elif isinstance(element, ast.Name) and not starred:
                scope.bind(element.id, Binding("value", value, unpacked=position))
            else:
                _bind_opaque(element, scope)
    elif isinstance(target, ast.Starred):
        _bind_opaque(target.value, scope)
    elif (
        isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in ("self", "cls")
    ):
        owner: Scope | None = scope
        while owner is not None and not isinstance(owner.node, ast.ClassDef):
            owner = owner.parent
        if owner is not None and isinstance(owner.node, ast.ClassDef):
            module.attributes[owner.node].setdefault(target.attr, []).append(value)


def _bind_opaque(target: ast.AST, scope: Scope) -> None:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            scope.bind(node.id, Binding("opaque"))
