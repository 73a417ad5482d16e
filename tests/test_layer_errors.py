"""What `ConvLSTM` refuses, and that each message names what was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, Draws
from tests.layer_problems import small_layer

X = np.zeros((2, 3, 1, 5, 5), "float32")
STATE = np.zeros((2, 2, 5, 5), "float32")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"in_channels": 0}, "in_channels must be an integer ≥ 1; got 0"),
        ({"hidden_channels": 2.0}, r"hidden_channels must be an integer ≥ 1; got 2\.0"),
        ({"kernel_size": 0}, "kernel_size must be an integer ≥ 1 or a pair"),
        ({"bias": True}, 'bias must be None, "channel" or "pixel"; got True'),
        ({"peephole": "full"}, "peephole must be None"),
        ({"peephole": ["pixel"]}, "peephole must be None"),
        ({"bias": "pixel"}, r'bias="pixel" needs spatial_shape=\(H, W\)'),
        ({"peephole": "pixel"}, r'peephole="pixel" needs spatial_shape=\(H, W\)'),
        ({"dtype": "float16"}, 'dtype must be "float32" or "float64"; got \'float16\''),
        ({"dtype": "no such"}, "dtype must be"),
        ({"backend": "torch"}, "backend must be"),
        ({"seed": -1}, "seed must lie in"),
        ({"stride": 0}, "stride must be"),
        ({"dtype": None}, 'dtype must be "float32" or "float64"; got None'),
        ({"bias": np.zeros(8)}, "bias must be None"),
        ({"forget_bias": float("nan")}, "forget_bias must be a finite number of float32; got nan"),
        ({"forget_bias": "1"}, "forget_bias must be a finite number of float32; got '1'"),
        ({"forget_bias": True, "bias": None}, "forget_bias must be a finite number of float32; got True"),
        ({"in_channels": None, "stride": 2}, "a layer without input has no convolution over x: leave out stride"),
        ({"in_channels": None, "padding": "valid"}, "a layer without input has no convolution over x"),
        ({"in_channels": None, "dilation": 2}, "a layer without input has no convolution over x"),
        ({"padding": "SAME"}, "padding must be"),
        ({"padding": -1}, "padding must be"),
        ({"padding": np.array([1.5, 1])}, "padding must be"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small_layer(**options)


@pytest.mark.parametrize(
    ("x", "state", "error", "said"),
    [
        (X[0], None, ValueError, r"x must have shape \(N, T, 1, H, W\); got \(3, 1, 5, 5\)"),
        (np.zeros((8, 64, 64), "float32"), None, ValueError, r"x must have shape \(N, T, 1, H, W\); got \(8, 64, 64\)"),
        (np.zeros((2, 3, 2, 5, 5), "float32"), None, ValueError, r"x must have shape \(N, T, 1, H, W\)"),
        (X[:0], None, ValueError, "x must not be empty"),
        (X[:, :0], None, ValueError, "x must not be empty"),
        (X.astype("float64"), None, TypeError, "x must have dtype float32; got float64"),
        (np.ma.masked_array(X), None, TypeError, "x must be an array of backend numpy; got numpy.MaskedArray"),
        (X.tolist(), None, TypeError, "x must be an array of backend numpy; got builtins.list"),
        (X, STATE, TypeError, r"state must be a pair of arrays \(h, c\)"),
        (X, (STATE,), TypeError, r"state must be a pair of arrays \(h, c\)"),
        (X, (STATE, STATE[:1]), ValueError, r"state c must have shape \(2, 2, 5, 5\)"),
        (X, (STATE.astype("float64"), STATE), TypeError, "state h must have dtype float32"),
        (X[:, :, :, :2, :], None, ValueError, "kernel 3×3 is larger than the map 2×5"),
    ],
)
def test_wrong_operands_are_named(x: Any, state: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        small_layer().forward(x, state)


def test_the_kernel_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="recurrent kernel 3×3 is larger than the hidden map 2×2"):
        small_layer(stride=2).forward(X[..., :4, :4])


def test_wrong_gradients_to_the_output_are_named() -> None:
    layer = small_layer()
    h, _, cache = layer.forward(X)
    with pytest.raises(ValueError, match=r"dh must have shape \(2, 3, 2, 5, 5\); got \(2, 2, 5, 5\)"):
        layer.backward(cache, h[:, 0])
    with pytest.raises(ValueError, match=r"dstate h must have shape \(2, 2, 5, 5\)"):
        layer.backward(cache, h, (STATE[:1], STATE))


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("W_x", np.zeros((8, 1, 3, 2), "float32"), ValueError, r"parameters\['W_x'\] must have shape \(8, 1, 3, 3\)"),
        ("b", np.zeros(8), TypeError, r"parameters\['b'\] must have dtype float32; got float64"),
        ("b", [0.0] * 8, TypeError, r"parameters\['b'\] must be an array of backend numpy"),
        ("W_y", np.zeros(8), KeyError, "missing or unknown: W_y"),
    ],
)
def test_wrong_parameters_are_named(name: str, value: Any, error: type[Exception], said: str) -> None:
    layer = small_layer()
    layer.parameters[name] = value
    with pytest.raises(error, match=said):
        layer.forward(X)


def test_parameters_per_pixel_belong_to_one_size() -> None:
    with pytest.raises(ValueError, match=r"hidden maps of 5×5, but .* spatial_shape=\(4, 5\)"):
        small_layer(bias="pixel", spatial_shape=(4, 5)).forward(X)


def test_a_layer_without_input_is_given_none() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(N, T, 0, H, W\); got \(2, 3, 1, 5, 5\)"):
        small_layer(in_channels=None).forward(X)
    with pytest.raises(ValueError, match="x must not be empty"):
        small_layer(in_channels=None).forward(X[:, :0, :0])


@pytest.mark.parametrize(
    "other", [{"peephole": "channel"}, {"dtype": "float64"}, {"hidden_channels": 3}, {"bias": None}, {"kernel_size": 5}]
)
def test_another_layers_cache_is_refused(other: dict[str, Any]) -> None:
    h, _, cache = small_layer().forward(X)
    with pytest.raises(TypeError, match="cache must be what this layer's forward returned; got another layer's"):
        small_layer(**other).backward(cache, h)


def test_swapped_arguments_of_backward_are_named() -> None:
    h, _, cache = small_layer().forward(X)
    with pytest.raises(TypeError, match=r"cache must be .* got an object of type ndarray"):
        small_layer().backward(h, cache)  # type: ignore[arg-type]


@pytest.mark.parametrize("draws", [(1, 0, 0), 1, np.random.default_rng(0)], ids=["tuple", "seed", "generator"])
def test_draws_are_draws(draws: Any) -> None:
    with pytest.raises(TypeError, match=r"^draws must be convlstm\.Draws\(seed, step, first\); got "):
        small_layer(dropout=0.5).forward(X, draws=draws)


def test_a_cache_of_a_layer_of_the_same_shapes_is_another_layers() -> None:
    one, other = (ConvLSTM(1, 2, backend="numpy", seed=seed) for seed in (0, 1))
    h, _, cache = one.forward(np.zeros((1, 2, 1, 4, 4), np.float32))
    with pytest.raises(TypeError, match="cache must be what this layer's forward returned; got another layer's"):
        other.backward(cache, h)


@pytest.mark.parametrize(
    ("draws", "error", "said"),
    [
        (3, TypeError, r"draws must be convlstm.Draws\(seed, step, first\); got 3"),
        (Draws("a"), ValueError, "seed of draws must be an integer ≥ 0; got 'a'"),  # type: ignore[arg-type]
        (Draws(0, -1), ValueError, "step of draws must be an integer ≥ 0; got -1"),
        (Draws(0, 0, 1.5), ValueError, "first of draws must be an integer ≥ 0; got 1.5"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_wrong_draws_are_named_whether_or_not_something_is_dropped(
    draws: Any, error: type[Exception], said: str, dropout: float
) -> None:
    layer = ConvLSTM(1, 2, dropout=dropout, backend="numpy")
    with pytest.raises(error, match=said):
        layer.forward(np.zeros((1, 2, 1, 4, 4), np.float32), draws=draws)


def test_parameters_are_a_dictionary() -> None:
    layer = ConvLSTM(1, 2, backend="numpy")
    layer.parameters = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="parameters must be a dict of arrays; got NoneType"):
        layer.forward(np.zeros((1, 2, 1, 4, 4), np.float32))


@pytest.mark.parametrize("name", [None, 3])
def test_a_name_is_a_text(name: Any) -> None:
    with pytest.raises(ValueError, match=f"name must be a text; got {name}"):
        ConvLSTM(1, 2, backend="numpy", name=name)


def test_a_bias_that_float32_cannot_hold_is_not_finite() -> None:
    assert ConvLSTM(1, 2, forget_bias=1e39, dtype="float64", backend="numpy").parameters["b"].max() == 1e39
    with pytest.raises(ValueError, match=r"forget_bias must be a finite number of float32; got 1e\+39"):
        ConvLSTM(1, 2, forget_bias=1e39, backend="numpy")
