"""Weights from and to other layouts: every number in its place, every bit kept, every misfit named.

What the libraries themselves compute with these weights is in tests/peers/.
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
from numpy.typing import NDArray

import convlstm.foreign_weights
from convlstm import NextFrame, assign_parameters, load_parameters, save_parameters
from convlstm.foreign_weights import Weights, from_keras, from_openstl, from_pytorch, to_keras, to_pytorch
from tests.numerical import read_only

Array = NDArray[Any]
I, F, G, O = 1.0, 2.0, 3.0, 4.0  # noqa: E741 - what the entries of each gate are set to


def gates(order: tuple[float, ...], shape: tuple[int, ...], axis: int = 0) -> Array:
    """Return an array whose entries say of which gate they are; `shape` is that of one gate."""
    return np.concatenate([np.full(shape, gate) for gate in order], axis=axis)


def ndrplz(hidden: tuple[int, ...] = (2, 3), Cin: int = 1, *, bias: bool = True) -> Weights:
    """Return weights in ndrplz's layout, all different."""
    rng = np.random.default_rng(0)
    weights = {}
    for index, (below, C) in enumerate(zip((Cin, *hidden), hidden, strict=False)):
        weights[f"cell_list.{index}.conv.weight"] = rng.standard_normal((4 * C, below + C, 3, 3))
        if bias:
            weights[f"cell_list.{index}.conv.bias"] = rng.standard_normal(4 * C)
    return weights


def under_a_head() -> Weights:
    return {**ndrplz(), "head.weight": np.ones((4, 3, 1, 1)), "head.bias": np.ones(4)}


def openstl() -> Weights:
    rng = np.random.default_rng(0)
    shapes = {
        "cell_list.0.conv_x.0.weight": (8, 1, 3, 3),
        "cell_list.0.conv_h.0.weight": (8, 2, 3, 3),
        "cell_list.0.conv_o.0.weight": (2, 4, 3, 3),
        "cell_list.0.conv_last.weight": (2, 4, 1, 1),
        "cell_list.1.conv_x.0.weight": (12, 2, 3, 3),
        "cell_list.1.conv_h.0.weight": (12, 3, 3, 3),
        "cell_list.1.conv_o.0.weight": (3, 6, 3, 3),
        "cell_list.1.conv_last.weight": (3, 6, 1, 1),
        "conv_last.weight": (1, 3, 1, 1),
    }
    return {key: rng.standard_normal(shape) for key, shape in shapes.items()}


def keras() -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in ((3, 2, 1, 8), (3, 2, 2, 8), (8,))]


def layer() -> Weights:
    rng = np.random.default_rng(0)
    return {"W_x": rng.standard_normal((8, 1, 3, 3)), "W_h": rng.standard_normal((8, 2, 3, 3)), "b": np.ones(8)}


def stack() -> Weights:
    return from_pytorch(ndrplz())


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
    assert list(found) == [f"layers.{i}.{name}" for i in (0, 1) for name in ("W_x", "W_h")] + ["readout.W", "readout.b"]
    np.testing.assert_array_equal(found["layers.1.W_x"], weights["cell_list.1.conv_x.0.weight"])
    np.testing.assert_array_equal(found["layers.0.W_h"], weights["cell_list.0.conv_h.0.weight"])
    np.testing.assert_array_equal(found["readout.W"], weights["conv_last.weight"])
    np.testing.assert_array_equal(found["readout.b"], [0.0])


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
    np.testing.assert_array_equal(from_pytorch(whole, "net.", "head")["readout.b"], np.zeros(4))


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
@given(stacks(), st.sampled_from(["", "net.", "a.cell_list."]), st.booleans())
def test_there_and_back_through_pytorch_is_exact(parameters: Weights, prefix: str, readout: bool) -> None:
    if readout:
        C = list(parameters.values())[-1].shape[0] // 4
        parameters |= {"readout.W": np.ones((2, C, 1, 1)), "readout.b": np.zeros(2)}
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


class Tensor:
    """What this project uses of a tensor that lies on a device and requires a gradient."""

    def __init__(self, array: Array, at: str = "device") -> None:
        self._array, self._at = array, at
        self.dtype = f"torch.{array.dtype}"

    def detach(self) -> Tensor:
        return Tensor(self._array, self._at + ", detached")

    def cpu(self) -> Tensor:
        return Tensor(self._array, "host" + self._at.removeprefix("device"))

    def numpy(self) -> Array:
        assert self._at == "host, detached"  # elsewhere PyTorch raises
        return self._array

    def __array__(self, *arguments: Any, **keywords: Any) -> Array:
        raise TypeError("a tensor on a device does not become an array by itself")


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


# Every misfit named ---------------------------------------------------------------------------------------------------

