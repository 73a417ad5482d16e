"""Which part of a recurrent net a gradient's entries belong to: gates, input and recurrent weights.

Names differ from program to program; so what can be seen decides before what something is called.  At T = 1, from a
zero state, the loss does not depend on recurrent weights, which multiply h₀ = 0, nor on the forget gate, which
multiplies c₀ = 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convlstm.gradcheck.measure import Measured

GATE_NAME = re.compile(r"^(.*?)[._]?([ifogcazrnu])$")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """The entries of one gate in one parameter's gradient, at one length."""

    name: str
    gate: str  # "" where there are none; "i", "f", … from its name, or "2 of 4" from its place
    silent: bool  # the loss does not depend on it
    wrong: bool


@dataclass(frozen=True)
class Layout:
    """Where the gates stand in a parameter."""

    axis: int
    gates: int


def parts(measured: Mapping[str, Measured], layouts: Mapping[str, Layout]) -> list[Part]:
    """Return the parts of all gradients, at one length."""
    named = gate_names(list(measured))
    found = []
    for name, m in measured.items():
        flat, n, errors = m.known()
        wrong = m.wrong()
        groups = [(named.get(name, ""), np.ones(flat.size, np.bool_))]
        if name in layouts and name not in named:
            groups = [(f"{k + 1} of {layouts[name].gates}", inside) for k, inside in _blocks(m, layouts[name])]
        for gate, inside in groups:
            silent = bool((abs(n[inside]) <= 2 * errors[inside]).all())
            bad = bool(wrong[inside].any() or (m.direction == "wrong" and len(groups) == 1))
            found.append(Part(name, gate, silent, bad))
    return found


def gate_names(names: list[str]) -> dict[str, str]:
    """Return the gate of each parameter of a family such as Wi, Wf, Wo, Wg."""
    families: dict[str, dict[str, str]] = {}
    for name in names:
        match = GATE_NAME.match(name)
        if match:
            families.setdefault(match[1], {})[match[2]] = name
    return {name: gate for family in families.values() if len(family) >= 3 for gate, name in family.items()}


def find_layouts(at_one: Mapping[str, Measured]) -> dict[str, Layout]:
    """Return where gates are stacked, from what is known at T = 1.

    A recurrent kernel (G·C, C, …) or (C, G·C), which is silent, gives G away, 4 in an LSTM and 3 in a GRU.  One over
    inputs and hidden channels together, (4C, D + C, …), does not; of its four blocks exactly one is then silent, the
    forget gate.  Other parameters hold gates if they are as long along that axis.
    """
    shapes = {name: m.analytic.shape for name, m in at_one.items()}
    for gates in (4, 3):
        for axis in (0, 1):
            for name, shape in shapes.items():
                if len(shape) < 2 or shape[axis] % gates:
                    continue
                layouts = {
                    n: Layout(at, gates) for n, s in shapes.items() if (at := _place(s, shape[axis], axis)) is not None
                }
                recurrent = shape[axis] == gates * shape[1 - axis] and (not at_one[name].moves or len(layouts) >= 3)
                together = gates == 4 and _one_silent(at_one[name], layouts[name])
                if len(layouts) >= 2 and (recurrent or together):
                    return layouts
    return {}


def _place(shape: tuple[int, ...], length: int, axis: int) -> int | None:
    """Return the axis along which a parameter of this shape holds the gates."""
    if len(shape) in (1, 3):
        return 0 if shape[0] == length else None
    return axis if len(shape) > axis and shape[axis] == length else None


def _one_silent(m: Measured, layout: Layout) -> bool:
    _, n, errors = m.known()
    silent = [bool((abs(n[inside]) <= 2 * errors[inside]).all()) for _, inside in _blocks(m, layout)]
    return silent.count(True) == 1


def _blocks(m: Measured, layout: Layout) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """Return for each gate which of the known entries belong to it."""
    along = np.unravel_index(m.known()[0], m.analytic.shape)[layout.axis]
    block = along // (m.analytic.shape[layout.axis] // layout.gates)
    return [(k, block == k) for k in range(layout.gates)]
