"""Weights from and to other layouts: every misfit named, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm.foreign_weights import Weights, from_keras, from_openstl, from_pytorch, to_keras, to_pytorch
from tests.foreign_layouts import Tensor, assert_raises_one_line, keras, layer, ndrplz, openstl, stack, under_a_head

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
        ({ABOVE: np.zeros((12, 4, 3, 3))}, r"of shape \(12, 4, 3, 3\) reads 1 channels; the layer below has 2"),
        ({WEIGHT: np.zeros((8, 3, 0, 3))}, rf"'{WEIGHT}' has shape \(8, 3, 0, 3\); .* \(4·C, .*\), no size 0"),
        (
            {"cell_list.0.conv.bias": np.zeros(8, "float32")},
            f"'{WEIGHT}' has dtype float64 and 'cell_list.0.conv.bias' float32; they must be the same",
        ),
        (
            {"conv.weight": np.zeros((8, 3, 3, 3))},
            "'conv.' is one cell's and cell_list.0., cell_list.1. of a stack: .* one or the other",
        ),
        ({"cell_list.00.conv.weight": np.zeros((8, 3, 3, 3))}, "'cell_list.00.conv.weight' has no place in ndrplz's"),
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
    weights = {**ndrplz(), **right, "head.bias": np.zeros(1, "float32")}
    message = "'head.weight' has dtype float64 and 'head.bias' float32"
    assert_raises_one_line(ValueError, message, lambda: from_pytorch(weights, readout="head"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"readout.W": np.zeros(3)}, r"'readout.W' has shape \(3,\); it must be \(D, 3, 1, 1\)"),
        ({"readout.W": np.zeros((4, 2, 1, 1))}, r"'readout.W' has shape \(4, 2, 1, 1\); it must be \(D, 3, 1, 1\)"),
        ({"readout.W": np.zeros((0, 3, 1, 1))}, r"'readout.W' has shape \(0, 3, 1, 1\); .*, no size 0"),
        ({"readout.b": np.zeros(5)}, r"'readout.b' has shape \(5,\); it must be \(4,\)"),
        ({"readout.b": np.zeros(4, "float32")}, "'readout.W' has dtype float64 and 'readout.b' float32"),
        ({"readout.gain": np.zeros(4)}, "'readout.gain' has no place in ndrplz's layout"),
    ],
)
def test_a_read_out_that_pytorch_cannot_hold_is_named(change: Weights, message: str) -> None:
    parameters = {**from_pytorch(under_a_head(), readout="head"), **change}
    assert_raises_one_line(ValueError, message, lambda: to_pytorch(parameters, readout="head"))


def test_a_read_out_does_not_overwrite_a_cell() -> None:
    parameters = from_pytorch(under_a_head(), readout="head")
    message = "readout='cell_list.1.conv' must not be the name of a cell's convolution"
    assert_raises_one_line(ValueError, message, lambda: to_pytorch(parameters, readout="cell_list.1.conv"))


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
        ({"cell_list.1.conv_x.0.weight": np.zeros((12, 1, 3, 3))}, r"\(12, 1, 3, 3\) reads 1 .* the layer below has 2"),
        ({"cell_list.0.conv_h.0.weight": np.zeros((8, 2, 0, 3))}, r"conv_h.0.weight' has .*\(8, 2, 0, 3\).* no size 0"),
        ({"cell_list.0.conv_x.0.weight": np.zeros((8, 0, 3, 3))}, r"conv_x.0.weight' has .*\(8, 0, 3, 3\).* no size 0"),
        (
            {"cell_list.0.conv_h.0.weight": np.zeros((8, 2, 3, 3), "float32")},
            "'cell_list.0.conv_x.0.weight' has dtype float64 and 'cell_list.0.conv_h.0.weight' float32",
        ),
        ({"cell_list.00.conv_x.0.weight": np.zeros((8, 1, 3, 3))}, "'cell_list.00.conv_x.0.weight' has no place in"),
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
        ([np.zeros((3, 3, 1, 8)), keras()[1]], ValueError, r"'kernel' has .* \(3, 3, 1, 8\); .* \(3, 2, Cin, 8\)"),
        ([np.zeros((3, 8)), keras()[1]], ValueError, r"'kernel' has shape \(3, 8\); it must be \(3, 2, Cin, 8\)"),
        ([*keras()[:2], np.zeros(2)], ValueError, r"'bias' has shape \(2,\); it must be \(8,\)"),
        ([*keras()[:2], np.zeros(8, int)], ValueError, "'bias' has dtype int64"),
        ([*keras()[:2], np.ones(8, "float32")], ValueError, "'kernel' has dtype float64 and 'bias' float32"),
        (
            [keras()[0], keras()[1].astype("float16")],
            ValueError,
            "'kernel' has dtype float64 and 'recurrent kernel' float16; they must be the same",
        ),
        ([np.zeros((3, 2, 0, 8)), keras()[1]], ValueError, r"'kernel' has shape \(3, 2, 0, 8\); .* no size 0"),
        ([np.zeros((0, 2, 1, 8)), np.zeros((0, 2, 2, 8))], ValueError, r"'recurrent kernel' has .* no size 0"),
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
        ({"W_h": np.zeros((8, 2, 1, 1))}, r"'W_x' has shape \(8, 1, 3, 3\); it must be \(8, Cin, 1, 1\)"),
        ({"W_h": np.zeros((8, 3, 3, 3))}, r"'W_h' has shape \(8, 3, 3, 3\); it must be \(4·C, C, K, K\)"),
        (
            {"W_h": np.zeros((8, 2, 3, 3), "float32")},
            "'W_x' has dtype float64 and 'W_h' float32; they must be the same",
        ),
        ({"b": np.ones(8, "float32")}, "'W_x' has dtype float64 and 'b' float32; they must be the same"),
        ({"b": np.ones(8, int)}, "'b' has dtype int64; it must be one of float16"),
        ({"W_x": np.zeros((8, 0, 3, 3))}, r"'W_x' has shape \(8, 0, 3, 3\); .*, no size 0"),
        ({"W_h": np.zeros((8, 2, 0, 3))}, r"'W_h' has shape \(8, 2, 0, 3\); .*, no size 0"),
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
        (lambda: to_pytorch(stack(), readout="head"), "'readout.W' is missing; given are layers.0"),
        (
            lambda: to_pytorch({**stack(), "layers.1.W_x": np.zeros((12, 1, 3, 3))}),
            r"'layers.1.W_x' of shape \(12, 1, 3, 3\) reads 1 channels; the layer below has 2",
        ),
        (
            lambda: to_pytorch({**stack(), "layers.00.W_x": stack()["layers.0.W_x"]}),
            "'layers.00.W_x' has no place in a stack; right are layers.0.W_x",
        ),
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_pytorch(None), "parameters must be a mapping of names to arrays; got NoneType"),  # type: ignore[arg-type]
        (lambda: to_pytorch([]), "parameters must be a mapping of names to arrays; got list"),  # type: ignore[arg-type]
        (lambda: to_keras(None), "parameters must be a mapping of names to arrays; got NoneType"),  # type: ignore[arg-type]
        (lambda: from_pytorch({**ndrplz(), 3: np.ones(1)}), "state_dict must be .*; 3 is no name, but int"),  # type: ignore[dict-item]
        (lambda: from_openstl({**openstl(), None: np.ones(1)}), "state_dict must be .*; None is no name, but NoneType"),  # type: ignore[dict-item]
        (lambda: to_pytorch({**layer(), 3: np.ones(1)}), "parameters must be .*; 3 is no name, but int"),  # type: ignore[dict-item]
        (lambda: to_keras({**layer(), b"b": np.ones(1)}), "parameters must be .*; b'b' is no name, but bytes"),  # type: ignore[dict-item]
        (lambda: from_pytorch(ndrplz(), prefix=None), "prefix must be a str; got None"),  # type: ignore[arg-type]
        (lambda: from_pytorch(ndrplz(), readout=3), "readout must be a str; got 3"),  # type: ignore[arg-type]
        (lambda: to_pytorch(layer(), prefix=None), "prefix must be a str; got None"),  # type: ignore[arg-type]
        (lambda: to_pytorch(layer(), readout=3), "readout must be a str; got 3"),  # type: ignore[arg-type]
        (lambda: from_openstl(openstl(), prefix=None), "prefix must be a str; got None"),  # type: ignore[arg-type]
        (lambda: from_keras(keras(), name=None), "name must be a str; got None"),  # type: ignore[arg-type]
        (lambda: to_keras(layer(), name=None), "name must be a str; got None"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_mapping_or_no_name_is_said(call: Any, message: str) -> None:
    assert_raises_one_line(TypeError, message, call)