PER_PIXEL, PEEPHOLE = np.zeros((8, 4, 4)), np.zeros(2)
WEIGHT = "cell_list.0.conv.weight"
ABOVE = "cell_list.1.conv.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell_list.0.conv.wieght": np.zeros(3)}, "'cell_list.0.conv.wieght' has no place in ndrplz's layout"),
        ({"head.weight": np.zeros((1, 3, 1, 1))}, "'head.weight' has no place .* what readout= names"),
        ({WEIGHT: None}, f"'{WEIGHT}' is missing, though its bias is there"),
        ({WEIGHT: None, "cell_list.0.conv.bias": None}, f"'{WEIGHT}' is missing: cells count from 0; given are .*1"),
        ({WEIGHT: np.zeros((8, 3, 3))}, rf"'{WEIGHT}' has shape \(8, 3, 3\); it must be \(4·C, Cin \+ C, K, K\)"),
        ({WEIGHT: np.zeros((9, 3, 3, 3))}, r"shape \(9, 3, 3, 3\)"),
        ({WEIGHT: np.zeros((8, 2, 3, 3))}, r"shape \(8, 2, 3, 3\)"),
        ({WEIGHT: np.zeros((0, 2, 3, 3))}, r"shape \(0, 2, 3, 3\)"),
        ({ABOVE: np.zeros((12, 4, 3, 3))}, r"shape \(12, 4, 3, 3\); it must be \(12, 5, 3, 3\): the layer below has 2"),
        ({"cell_list.0.conv.bias": np.zeros(4)}, r"'cell_list.0.conv.bias' has shape \(4,\); it must be \(8,\)"),
        ({"cell_list.0.conv.bias": np.array(1.0)}, r"shape \(\); it must be \(8,\)"),
        ({WEIGHT: np.zeros((8, 3, 3, 3), int)}, f"'{WEIGHT}' has dtype int64; it must be one of float16, float32"),
        ({WEIGHT: "a name"}, f"'{WEIGHT}' has dtype str"),
    ],
)
def test_what_is_not_ndrplz_layout_is_named(change: dict[str, Any], message: str) -> None:
    weights = {key: value for key, value in {**ndrplz(), **change}.items() if value is not None}
    assert_raises_one_line(ValueError, message, lambda: from_pytorch(weights))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefix": "encoder."}, "no name begins with 'encoder.cell_list.' or 'encoder.conv.'; given are cell_list.0"),
        ({"readout": "head"}, "'head.weight' is missing; given are cell_list.0"),
        ({"readout": "cell_list.0.conv"}, "'cell_list.0.conv.weight' is missing|cells count from 0"),
    ],
)
def test_a_prefix_or_read_out_that_is_not_there_is_named(arguments: dict[str, str], message: str) -> None:
    assert_raises_one_line(ValueError, message, lambda: from_pytorch(ndrplz(), **arguments))


def test_a_read_out_of_another_shape_is_named() -> None:
    right = {"head.weight": np.zeros((1, 3, 1, 1)), "head.bias": np.zeros(1)}
    for key, wrong in (("weight", (1, 2, 1, 1)), ("weight", (1, 3, 3, 3)), ("bias", (2,))):
        weights = {**ndrplz(), **right, f"head.{key}": np.zeros(wrong)}
        message = rf"'head.{key}' has shape .*; it must be \((D, 3, 1, 1|1,)\)"
        assert_raises_one_line(ValueError, message, lambda w=weights: from_pytorch(w, readout="head"))


@pytest.mark.parametrize("convert", [from_pytorch, from_openstl])
def test_a_pickle_is_not_read(convert: Any) -> None:
    assert_raises_one_line(
        TypeError, "got str; .*safetensors.torch.save_file.* a .pt file is a pickle", convert, "m.pt"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cell_list.0.conv_x.1.weight": np.zeros((8, 5, 5))},
            "conv_x.1.weight' has no .* it normalises x and h apart",
        ),
        ({"cell_list.0.conv.weight": np.zeros((8, 3, 3, 3))}, "'cell_list.0.conv.weight' has no place in OpenSTL's"),
        ({"conv_last.weight": None}, "'conv_last.weight' is missing"),
        ({"cell_list.0.conv_h.0.weight": None}, "'cell_list.0.conv_h.0.weight' is missing"),
        ({"cell_list.1.conv_x.0.weight": np.zeros((12, 1, 3, 3))}, r"it must be \(12, 2, 3, 3\)"),
        ({"cell_list.1.conv_h.0.weight": np.zeros((12, 2, 3, 3))}, r"conv_h.0.weight' .*must be \(4·C, C, K, K\)"),
        ({"conv_last.weight": np.zeros((1, 2, 1, 1))}, r"it must be \(D, 3, 1, 1\)"),
    ],
)
def test_what_is_not_openstl_layout_is_named(change: dict[str, Any], message: str) -> None:
    weights = {key: value for key, value in {**openstl(), **change}.items() if value is not None}
    assert_raises_one_line(ValueError, message, lambda: from_openstl(weights))


