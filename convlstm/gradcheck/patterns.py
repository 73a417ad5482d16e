"""What a wrong gradient looks like: compare it with simple transforms of the right one, and say which it is.

Each pattern is a function from the evidence on one parameter to a sentence, or None where it does not fit.  A pattern
fits only if it explains every entry whose numerical derivative is known, within their errors, and enough of them to
exclude chance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convlstm.gradcheck.arrays import Host
from convlstm.gradcheck.factors import name_factor
from convlstm.gradcheck.measure import Measured

ENOUGH = 3  # entries that a pattern must explain
ROTATED = "the kernel's gradient is not rotated by 180°: its taps stand in reverse order along both axes"


@dataclass(frozen=True)
class Evidence:
    """The gradient a of one parameter, and its numerical derivative n at some entries."""

    analytic: Host  # the whole of a
    parameter: Host  # the parameter itself
    flat: npt.NDArray[np.intp]  # which entries n is known of
    n: Host
    errors: Host  # of n
    rtol: float  # how far rounding may take a from what its formula gives
    wrong: npt.NDArray[np.bool_]
    sizes: Mapping[str, int]

    @property
    def a(self) -> Host:
        """The gradient at the known entries."""
        values: Host = self.analytic.flat[self.flat]
        return values

    @property
    def tells(self) -> npt.NDArray[np.bool_]:
        """Where n is large enough to tell one pattern from another."""
        return np.asarray(abs(self.n) > np.maximum(1e-3 * abs(self.n).max(initial=0), 20 * self.errors))

    def explained_by(self, values: Host) -> bool:
        """Whether these values are n, within its errors and far better than a is."""
        size = abs(self.n).max(initial=0)
        close = (1e-3 + 3 * self.rtol) * abs(self.n) + (1e-5 + self.rtol) * size
        wrong = abs(self.a - self.n).max(initial=0)
        return bool((abs(values - self.n) <= np.minimum(close, 0.05 * wrong) + 5 * self.errors).all())

    def only(self, keep: npt.NDArray[np.bool_]) -> Evidence:
        """Return the evidence on some of the known entries."""
        return replace(self, flat=self.flat[keep], n=self.n[keep], errors=self.errors[keep], wrong=self.wrong[keep])


def evidence(measured: Measured, parameter: Host, sizes: Mapping[str, int]) -> Evidence:
    """Return what the patterns look at."""
    flat, n, errors = measured.known()
    return Evidence(measured.analytic, parameter, flat, n, errors, measured.rtol, measured.wrong(), sizes)


class Finding(NamedTuple):
    """A diagnosis."""

    kind: str  # the pattern's name, "" where none was found
    line: str


def name_pattern(e: Evidence) -> Finding | None:
    """Return the likeliest cause of a wrong gradient, with its evidence; None if no pattern fits."""
    if not e.flat.size:
        return None
    patterns = (zero, not_zero, factor, one_number, clipped_by_value, rearranged, in_one_block, by_row, decay)
    return next((Finding(pattern.__name__, line) for pattern in patterns if (line := pattern(e))), None)


def zero(e: Evidence) -> str | None:
    """a = 0."""
    if e.a.any():
        return None
    return f"zero: nothing was ever added to it, while the loss does depend on it (up to {abs(e.n).max():.2g} an entry)"


def not_zero(e: Evidence) -> str | None:
    """n = 0."""
    if (abs(e.n) > 2 * e.errors).any():
        return None
    return f"not zero (up to {abs(e.a).max():.2g} an entry), while the loss does not depend on it here"


def factor(e: Evidence) -> str | None:
    """a = k n."""
    k = fit(e, e.a)
    return None if k is None else name_factor(k, e.sizes)


def fit(e: Evidence, a: Host) -> float | None:
    """Return the k with a = k n; None where there is none or too little to tell."""
    tells = int(e.tells.sum())
    if not tells:
        return None
    k = float(a @ e.n) / float(e.n @ e.n)
    if k == 0 or not e.explained_by(a / k):
        return None
    # One entry is always some multiple of another: of so few, only factors that programs have in fact.
    return k if tells >= ENOUGH or any(math.isclose(k, known, rel_tol=1e-4) for known in (1, -1, 2, 0.5)) else None


def one_number(e: Evidence) -> str | None:
    """All of a is one number."""
    if e.analytic.size < ENOUGH or np.ptp(e.analytic) > 1e-12 * abs(e.analytic).max():
        return None
    if e.analytic.ndim == 1:
        return "every entry is the same number: it was summed over all axes, that of the units too"
    return (
        "every entry is the same number: a scalar was added to all of it, as np.dot of two vectors gives; the outer "
        "product, np.outer, belongs there"
    )


def clipped_by_value(e: Evidence) -> str | None:
    """a = max(-c, min(c, n))."""
    c = float(abs(e.analytic).max())
    at_c = abs(abs(e.a) - c) <= 1e-9 * c
    if at_c.sum() < 2 or not (abs(e.n[at_c]) >= c * (1 - 1e-6)).all():
        return None
    if not e.explained_by(np.where(at_c, e.n, e.a)):
        return None
    if not (np.sign(e.n[at_c]) == np.sign(e.a[at_c])).all():
        return None
    return f"clipped to ±{c:.4g} before it was compared: {at_c.sum()} of {at_c.size} entries stand at that bound"


def rearranged(e: Evidence) -> str | None:
    """a holds the entries of n in other places, perhaps times a factor."""
    for description, moved in rearrangements(e.analytic):
        values = moved.flat[e.flat]
        if not e.tells.any() or np.allclose(values[e.tells], e.a[e.tells], rtol=1e-6, atol=0):
            continue  # this one moves nothing that could be told
        k = fit(e, values)
        if k is not None and e.tells.sum() >= ENOUGH:
            return description if math.isclose(k, 1, rel_tol=1e-3) else f"{description}; and {name_factor(k, e.sizes)}"
    return None


def rearrangements(a: Host) -> Iterator[tuple[str, Host]]:
    """Yield what the right gradient would be if a were it in another order, likeliest first."""
    shape = a.shape
    if a.ndim == 2 and shape[0] == shape[1]:
        yield "transposed", a.T
    if a.ndim >= 4:
        yield ROTATED, a[..., ::-1, ::-1]
        yield ROTATED, a[::-1, ::-1]  # kernels that stand first, as Keras has them
        yield "the kernel's gradient stands in reverse order along its height", a[..., ::-1, :]
        yield "the kernel's gradient stands in reverse order along its width", a[..., ::-1]
        if shape[-1] == shape[-2]:
            yield "height and width of the kernel's gradient are exchanged", a.swapaxes(-1, -2)
    if a.ndim == 3:
        yield "the kernel's gradient stands in reverse order", a[..., ::-1]
    if a.ndim >= 2 and shape[0] % shape[1] == 0 and shape[1] > 1:
        blocks = a.reshape(-1, shape[1], *shape[1:]).swapaxes(1, 2)
        within = "" if shape[0] == shape[1] else " within each gate"
        yield f"input and output channels are swapped{within}", blocks.reshape(shape)
    if a.ndim == 4 and shape[3] % shape[2] == 0 and shape[2] > 1:
        blocks = a.reshape(*shape[:3], -1, shape[2]).swapaxes(2, 4)
        yield "input and output channels are swapped within each gate", blocks.reshape(shape)
    yield from gate_orders(a)
    for axis in range(a.ndim):
        for by in (1, -1):
            yield f"shifted by one along axis {axis}", np.roll(a, by, axis)


def gate_axes(shape: tuple[int, ...], gates: int) -> list[int]:
    """Return the axes along which so many gates may be stacked, several units each."""
    axes = [0] if len(shape) != 2 else [0, 1]
    if len(shape) > 2:
        axes.append(len(shape) - 1)  # Keras's kernels (K, K, C, 4C)
    return [axis for axis in axes if shape[axis] % gates == 0 and shape[axis] >= 2 * gates]


def gate_orders(a: Host) -> Iterator[tuple[str, Host]]:
    """Yield a with the gates' blocks in every other order, along each axis that could hold them."""
    for gates in (4, 3, 2):
        for axis in gate_axes(a.shape, gates):
            blocks = np.split(a, gates, axis)
            for order in itertools.permutations(range(gates)):
                moved = [place for place, block in enumerate(order) if place != block]
                if not moved:
                    continue
                names = " and ".join(str(place + 1) for place in moved)
                verb = "swapped" if len(moved) == 2 else "in another order"
                yield (
                    f"gates {verb}: blocks {names} of {gates} along axis {axis} stand in each other's place",
                    np.concatenate([blocks[block] for block in order], axis),
                )


