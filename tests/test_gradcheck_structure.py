"""Which layer, gate and axis a gradient belongs to, from names and shapes."""

from __future__ import annotations

import numpy as np
import pytest

from convlstm.gradcheck.measure import Measured
from convlstm.gradcheck.over_time import symmetrised
from convlstm.gradcheck.structure import Layout, find_layouts, gate_names, layer_of


@pytest.mark.parametrize(
    ("name", "layer"),
    [("W", ()), ("weight_ih_l0", (0,)), ("layers.1.W_x", (1,)), ("Wi2", (2,)), ("a1.b12", (1, 12)), ("h0", ()),
     ("h0_l1", (0, 1)), ("c_0", ()), ("layers.1.h0", (1,))],
)  # fmt: skip
def test_layer_of(name: str, layer: tuple[int, ...]) -> None:
    assert layer_of(name) == layer


@pytest.mark.parametrize(
    ("names", "gates"),
    [
        (["Wxi", "Wxf", "Wxo", "Wxg", "V"], ["i", "f", "o", "g", None]),
        (["input_W", "forget_W", "output_W", "cell_W"], ["i", "f", "o", "g"]),
        (["W_ir", "W_iz", "W_in"], ["r", "z", "n"]),
        (["W", "U", "b"], [None, None, None]),
        (["Wi", "Wf"], [None, None]),
    ],
)
def test_gate_names(names: list[str], gates: list[str | None]) -> None:
    found = gate_names(dict.fromkeys(names, (3, 2)))
    assert [found.get(name) for name in names] == gates


def test_gates_of_other_shapes_are_no_family() -> None:
    assert gate_names({"Wi": (3, 2), "Wf": (3, 2), "Wo": (2, 3)}) == {}


@pytest.mark.parametrize(
    ("shapes", "recurrent", "axes"),
    [
        ({"W": (8, 3), "U": (8, 2), "b": (8,), "V": (1, 2)}, "U", {"W": (0, 4), "U": (0, 4), "b": (0, 4)}),
        ({"W": (3, 8), "U": (2, 8), "b": (8,), "V": (2, 1)}, "U", {"W": (1, 4), "U": (1, 4), "b": (0, 4)}),
        ({"W": (3, 6), "U": (2, 6), "b": (6,)}, "U", {"W": (1, 3), "U": (1, 3), "b": (0, 3)}),
        ({"W": (3, 3, 1, 8), "U": (3, 3, 2, 8)}, "U", {"W": (3, 4), "U": (3, 4)}),
        ({"W": (4, 2, 3), "U": (4, 2, 2), "b": (4, 2)}, "U", {"W": (0, 4), "U": (0, 4), "b": (0, 4)}),
        ({"W": (2, 3), "U": (2, 2), "b": (2,)}, "U", {}),
    ],
)
def test_find_layouts(
    shapes: dict[str, tuple[int, ...]], recurrent: str, axes: dict[str, tuple[int, int]]
) -> None:  # fmt: skip
    at_one = {
        name: Measured(name, np.ones(shape), 2e-16, 2e-16, moves=name != recurrent) for name, shape in shapes.items()
    }
    assert find_layouts(at_one) == {name: Layout(*axis) for name, axis in axes.items()}


def test_symmetrised() -> None:
    rng = np.random.default_rng(0)
    kernel, first = symmetrised(rng.normal(size=(4, 2, 3, 5)), "rotated"), rng.normal(size=(3, 5, 4, 2))
    np.testing.assert_array_equal(kernel, kernel[..., ::-1, ::-1])
    first = symmetrised(first, "rotated, taps first")
    np.testing.assert_array_equal(first, first[::-1, ::-1])
    for shape in [(3, 3), (12, 3), (3, 12)]:
        a = rng.normal(size=shape)
        found = symmetrised(a, "transposed")
        assert found.shape == shape
        for block in np.split(found, max(shape) // 3, axis=int(shape[1] > shape[0])):
            np.testing.assert_array_equal(block, block.T)
    for other, kind in (((5,), "rotated"), ((4, 3), "rotated"), ((4, 3), "transposed"), ((2, 2, 3, 3), "transposed")):
        a = rng.normal(size=other)
        np.testing.assert_array_equal(symmetrised(a, kind), a)