@pytest.mark.parametrize(
    ("convert", "nothing"), [(from_pytorch, {}), (from_openstl, {}), (to_pytorch, {}), (to_keras, {}), (from_keras, [])]
)
def test_nothing_is_no_layer(convert: Any, nothing: Any) -> None:
    assert_raises_one_line(ValueError, r"given are none|got 0", convert, nothing)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (keras()[:1], ValueError, "must be .kernel, recurrent kernel. .* of one layer; got 1"),
        (keras() + keras(), ValueError, "of one layer; got 6"),
        (np.zeros((3, 3)), TypeError, "must be a list, .* got ndarray"),
        ([keras()[0], np.zeros((3, 2, 2, 7))], ValueError, r"'recurrent kernel' .* \(3, 2, 2, 7\); .*\(K, K, C, 4·C\)"),
        ([keras()[0], np.zeros((2, 8))], ValueError, r"'recurrent kernel' has shape \(2, 8\)"),
        ([np.zeros((3, 3, 1, 8)), keras()[1]], ValueError, r"'kernel' has .* \(3, 3, 1, 8\); .* \(3, 2, 1, 8\)"),
        ([np.zeros((3, 8)), keras()[1]], ValueError, r"'kernel' has shape \(3, 8\); it must be \(3, 2, Cin, 8\)"),
        ([*keras()[:2], np.zeros(2)], ValueError, r"'bias' has shape \(2,\); it must be \(8,\)"),
        ([*keras()[:2], np.zeros(8, int)], ValueError, "'bias' has dtype int64"),
    ],
)
def test_what_is_not_keras_layout_is_named(weights: Any, error: type[Exception], message: str) -> None:
    assert_raises_one_line(error, message, lambda: from_keras(weights))


@pytest.mark.parametrize("convert", [to_pytorch, to_keras])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_i": PEEPHOLE}, r"parameter 'p_i' \(a peephole\) has no place in"),
        ({"gain": np.ones(8)}, "parameter 'gain' has no place in"),
        ({"b": PER_PIXEL}, r"parameter 'b' of shape \(8, 4, 4\) is per pixel, which has no place in"),
        ({"b": np.zeros(2)}, r"'b' has shape \(2,\); it must be \(8,\)"),
        ({"W_h": np.zeros((8, 2, 1, 1))}, r"'W_x' has shape \(8, 1, 3, 3\); it must be \(8, 1, 1, 1\)"),
        ({"W_h": np.zeros((8, 3, 3, 3))}, r"'W_h' has shape \(8, 3, 3, 3\); it must be \(4·C, C, K, K\)"),
        (
            {"W_h": np.zeros((8, 2, 3, 3), "float32")},
            "'W_x' has dtype float64 and 'W_h' float32; they must be the same",
        ),
        ({"W_h": None}, "'W_h' is missing; given are W_x, b"),
        ({"V": np.zeros(1)}, "'V' has no place in .*; right are W_x, W_h, b"),
    ],
)
def test_what_another_layout_cannot_hold_is_named(convert: Any, change: dict[str, Any], message: str) -> None:
    parameters = {name: value for name, value in {**layer(), **change}.items() if value is not None}
    assert_raises_one_line(ValueError, message, lambda: convert(parameters))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: to_pytorch({**stack(), "layers.1.p_o": np.zeros(3)}), "'layers.1.p_o' .a peephole. has no place in"),
        (lambda: to_pytorch({**stack(), "W_x": np.zeros(3)}), "of one layer or of a stack, not both"),
        (lambda: to_pytorch({f"layers.1.{k}": w for k, w in layer().items()}), "'layers.0.W_x' is missing"),
        (lambda: to_pytorch({**stack(), "readout.W": np.zeros((1, 3, 1, 1))}), "'readout.W' .* readout=\"head\""),
        (lambda: to_pytorch(stack(), readout="head"), "'readout.W' is missing, asked for by readout='head'"),
        (lambda: to_keras(stack()), "'W_x' is missing; given are layers.0.W_x"),
        (lambda: to_keras(stack(), "layers.2."), "'layers.2.W_x' is missing; given are layers.0.W_x"),
    ],
)
def test_a_stack_that_does_not_fit_is_named(make: Any, message: str) -> None:
    assert_raises_one_line(ValueError, message, make)


@pytest.mark.parametrize("convert", [to_pytorch, to_keras])
def test_only_numpy_arrays_go_out(convert: Any) -> None:
    parameters = {**layer(), "b": Tensor(np.zeros(8))}
    assert_raises_one_line(TypeError, "'b' must be a NumPy array; got tests.*Tensor", lambda: convert(parameters))


def assert_raises_one_line(error: type[Exception], message: str, call: Any, *arguments: Any) -> None:
    with pytest.raises(error, match=message) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
