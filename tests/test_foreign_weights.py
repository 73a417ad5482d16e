"""Weights from and to other layouts: every number in its place, every bit kept.

Every misfit is in test_foreign_weights_errors.py; what the libraries themselves compute with these weights is in
tests/peers/.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import convlstm.foreign_weights
from convlstm import NextFrame, assign_parameters, load_parameters, save_parameters
from convlstm.foreign_weights import Weights, from_keras, from_openstl, from_pytorch, to_keras, to_pytorch
from tests.foreign_layouts import (
    Array,
    Tensor,
    assert_raises_one_line,
    keras,
    layer,
    ndrplz,
    openstl,
    stack,
    under_a_head,
)
from tests.numerical import read_only

I, F, G, O = 1.0, 2.0, 3.0, 4.0  # noqa: E741 - what the entries of each gate are set to


def gates(order: tuple[float, ...], shape: tuple[int, ...], axis: int = 0) -> Array:
    """Return an array whose entries say of which gate they are; `shape` is that of one gate."""
    return np.concatenate([np.full(shape, gate) for gate in order], axis=axis)


# Every number in its place --------------------------------------------------------------------------------------------


def test_ndrplz_gates_and_channels_find_their_places() -> None:
    C, Cin = 2, 3
    weight = np.concatenate([gates((I, F, O, G), (C, Cin, 1, 3)), -gates((I, F, O, G), (C, C, 1, 3))], axis=1)
    found = from_pytorch({"conv.weight": weight, "conv.bias": gates((I, F, O, G), (C,))})
    assert list(found) == ["W_x", "W_h", "b"]
    np.testing.assert_array_equal(found["W_x"], gates((I, F, G, O), (C, Cin, 1, 3)))
    np.testing.assert_array_equal(found["W_h"], -gates((I, F, G, O), (C, C, 1, 3)))
    np.testing.assert_array_equal(found["b"], gates((I, F, G, O), (C,)))


def test_ndrplz_rows_stay_rows_and_channels_keep_their_order() -> None:
    weights = ndrplz((2,), Cin=3)
    found = from_pytorch(weights)
    weight = weights["cell_list.0.conv.weight"]
    assert found["layers.0.W_x"][7, 2, 0, 1] == weight[5, 2, 0, 1]  # second o, which stands third there
    assert found["layers.0.W_h"][4, 1, 2, 0] == weight[6, 4, 2, 0]  # first g
    assert found["layers.0.b"][2] == weights["cell_list.0.conv.bias"][2]  # first f


def test_keras_axes_and_gates_find_their_places() -> None:
    C, Cin = 2, 3
    weights = [
        gates((I, F, G, O), (1, 3, Cin, C), axis=3),
        -gates((I, F, G, O), (1, 3, C, C), axis=3),
        gates((I, F, G, O), (C,)),
    ]
    found = from_keras(weights, "layers.1.")
    np.testing.assert_array_equal(found["layers.1.W_x"], gates((I, F, G, O), (C, Cin, 1, 3)))
    np.testing.assert_array_equal(found["layers.1.W_h"], -gates((I, F, G, O), (C, C, 1, 3)))
    np.testing.assert_array_equal(found["layers.1.b"], gates((I, F, G, O), (C,)))
    weights = keras()
    assert from_keras(weights)["W_x"][5, 0, 2, 1] == weights[0][2, 1, 0, 5]
    assert from_keras(weights)["W_h"][5, 1, 2, 0] == weights[1][2, 0, 1, 5]


def test_openstl_comes_as_it_is() -> None:
    weights = openstl()
    found = from_openstl(weights)
    assert list(found) == [f"layers.{i}.{name}" for i in (0, 1) for name in ("W_x", "W_h")] + ["readout.W"]
    np.testing.assert_array_equal(found["layers.1.W_x"], weights["cell_list.1.conv_x.0.weight"])
    np.testing.assert_array_equal(found["layers.0.W_h"], weights["cell_list.0.conv_h.0.weight"])
    np.testing.assert_array_equal(found["readout.W"], weights["conv_last.weight"])
    np.testing.assert_array_equal(from_openstl({**weights, "conv_last.bias": np.ones(1)})["readout.b"], [1.0])


def test_openstl_fills_the_model_without_biases() -> None:
    model = NextFrame(1, (2, 3), 3, bias=None, readout_bias=False, dtype="float64", backend="numpy")
    given = from_openstl(openstl())
    assign_parameters(model.parameters, given)  # all of them, and no other
    assert_same_bits(model.parameters, given)


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.module."])
def test_openstl_behind_a_wrapper(prefix: str) -> None:
    wrapped = {prefix + key: weight for key, weight in openstl().items()} | {"epoch": np.array(3)}
    assert_same_bits(from_openstl(wrapped, prefix), from_openstl(openstl()))
    del wrapped[prefix + "conv_last.weight"]
    message = f"'{prefix}conv_last.weight' is missing"
    assert_raises_one_line(ValueError, message, lambda: from_openstl(wrapped, prefix))


def test_a_module_within_another_and_its_read_out() -> None:
    head = {"head.weight": np.full((4, 3, 1, 1), 7.0), "head.bias": np.arange(4.0)}
    whole = {f"net.{key}": w for key, w in ndrplz().items()} | head | {"norm.batches": np.array(3)}
    found = from_pytorch(whole, prefix="net.", readout="head")
    assert found.keys() == {*stack(), "readout.W", "readout.b"}
    np.testing.assert_array_equal(found["readout.b"], head["head.bias"])
    assert from_pytorch(whole, prefix="net.").keys() == stack().keys()
    back = to_pytorch(found, prefix="net.", readout="head")
    assert back.keys() == whole.keys() - {"norm.batches"}
    del whole["head.bias"]
    found = from_pytorch(whole, "net.", "head")
    assert found.keys() == {*stack(), "readout.W"}
    assert to_pytorch(found, "net.", "head").keys() == whole.keys() - {"norm.batches"}


def test_a_stack_whose_layers_come_in_any_order() -> None:
    backwards = dict(reversed(stack().items()))
    assert_same_bits(from_pytorch(to_pytorch(backwards)), stack())


def test_one_cell_of_a_stack() -> None:
    found = from_pytorch(ndrplz(), prefix="cell_list.1.")
    np.testing.assert_array_equal(found["W_x"], stack()["layers.1.W_x"])
    np.testing.assert_array_equal(to_keras(stack(), "layers.1.")[0], to_keras(found)[0])
    assert list(to_pytorch(found, prefix="cell_list.0.")) == ["cell_list.0.conv.weight", "cell_list.0.conv.bias"]


# Every bit kept -------------------------------------------------------------------------------------------------------

DTYPES = st.sampled_from([np.float16, np.float32, np.float64])


@st.composite
def stacks(draw: st.DrawFn) -> Weights:
    """Return a stack's parameters of any bits, NaNs of any payload among them."""
    dtype = np.dtype(draw(DTYPES))
    hidden = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    bias, below = draw(st.booleans()), draw(st.integers(1, 3))
    parameters = {}
    for index, C in enumerate(hidden):
        shapes: dict[str, tuple[int, ...]] = {"W_x": (4 * C, below, *kernel), "W_h": (4 * C, C, *kernel)}
        for name, shape in {**shapes, **({"b": (4 * C,)} if bias else {})}.items():
            bits = draw(arrays_of.arrays(np.dtype(f"u{dtype.itemsize}"), shape))
            parameters[f"layers.{index}.{name}"] = bits.view(dtype)
        below = C
    return parameters


