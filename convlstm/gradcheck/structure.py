"""Which part of a recurrent net a gradient's entries belong to: layer, gate, input or recurrent weights.

Names differ from program to program; so what can be seen decides before what something is called.  At T = 1, from a
zero state, the loss does not depend on recurrent weights, which multiply h₀ = 0, nor on the forget gate, which
multiplies c₀ = 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convlstm.gradcheck.measure import Measured

GATE_LETTERS = "ifogcazrnu"
GATE_WORDS = {"input": "i", "forget": "f", "output": "o", "candidate": "g", "cell": "g", "update": "z", "reset": "r"}
INITIAL_STATE = re.compile(r"(?i)(?:^|[._])(?:d?([hc])_?(?:0|init|initial|prev|start)|(?:init|initial|start)_?([hc]))$")


@dataclass(frozen=True)
class Part:
    """The entries of one gate in one parameter's gradient, at one length."""

    name: str
    gate: str  # "" where there are none; "i", "f", … from its name, or "2 of 4" from its place
    silent: bool  # the loss does not depend on it
    wrong: bool
    zero: bool  # the gradient holds nothing but zeros


@dataclass(frozen=True)
class Layout:
    """Where the gates stand in a parameter."""

    axis: int
    gates: int


def parts(measured: Mapping[str, Measured], layouts: Mapping[str, Layout]) -> list[Part]:
    """Return the parts of all gradients, at one length."""
    named = gate_names({name: m.analytic.shape for name, m in measured.items()})
    found = []
    for name, m in measured.items():
        flat, n, errors = m.known()
        a, wrong = m.analytic.flat[flat], m.wrong()
        groups = [(named.get(name, ""), np.ones(flat.size, np.bool_))]
        if name in layouts and name not in named:
            groups = [(f"{k + 1} of {layouts[name].gates}", inside) for k, inside in _blocks(m, layouts[name])]
        for gate, inside in groups:
            silent = bool((abs(n[inside]) <= 2 * errors[inside]).all())
            bad = bool(wrong[inside].any() or (m.direction == "wrong" and len(groups) == 1))
            found.append(Part(name, gate, silent, bad, not a[inside].any()))
    return found


def layer_of(name: str) -> tuple[int, ...]:
    """Return the number that a name carries, as those of stacked layers do: "layers.0.W_x", "Wi1", "weight_ih_l0"."""
    if INITIAL_STATE.search(name):
        name = re.sub(r"0", "", name)
    return tuple(int(digits) for digits in re.findall(r"\d+", name))


def gate_names(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the gate of each parameter of a family such as Wi, Wf, Wo, Wg: names alike but for a letter or word."""
    families: dict[tuple[str, tuple[int, ...]], dict[str, str]] = {}
    for name, shape in shapes.items():
        for pattern, gate in _readings(name):
            families.setdefault((pattern, shape), {}).setdefault(gate, name)
    whole = [family for family in families.values() if {"i", "f", "o"} <= {*family} or ({"r", "z"} <= {*family})]
    return {name: gate for family in sorted(whole, key=len) for gate, name in family.items()}


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """Yield each way to read a gate out of a name: the name without it, and the gate."""
    for word, gate in GATE_WORDS.items():
        if word in name:
            yield name.replace(word, "*", 1), gate
    for k, letter in enumerate(name):
        if letter in GATE_LETTERS:
            yield f"{name[:k]}*{name[k + 1 :]}", "z" if letter == "u" else letter


def find_layouts(at_one: Mapping[str, Measured]) -> dict[str, Layout]:
    """Return where gates are stacked, from what is known at T = 1.

    A recurrent kernel that is silent gives the number G of gates away, 4 in an LSTM and 3 in a GRU: (G·C, C, …),
    (…, C, G·C), or (G, C, C).  One over inputs and hidden channels together, (4C, D + C, …), does not; of its four
    blocks exactly one is then silent, the forget gate.  Others hold gates if they are as long along that axis.
    """
    shapes = {name: m.analytic.shape for name, m in at_one.items()}
    for gates in (4, 3):
        for last in (False, True):
            for name, shape in shapes.items():
                axis = len(shape) - 1 if last else 0
                if len(shape) not in (2, 4) or shape[axis] % gates:
                    continue
                across = shape[axis - 1 if last else 1]
                layouts = {
                    n: Layout(at, gates) for n, s in shapes.items() if (at := _place(s, shape[axis], last)) is not None
                }
                recurrent = shape[axis] == gates * across and (
                    not at_one[name].moves or (len(layouts) >= 3 and across >= 2)
                )
                together = gates == 4 and 2 <= shape[axis] // 4 < across and _one_silent(at_one[name], layouts[name])
                if len(layouts) >= 2 and (recurrent or together):
                    return layouts
        for name, shape in shapes.items():
            if len(shape) == 3 and shape[0] == gates and shape[1] == shape[2] and not at_one[name].moves:
                C = shape[1]
                return {n: Layout(0, gates) for n, s in shapes.items() if len(s) > 1 and s[0] == gates and C in s[1:]}
    return {}


def _place(shape: tuple[int, ...], length: int, last: bool) -> int | None:
    """Return the axis along which a parameter of this shape holds the gates."""
    if not shape:
        return None
    axis = len(shape) - 1 if last else 0
    return axis if shape[axis] == length else None


def _one_silent(m: Measured, layout: Layout) -> bool:
    _, n, errors = m.known()
    silent = [bool((abs(n[inside]) <= 2 * errors[inside]).all()) for _, inside in _blocks(m, layout)]
    return silent.count(True) == 1


def _blocks(m: Measured, layout: Layout) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """Return for each gate which of the known entries belong to it."""
    along = np.unravel_index(m.known()[0], m.analytic.shape)[layout.axis]
    block = along // (m.analytic.shape[layout.axis] // layout.gates)
    return [(k, block == k) for k in range(layout.gates)]
