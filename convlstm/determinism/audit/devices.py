"""Sums whose order a GPU does not fix."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from convlstm.determinism.audit.findings import Raw
from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.scopes import Module

# Maxima and minima are the same in any order: cupyx.scatter_max is not among these.
SCATTERS = frozenset({"cupyx.scatter_add", "cupy.scatter_add", "cupy.add.at", "cupy.subtract.at"})
WEIGHTED = frozenset({"cupy.bincount", "cupy.histogram", "cupy.histogram2d", "cupy.histogramdd"})
TORCH_METHODS = frozenset({"index_add_", "scatter_add_", "index_add", "scatter_add", "scatter_reduce_"})


def devices(module: Module, names: Names) -> Iterator[Raw]:
    """Yield atomic additions on a GPU."""
    on_cuda = any(
        (isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value.startswith("cuda"))
        or (isinstance(n, ast.Attribute) and n.attr == "cuda")
        for n in module.parent_of
    )
    for call in module.calls:
        called = names.resolve(call.func)
        scatters = sorted(called & SCATTERS)
        if scatters:
            yield Raw(call, "gpu-scatter", _message(scatters[0]))
        weighted = sorted(called & WEIGHTED)
        if weighted and any(k.arg == "weights" and not _is_none(k.value) for k in call.keywords):
            yield Raw(call, "gpu-scatter", _message(f"{weighted[0]} with weights"))
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if on_cuda and method in TORCH_METHODS and _uses_torch(names):
            yield Raw(call, "gpu-scatter", _message(f"{method} of a tensor on a GPU"))


def _message(name: str) -> str:
    return f"{name} adds with atomics, in an order that differs from run to run; of floats the sum does too"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _uses_torch(names: Names) -> bool:
    scopes = set(names.module.scope_of.values())
    return any(
        b.kind == "import" and b.dotted.partition(".")[0] == "torch"
        for scope in scopes
        for bindings in scope.bindings.values()
        for b in bindings
    )