def in_one_block(e: Evidence) -> str | None:
    """Only some of the gates' blocks are wrong, and those nearly everywhere."""
    for gates in (4, 3):
        for axis in gate_axes(e.analytic.shape, gates):
            block = block_of(e, axis, gates)
            bad = sorted({int(b) for b in block[e.wrong]})
            good = {int(b) for b in block[~e.wrong & e.tells]} - set(bad)
            inside = np.isin(block, bad)
            if (
                not bad
                or len(good) + len(bad) < gates
                or not good
                or e.wrong[inside & (e.tells | e.wrong)].mean() < 0.8
            ):
                continue
            within = e.only(inside)
            patterns: tuple[Callable[[Evidence], str | None], ...] = (zero, factor, not_zero, by_row)
            pattern = next(filter(None, (p(within) for p in patterns)), None)
            which = f"only gate {' and '.join(str(b + 1) for b in bad)} of {gates} along axis {axis} is wrong"
            return f"{which}: {pattern or ('the other gates are right; ' + likeness(within))}"
    return None


def block_of(e: Evidence, axis: int, gates: int) -> npt.NDArray[np.intp]:
    """Return for each known entry which of the gates' blocks it lies in."""
    along = np.unravel_index(e.flat, e.analytic.shape)[axis]
    return np.asarray(along // (e.analytic.shape[axis] // gates), np.intp)


def by_row(e: Evidence) -> str | None:
    """a = D n with D diagonal: each unit's gradient is off by a factor of its own."""
    for axis in sorted({0, e.analytic.ndim - 1}) if e.analytic.ndim >= 2 else ():
        along = np.unravel_index(e.flat, e.analytic.shape)[axis]
        factors: list[float] = []
        for unit in np.unique(along):
            row = e.only((along == unit) & e.tells)
            if row.flat.size < 2:
                continue
            k = float(row.a @ row.n) / float(row.n @ row.n)
            if k == 0 or not row.explained_by(row.a / k):
                factors = []
                break
            factors.append(k)
        off = [k for k in factors if abs(k - 1) > 1e-3]
        if len(off) >= max(2, len(factors) / 2) and np.ptp(factors) > 1e-3 * max(map(abs, factors)):
            return f"each unit is off by a factor of its own {name_derivative(factors)}"
    return None


def name_derivative(factors: list[float]) -> str:
    """Return which wrong derivative of an activation gives such factors.

    With s = σ(z) the right one is s(1-s), with t = tanh(z) it is 1-t².  The wrong one over it is, for every z,
    s(1-s) of s in place of z, σ′(σ(z)): ≥ 0.936;  1-tanh²(t): ≥ 1;  z(1-z): ≤ 1.07;  1-z²: ≤ 1;  none at all: ≥ 4, ≥ 1.
    """
    low, high = min(factors), max(factors)
    if low >= 4:
        which = "left out, or taken of another function"
    elif low >= 0.93:
        which = "left out, or taken of the activation a second time, σ′(σ(z)) or 1-tanh²(tanh(z))"
    elif high <= 1.08:
        which = "taken from z where σ(z) or tanh(z) belongs, z(1-z) or 1-z²"
    else:
        which = "s(1-s) needs s = σ(z), 1-t² needs t = tanh(z)"
    return (
        f"({low:.3g} … {high:.3g}): the derivative of the activation is taken at the wrong point ({which}), or another "
        "factor of the unit's own, a gate or a scale, is wrong"
    )


def decay(e: Evidence) -> str | None:
    """a = n + λ θ."""
    theta = e.parameter.flat[e.flat]
    if (e.tells & (theta != 0)).sum() < ENOUGH:
        return None
    excess = e.a - e.n
    weight = float(excess @ theta) / float(theta @ theta)
    if not e.explained_by(e.a - weight * theta) or abs(excess).max() < 50 * e.errors.max():
        return None
    return f"it holds {weight:.4g} times the parameter itself: weight decay that the loss does not have"


def places(e: Evidence) -> str:
    """Return where the wrong entries lie, if only few places along one axis are wrong."""
    for axis in range(e.analytic.ndim):
        along = np.unravel_index(e.flat, e.analytic.shape)[axis]
        bad, right = set(map(int, along[e.wrong])), set(map(int, along[~e.wrong & e.tells]))
        if bad and len(right - bad) >= max(2, len(bad)):
            listed = ", ".join(map(str, sorted(bad)[:6])) + (", …" if len(bad) > 6 else "")
            return f"wrong only at {listed} along axis {axis}"
    return ""


def likeness(e: Evidence) -> str:
    """Return how far a and n point the same way."""
    lengths = float(np.linalg.norm(e.a) * np.linalg.norm(e.n))
    cosine = float(e.a @ e.n) / lengths if lengths else 0.0
    k = float(e.a @ e.n) / float(e.n @ e.n) if e.n.any() else 0.0
    return f"cosine to the right gradient {cosine:.3f}, {k:.3g} times as long along it"
