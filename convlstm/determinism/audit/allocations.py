"""Which calls hand out memory that nobody has written, and how large it is as far as the source tells."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.scopes import FUNCTIONS

# How many leading arguments a call may have and still be uninitialised: np.ndarray(shape, dtype, buffer) is not.
SHAPED = {
    "numpy.empty": 4,
    "cupy.empty": 3,
    "numpy.ndarray": 2,
    "cupy.ndarray": 2,
    "torch.empty": 99,
    "torch.empty_strided": 99,
    "cupyx.empty_pinned": 3,
}
LIKE = frozenset(
    {"numpy.empty_like", "cupy.empty_like", "torch.empty_like", "cupyx.empty_like_pinned", "numpy.ma.empty_like"}
)
RAW = frozenset(
    {
        "cupy.cuda.alloc",
        "cupy.cuda.alloc_pinned_memory",
        "cupy.cuda.malloc_managed",
        "cupy.cuda.malloc_async",
    }
)
TORCH_TENSORS = frozenset(
    {"torch.Tensor", "torch.FloatTensor", "torch.DoubleTensor", "torch.LongTensor", "torch.cuda.FloatTensor"}
)
ZEROED_LIKE = frozenset({f"{m}.{f}_like" for m in ("numpy", "cupy", "torch") for f in ("zeros", "ones", "full")} | LIKE)
ZEROED = frozenset({f"{m}.{f}" for m in ("numpy", "cupy", "torch") for f in ("zeros", "ones", "full")} | set(SHAPED))
OBJECTS = frozenset({"builtins.object", "numpy.object_", "numpy.object"})


@dataclass(frozen=True, eq=False)
class Allocation:
    """One call that hands out unwritten memory."""

    call: ast.Call
    name: str  # as a reader would write it: "numpy.empty_like"
    line: int
    origin: str = ""  # where the memory is allocated, if this call only passes it on


def allocation(call: ast.Call, names: Names) -> Allocation | None:
    """Return what a call allocates without writing it, None if nothing."""
    found = _allocator(call, names)
    if not found or _holds_objects(call, names) or _has_no_elements(call, names) or sizeless(call, call, names):
        return None
    return Allocation(call, found, call.lineno)


def _allocator(call: ast.Call, names: Names) -> str:
    keywords = {k.arg for k in call.keywords}
    resolved = names.resolve(call.func)
    if not resolved:
        # torch only; whatever else has a method of this name means the same by it.
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        return f"Tensor.{method}" if method in ("new_empty", "new_empty_strided") else ""
    for name in sorted(resolved):
        if name in SHAPED:
            given = bool(call.args) or "shape" in keywords or "size" in keywords
            if given and len(call.args) <= SHAPED[name] and not keywords & {"buffer", "memptr", "out", None}:
                return name
        elif name in LIKE or name in RAW:
            return name if call.args or keywords else ""
        elif name in TORCH_TENSORS and not keywords:
            several = len(call.args) > 1 and not any(isinstance(a, ast.Starred) for a in call.args)
            sized = len(call.args) == 1 and isinstance(_literal(call.args[0]), int)
            return name if several or sized else ""
    return ""


def _holds_objects(call: ast.Call, names: Names) -> bool:
    """Tell whether the elements are Python objects: such memory is filled with None."""
    dtype = next((k.value for k in call.keywords if k.arg == "dtype"), None)
    if dtype is None and len(call.args) > 1:
        dtype = call.args[1]
    # Fields of records may be objects too; texts that grow, or have no length, hold nothing old either.
    for part in ast.walk(dtype) if dtype is not None else ():
        if (
            isinstance(part, ast.Constant) and part.value in ("O", "object", "object_", "T", "U", "S")
        ) or names.resolve(part) & OBJECTS:
            return True
    return False


def _has_no_elements(call: ast.Call, names: Names) -> bool:
    shape = next((k.value for k in call.keywords if k.arg in ("shape", "size")), call.args[0] if call.args else None)
    return any(_literal(e) == 0 for e in elements(shape, names) or ([shape] if shape is not None else []))


def shape_names(call: ast.Call, names: Names) -> set[str]:
    """Return the variables that a call's shape is written with, directly or one step away."""
    used: set[str] = set()
    for node in (n for a in (*call.args, *call.keywords) for n in _plain_names(a)):
        used.add(node.id)
        only = names.only_value(node)
        if only is not None and only.node is not None:
            used |= {n.id for n in _plain_names(only.node)}
    return used


def _plain_names(node: ast.AST) -> list[ast.Name]:
    """Return the variables in an expression, but for those of which only an attribute is taken."""
    inside = list(ast.walk(node))
    owners = {n.value for n in inside if isinstance(n, ast.Attribute)}
    return [n for n in inside if isinstance(n, ast.Name) and n not in owners]


def sizeless(node: ast.AST, call: ast.Call, names: Names) -> bool:
    """Tell whether this stands where a size has been tested to be zero, or another number: nothing is missed then."""
    used = shape_names(call, names)
    child, parent = node, names.module.parent_of.get(node)
    while parent is not None and not isinstance(parent, (*FUNCTIONS, ast.Module)):
        if isinstance(parent, ast.If) and child in parent.body and _tests_zero(parent.test, used):
            return True
        if isinstance(parent, ast.IfExp) and child is parent.body and _tests_zero(parent.test, used):
            return True
        child, parent = parent, names.module.parent_of.get(parent)
    return False


def _tests_zero(test: ast.expr, used: set[str]) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and _is_size(node.operand, used):
            return True
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            continue
        (operator,), (right,) = node.ops, node.comparators
        fixed = isinstance(operator, ast.Eq) and isinstance(_literal(right), int) and isinstance(node.left, ast.Name)
        if fixed and isinstance(node.left, ast.Name) and node.left.id in used:
            return True
        if isinstance(operator, (ast.Eq, ast.LtE)) and _literal(right) == 0 and _is_size(node.left, used):
            return True
        if isinstance(operator, ast.Lt) and _literal(right) == 1 and _is_size(node.left, used):
            return True
        if isinstance(operator, (ast.In, ast.Eq)) and _literal(node.left) == 0 and _is_size(right, used):
            return True
    return False


def _is_size(node: ast.expr, used: set[str]) -> bool:
    """Tell whether an expression is a size: of something, or a name that the shape is written with."""
    if any(isinstance(inner, ast.Attribute) and inner.attr in ("size", "shape", "nnz") for inner in ast.walk(node)):
        return True
    return any(n.id in used or n.id == "len" or n.id.endswith("size") for n in _plain_names(node))


def _literal(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def elements(shape: ast.expr | None, names: Names) -> list[ast.expr]:
    """Return the extents that a shape is written with, up to the first part that is not known."""
    only = names.only_value(shape) if shape is not None else None
    if only is not None and only.unpacked is None and isinstance(only.node, (ast.Tuple, ast.List)):
        shape = only.node
    if isinstance(shape, ast.BinOp) and isinstance(shape.op, ast.Add):
        shape = shape.left
    if not isinstance(shape, (ast.Tuple, ast.List)):
        return []
    known: list[ast.expr] = []
    for element in shape.elts:
        if isinstance(element, ast.Starred):
            break
        known.append(element)
    return known
