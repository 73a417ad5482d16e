"""Layers above one another, step by step: the same bits as whole layers one after the other, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, Draws, stack
from convlstm.backends import Array
from convlstm.dropout import NOTHING
from convlstm.layer_gradients import LayerGradients
from convlstm.recurrence import Start, unroll_backward, unroll_forward
from convlstm.stack import stack_backward, stack_forward
from tests.numerical import freeze, numeric_gradients

T, SIZE = 3, (4, 5)
WIDTHS = ((2, 3), (3, 2), (2, 4))


def random(*shape: int, seed: int = 0) -> Array:
    array = np.random.default_rng(seed).standard_normal(shape)
    freeze(array)
    return array


class Layers:
    """Three layers, what they are given, and a gradient to each of their hidden maps and last states."""

    def __init__(self, *, with_states: bool = True, widths: Any = WIDTHS, size: tuple[int, int] = SIZE) -> None:
        self.layers = [
            ConvLSTM(below, C, 2, peephole="channel", dtype="float64", backend="numpy", dropout=0.3, name=str(k))
            for k, (below, C) in enumerate(widths)
        ]
        for layer in self.layers:
            layer.parameters = {
                name: random(*array.shape, seed=seed) / 2 for seed, (name, array) in enumerate(layer.parameters.items())
            }
        self.cells = [layer.cell(*size) for layer in self.layers]
        self.xs = [random(2, widths[0][0], *size, seed=t) for t in range(T)]
        maps = [(2, C, *size) for _, C in widths]
        self.states: list[Any] = [(random(*m, seed=5), random(*m, seed=6)) if with_states else None for m in maps]
        self.drops = [
            layer.draw(Draws(0), slice(0, 2), (below, *size), (C, *size))
            for layer, (below, C) in zip(self.layers, widths, strict=True)
        ]
        self.dhs = [[random(*m, seed=10 + t) for t in range(T)] for m in maps]
        self.dstates = [(random(*m, seed=20), random(*m, seed=21)) for m in maps]

    def forward(self) -> tuple[Any, Any, Any]:
        return stack_forward(self.cells, self.xs, self.states, self.drops)

    def zeros(self) -> list[LayerGradients]:
        return [layer.zero_gradients() for layer in self.layers]


def same(found: Any, right: Any) -> None:
    for one, other in zip(found, right, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("with_states", [True, False], ids=["from states", "from zeros"])
def test_forward_is_one_layer_after_the_other(with_states: bool) -> None:
    given = Layers(with_states=with_states)
    every, after, kept = given.forward()
    xs: Any = given.xs
    for k, cell in enumerate(given.cells):
        xs, state, _ = unroll_forward(Start(cell, xs, given.states[k], given.drops[k]))
        same(every[k], xs)
        same(after[k], state)
        assert kept[k].start.cell is cell


def test_backward_is_one_layer_after_the_other_and_adds_what_is_given_in_between() -> None:
    given = Layers()
    _, _, kept = given.forward()
    freeze(kept)
    found = given.zeros()
    dxs, before = stack_backward(kept, given.dhs, given.dstates, found, to_x=True, to_state=True)
    right, above = given.zeros(), [np.zeros_like(dh) for dh in given.dhs[-1]]
    for k in reversed(range(3)):
        dhs = [a + b for a, b in zip(given.dhs[k], above, strict=True)]
        above, state = unroll_backward(kept[k], dhs, given.dstates[k], right[k], to_x=True, to_state=True)  # type: ignore[assignment]
        same(before[k], state)
        same(found[k].total().values(), right[k].total().values())
    same(dxs, above)


def test_every_element_of_the_gradients_to_input_and_states() -> None:
    given = Layers(widths=((1, 2), (2, 1)), size=(2, 2))
    arrays = {f"x{t}": x for t, x in enumerate(given.xs)}
    arrays |= {f"{name}{k}": state[i] for k, state in enumerate(given.states) for i, name in enumerate("hc")}

    def loss(a: Any) -> float:
        given.xs, given.states = [a[f"x{t}"] for t in range(T)], [(a["h0"], a["c0"]), (a["h1"], a["c1"])]
        every, after, _ = given.forward()
        pairs = zip([*every, *after], [*given.dhs, *given.dstates], strict=True)
        return sum(float((map_ * u).sum()) for maps, us in pairs for map_, u in zip(maps, us, strict=True))

    numeric = numeric_gradients(loss, arrays)
    loss(arrays)
    _, _, kept = given.forward()
    dxs, before = stack_backward(kept, given.dhs, given.dstates, given.zeros(), to_x=True, to_state=True)
    found = {f"x{t}": dx for t, dx in enumerate(dxs)}
    found |= {f"{name}{k}": state[i] for k, state in enumerate(before) for i, name in enumerate("hc")}
    for name, right in numeric.items():
        np.testing.assert_allclose(found[name], right, rtol=1e-7, atol=1e-8, err_msg=name)  # type: ignore[arg-type]


def test_layers_that_nothing_outside_reads_count_as_read_with_zeros() -> None:
    given = Layers()
    _, _, kept = given.forward()
    zeros = [[np.zeros_like(dh) for dh in dhs] for dhs in given.dhs[:2]]
    none: list[Any] = [None, None, given.dhs[2]]
    results = []
    for dhs in (none, [*zeros, given.dhs[2]]):
        gradients = given.zeros()
        dxs, before = stack_backward(kept, dhs, given.dstates, gradients, to_x=True, to_state=True)
        results.append(
            [*dxs, *(d for state in before for d in state), *(g for own in gradients for g in own.total().values())]
        )
    same(*results)


def test_nothing_at_all_to_send_back() -> None:
    given = Layers(with_states=False)
    _, _, kept = given.forward()
    gradients = given.zeros()
    dxs, _ = stack_backward(kept, [None] * 3, [(None, None)] * 3, gradients, to_x=True, to_state=False)
    assert not any(dx is not None and dx.any() for dx in dxs)
    assert not any(array.any() for own in gradients for array in own.total().values())


def test_what_is_not_wanted_is_not_computed_and_changes_nothing_else() -> None:
    given = Layers()
    _, _, kept = given.forward()
    full, fewer = given.zeros(), given.zeros()
    stack_backward(kept, given.dhs, given.dstates, full, to_x=True, to_state=True)
    dxs, before = stack_backward(kept, given.dhs, given.dstates, fewer, to_x=False, to_state=False)
    assert dxs == [None] * T
    assert [dh is None for dh, _ in before] == [True] * 3
    for one, other in zip(full, fewer, strict=True):
        same(one.total().values(), other.total().values())


def test_a_lost_gradient_between_layers_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Layers()
    _, _, kept = given.forward()
    right, wrong = given.zeros(), given.zeros()
    stack_backward(kept, given.dhs, given.dstates, right, to_x=False, to_state=False)
    monkeypatch.setattr(stack, "add_given", lambda cell, outside, above: outside)
    stack_backward(kept, given.dhs, given.dstates, wrong, to_x=False, to_state=False)
    assert np.abs(right[0].total()["W_x"] - wrong[0].total()["W_x"]).max() > 1e-3


def test_as_many_states_and_masks_as_layers() -> None:
    given = Layers()
    with pytest.raises(ValueError, match="zip"):
        stack_forward(given.cells, given.xs, given.states[:2], given.drops)
    with pytest.raises(ValueError, match="zip"):
        stack_forward(given.cells, given.xs, given.states, [NOTHING])
