"""Which part of an array an index names, and whether several parts together are the whole.

Parts are decided on a small stand-in: an array whose unknown extents are a few larger than every number in the indices.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from itertools import product

from convlstm.determinism.audit.extents import Extent, extent
from convlstm.determinism.audit.names import Names

LARGEST = 20_000  # elements of a stand-in
Bounds = tuple[int | None, int | None, int]  # start, stop, step, as in a slice of numbers
ALL: Bounds = (None, None, 1)


@dataclass(frozen=True)
class Region:
    """Bounds along the leading axes and, after an ellipsis, along the last ones; a number is (k, k + 1, 0)."""

    leading: tuple[Bounds, ...]
    trailing: tuple[Bounds, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Tell whether this is every element."""
        return all(bounds == ALL for bounds in (*self.leading, *self.trailing))


WHOLE = Region(())


@dataclass(frozen=True)
class Span:
    """The values that a loop variable takes: from `start` to before `stop`, by `step`."""

    start: Extent
    stop: Extent
    step: int = 1


Spans = dict[str, Span]


def region(index: ast.expr, extents: list[Extent], spans: Spans, names: Names) -> Region | None:
    """Return what an index selects, None if the source does not tell. Loop variables stand for all they run over."""
    parts = list(index.elts) if isinstance(index, ast.Tuple) else [index]
    leading: list[Bounds] = []
    trailing: list[Bounds] = []
    after = False
    for part in parts:
        if isinstance(part, ast.Constant) and part.value is Ellipsis:
            after = True
            continue
        if isinstance(part, ast.Constant) and part.value is None:  # np.newaxis
            continue
        along = extents[len(leading)] if not after and len(leading) < len(extents) else None
        bounds = _bounds(part, along, spans, names)
        if bounds is None:
            return None
        (trailing if after else leading).append(bounds)
    return Region(tuple(leading), tuple(trailing))


def _bounds(part: ast.expr, along: Extent | None, spans: Spans, names: Names) -> Bounds | None:
    if isinstance(part, ast.Slice):
        step = extent(part.step, names) if part.step is not None else Extent("", 1)
        if step.symbol or step.number < 1:
            backwards = step == Extent("", -1) and part.lower is None and part.upper is None
            return ALL if backwards else None
        start = _edge(part.lower, along, names, default=None)
        stop = _edge(part.upper, along, names, default=None)
        if isinstance(start, str) or isinstance(stop, str):
            return None
        return (None if start == 0 else start, stop, step.number)
    used = {n.id for n in ast.walk(part) if isinstance(n, ast.Name)} & set(spans)
    if len(used) == 1:
        return _looped(part, used.pop(), along, spans, names)
    if isinstance(part, ast.Constant) and isinstance(part.value, bool):
        return None
    number = extent(part, names)
    if not number.symbol:
        return (number.number, number.number + 1, 0)
    if along is not None and number.symbol == along.symbol and number.number < along.number:
        return (number.number - along.number, number.number - along.number + 1, 0)
    return None


def _edge(node: ast.expr | None, along: Extent | None, names: Names, default: int | None) -> int | str | None:
    """Return a slice's edge as a number, negative from the end; "" if it is not known."""
    if node is None or (isinstance(node, ast.Constant) and node.value is None):
        return default
    return relative(extent(node, names), along)


def relative(edge: Extent, along: Extent | None) -> int | str | None:
    """Return an edge as a number: from the start, or negative from the end; None for the end itself, "" if unknown."""
    if along is not None and edge.symbol == along.symbol:
        offset = edge.number - along.number
        return None if offset >= 0 else (edge.number if not edge.symbol else offset)
    return edge.number if not edge.symbol else ""


def _looped(part: ast.expr, name: str, along: Extent | None, spans: Spans, names: Names) -> Bounds | None:
    """Return what `x[i + 1]` covers once i has run over its span."""
    span = spans[name]
    here = extent(part, names)
    alone = extent(ast.Name(name, ast.Load()), names)
    if here.symbol != alone.symbol and here.symbol != name:
        return None
    shift = here.number
    start, stop = relative(span.start.plus(shift), along), relative(span.stop.plus(shift), along)
    if isinstance(start, str) or isinstance(stop, str) or start is None or (start < 0 and span.start.symbol == ""):
        return None
    return (None if start == 0 else start, stop, span.step)


def covers(written: frozenset[Region], wanted: Region, extents: list[Extent], axes: int | None) -> bool | None:
    """Tell whether the written parts hold all that is wanted; None if it cannot be decided."""
    if any(r.is_whole for r in written):
        return True
    every = [*written, wanted]
    rank = axes or max((len(r.leading) + len(r.trailing) for r in every), default=1) or 1
    if axes is None and any(r.trailing for r in every) and any(r.leading for r in every):
        return None
    if any(len(r.leading) + len(r.trailing) > rank for r in every):
        return None
    numbers = [abs(n) for r in every for b in (*r.leading, *r.trailing) for n in b[:2] if n is not None]
    generic = 2 * max(numbers, default=1) + 5
    sizes, tight = [generic] * rank, [generic] * rank
    for position in range(rank):
        known = extents[position] if position < len(extents) else None
        highest = max((_highest(r, position, rank) for r in written), default=0)
        if known is not None and not known.symbol and 0 < known.number < generic:
            sizes[position] = tight[position] = known.number
        elif highest > 1 and (known is None or known.symbol):
            # x[:, 0] and x[:, 1] are all there is of an axis that may have two elements.
            tight[position] = highest
    if math.prod(sizes) > LARGEST:
        return None
    answers = {_holds(written, wanted, sizes), _holds(written, wanted, tight)}
    return answers.pop() if len(answers) == 1 else None


def _highest(part: Region, position: int, rank: int) -> int:
    """Return the least extent along an axis that holds all that a part names by its distance from the start."""
    before_trailing = rank - len(part.trailing)
    if position < len(part.leading):
        start, stop, _ = part.leading[position]
    elif position >= before_trailing:
        start, stop, _ = part.trailing[position - before_trailing]
    else:
        return 0
    return max(stop if stop is not None and stop > 0 and (start is None or start >= 0) else 0, 0)


def _holds(written: frozenset[Region], wanted: Region, sizes: list[int]) -> bool:
    parts = [[set(chosen) for chosen in _cells(r, sizes)] for r in written]
    return all(
        any(all(i in chosen for i, chosen in zip(cell, part, strict=True)) for part in parts)
        for cell in product(*_cells(wanted, sizes))
    )


def _cells(part: Region, sizes: list[int]) -> list[list[int]]:
    middle = [ALL] * (len(sizes) - len(part.leading) - len(part.trailing))
    chosen = []
    for bounds, size in zip((*part.leading, *middle, *part.trailing), sizes, strict=True):
        start, stop, step = bounds
        if step == 0 and start is not None:
            chosen.append([start % size])
        else:
            chosen.append(list(range(size))[slice(start, stop, step or 1)])
    return chosen