def assert_same_bits(given: Weights, right: Weights) -> None:
    assert given.keys() == right.keys()
    for name, array in right.items():
        assert given[name].dtype == array.dtype
        assert given[name].shape == array.shape
        assert given[name].tobytes() == array.tobytes()


@settings(max_examples=50, deadline=None)
@given(stacks(), st.sampled_from(["", "net.", "a.cell_list."]), st.sampled_from([(), ("W",), ("W", "b")]))
def test_there_and_back_through_pytorch_is_exact(parameters: Weights, prefix: str, readout: tuple[str, ...]) -> None:
    C = list(parameters.values())[-1].shape[0] // 4
    head = {"W": np.ones((2, C, 1, 1)), "b": np.zeros(2)}
    parameters |= {f"readout.{name}": head[name] for name in readout}
    name = "head" if readout else None
    weights = to_pytorch(read_only(parameters), prefix, name)
    assert_same_bits(from_pytorch(read_only(weights), prefix, name), parameters)
    assert_same_bits(to_pytorch(from_pytorch(weights, prefix, name), prefix, name), weights)


@settings(max_examples=50, deadline=None)
@given(stacks())
def test_there_and_back_through_keras_is_exact(parameters: Weights) -> None:
    found: Weights = {}
    for index in range(sum(name.endswith("W_x") for name in parameters)):
        weights = to_keras(read_only(parameters), f"layers.{index}.")
        assert all(weight.flags.c_contiguous for weight in weights)
        found |= from_keras(weights, f"layers.{index}.")
    assert_same_bits(found, parameters)


CONVERSIONS: list[tuple[Callable[[Any], Any], Callable[[], Any]]] = [
    (from_pytorch, ndrplz),
    (partial(from_pytorch, readout="head"), under_a_head),
    (from_openstl, openstl),
    (from_keras, keras),
    (partial(to_pytorch, readout="head"), lambda: from_pytorch(under_a_head(), readout="head")),
    (to_pytorch, layer),
    (to_pytorch, stack),
    (to_keras, layer),
]


@pytest.mark.parametrize(("convert", "make"), CONVERSIONS)
def test_what_comes_out_shares_no_memory_with_what_went_in(convert: Any, make: Any) -> None:
    given = make()
    found = convert(given)
    outs, ins = (list(x.values()) if isinstance(x, dict) else x for x in (found, given))
    assert not any(np.shares_memory(a, b) for a in outs for b in ins)
    assert not any(np.shares_memory(a, b) for k, a in enumerate(outs) for b in outs[:k])
    assert all(array.flags.writeable and array.flags.c_contiguous and type(array) is np.ndarray for array in outs)


def test_the_whole_way_through_a_file(tmp_path: Path) -> None:
    model = NextFrame(1, (2, 3), dtype="float64", backend="numpy", seed=5)
    save_parameters(tmp_path / "w.safetensors", to_pytorch(model.parameters, readout="head"))
    other = NextFrame(1, (2, 3), dtype="float64", backend="numpy", seed=6)
    assign_parameters(other.parameters, from_pytorch(load_parameters(tmp_path / "w.safetensors"), readout="head"))
    frames = np.random.default_rng(0).random((2, 3, 1, 6, 5))
    np.testing.assert_array_equal(other.predict(frames, 2), model.predict(frames, 2))


def test_tensors_are_taken_from_wherever_they_are() -> None:
    tensors = {key: Tensor(array) for key, array in ndrplz().items()}
    assert_same_bits(from_pytorch(tensors), stack())
    assert_same_bits(from_keras([Tensor(array) for array in keras()]), from_keras(keras()))


def test_neither_library_is_imported() -> None:
    assert convlstm.foreign_weights.__file__
    tree = ast.parse(Path(convlstm.foreign_weights.__file__).read_text(encoding="utf-8"))
    taken = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    taken |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in taken} <= {"numpy", *sys.stdlib_module_names}
