"""What the gradients of several parameters say together: one factor for all, exchanged names, one alone at fault."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from convlstm.gradcheck.factors import name_factor
from convlstm.gradcheck.patterns import Evidence, Finding, fit


def name_common_cause(wrong: Mapping[str, Evidence], norms: Mapping[str, float]) -> dict[str, Finding]:
    """Return a diagnosis for each wrong gradient that one cause explains; `norms` are those of all the gradients."""
    for kind, found in (
        ("exchanged", exchanged(wrong)),
        ("clipped", clipped(wrong, norms)),
        ("factor", same_factor(wrong)),
    ):
        if found:
            return {name: Finding(kind, line) for name, line in found.items()}
    return {}


def exchanged(wrong: Mapping[str, Evidence]) -> dict[str, str]:
    """Find gradients that stand under each other's names."""
    found = {}
    for name, e in wrong.items():
        for other, o in wrong.items():
            if other == name or o.analytic.shape != e.analytic.shape:
                continue
            here, there = (e.only(np.isin(e.flat, o.flat)), o.only(np.isin(o.flat, e.flat)))
            enough = here.flat.size and there.tells.sum() >= min(3, e.analytic.size)
            if enough and not here.explained_by(here.a) and there.explained_by(here.a):
                found[name] = f"gates swapped, or names: this is the gradient of {other!r}"
    return found


def clipped(wrong: Mapping[str, Evidence], norms: Mapping[str, float]) -> dict[str, str]:
    """Find gradients that clipping by norm has scaled."""
    factors = {name: fit(e, e.a) for name, e in wrong.items()}
    scaled = {name: k for name, k in factors.items() if k is not None and 0 < k < 1}
    total = math.sqrt(sum(norm**2 for norm in norms.values()))
    if len(scaled) == len(wrong) and len(norms) > 1 and _same(list(scaled.values())) and _is_round(total):
        line = (
            f"scaled by clipping before it was compared: the norm of all gradients together is {total:.6g}, all have "
        )
        return {name: f"{line}the same constant factor {k:.4g}" for name, k in scaled.items()}
    found = {}
    for name in wrong:
        norm = norms[name]
        if name in scaled and _is_round(norm):
            found[name] = (
                f"scaled by clipping before it was compared: its norm is {norm:.6g}, constant factor {scaled[name]:.4g}"
            )
        elif factors[name] is None and math.isclose(norm, 1, rel_tol=1e-5) and wrong[name].analytic.size > 2:
            found[name] = (
                "clipped inside the time loop: its norm is exactly 1, but it is no multiple of the right gradient; "
                "clip once, after all steps"
            )
    return found


def same_factor(wrong: Mapping[str, Evidence]) -> dict[str, str]:
    """Find one factor in all wrong gradients, the small ones included that could not tell it alone."""
    factors = [k for e in wrong.values() if (k := fit(e, e.a)) is not None]
    if len(wrong) < 2 or not factors or not _same(factors):
        return {}
    if not all(e.tells.any() and e.explained_by(e.a / factors[0]) for e in wrong.values()):
        return {}
    sizes = next(iter(wrong.values())).sizes
    line = f"{name_factor(factors[0], sizes)} (the same for all)"
    return dict.fromkeys(wrong, line)


def alone(name: str, shapes: Mapping[str, tuple[int, ...]], right: set[str]) -> str:
    """Return what it means that this gradient alone is wrong; "" where that means nothing."""
    shape = shapes[name]
    if not any(set(shape) & set(shapes[other]) for other in right):
        return ""
    if len(shape) in (1, 3):
        return (
            "only this gradient is wrong, so its own line is: not summed over the batch, the pixels or the time steps, "
            "as a bias's must be, or multiplied by another input than the forward's; "
        )
    return (
        "only this gradient is wrong, so its own line is: summed over time with = in place of +=, not summed over the "
        "batch or the pixels, multiplied by another input than the forward's, or (an index that occurs twice in one "
        "assignment) added once where np.add.at is needed; "
    )


def _same(factors: list[float]) -> bool:
    return bool(factors) and all(math.isclose(k, factors[0], rel_tol=1e-4) for k in factors)


def _is_round(norm: float) -> bool:
    return norm > 0 and math.isclose(norm, float(f"{norm:.1e}"), rel_tol=1e-5)
