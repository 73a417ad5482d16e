"""The real Keras and this project compute the same with the same weights, whichever of them had them first."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm import ConvLSTM, ConvLSTMStack, NextFrame, assign_parameters
from convlstm.foreign_weights import from_keras, to_keras

WHY = "compares with Keras on PyTorch, which are not installed: uv run --group peers pytest tests/peers"
pytest.importorskip("torch", reason=WHY)
with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
    patch.setenv("KERAS_BACKEND", "torch")
    patch.setenv("KERAS_HOME", home)  # Keras writes its settings there when it is imported
    keras: Any = pytest.importorskip("keras", reason=WHY)

# Keras reads its own weights in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Array = NDArray[Any]
GEOMETRIES = [
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 2, "padding": "valid"},
    {"kernel_size": (3, 2), "padding": "same", "strides": 2},
    {"kernel_size": (2, 3), "padding": "valid", "strides": (2, 1)},
    {"kernel_size": (2, 3), "padding": "same", "dilation_rate": 2},
]


def assert_close(given: Array, right: Array) -> None:
    np.testing.assert_allclose(given, right, rtol=1e-12, atol=1e-12)


def theirs(C: int, **options: Any) -> Any:
    settings = {"data_format": "channels_last", "return_sequences": True, "return_state": True, "dtype": "float64"}
    return keras.layers.ConvLSTM2D(C, **{**settings, **options})


def ours(Cin: int, C: int, *, use_bias: bool = True, **options: Any) -> ConvLSTM:
    """Return our layer of the same settings, in Keras's words."""
    words = {"strides": "stride", "dilation_rate": "dilation"}
    same = {words.get(name, name): value for name, value in options.items()}
    return ConvLSTM(Cin, C, bias="channel" if use_bias else None, **{"dtype": "float64", "backend": "numpy", **same})


def maps(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def first(array: Any) -> Array:
    """Return an array of Keras, channels last, with channels first."""
    return np.ascontiguousarray(np.moveaxis(keras.ops.convert_to_numpy(array), -1, -3))


def stir(layer: Any) -> None:
    """Give a built layer weights larger than the initial ones, so that every gate leaves its linear range."""
    layer.set_weights([0.5 * maps(seed, *weight.shape) for seed, weight in enumerate(layer.get_weights())])


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
def test_weights_of_keras_make_the_same_states_here(options: dict[str, Any], use_bias: bool) -> None:
    x = maps(0, 2, 3, 7, 8, 2)
    layer = theirs(3, use_bias=use_bias, **options)
    layer(x)
    stir(layer)
    h, _, c_T = layer(x)
    own = ours(2, 3, use_bias=use_bias, **options)
    assign_parameters(own.parameters, from_keras(layer.get_weights()))
    found, (_, found_c), _ = own.forward(first(x))
    assert_close(found, first(h))
    assert_close(found_c, first(c_T))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_weights_of_ours_make_the_same_states_in_keras(use_bias: bool, data_format: str) -> None:
    x = maps(0, 2, 3, 2, 6, 7)
    own = ours(2, 3, use_bias=use_bias, kernel_size=(3, 2), strides=2, padding="same", seed=4)
    layer = theirs(
        3, use_bias=use_bias, kernel_size=(3, 2), strides=2, padding="same", data_format=data_format,
        return_sequences=False,
    )  # fmt: skip
    given = x if data_format == "channels_first" else np.moveaxis(x, 2, -1)
    layer(given)
    layer.set_weights(to_keras(own.parameters))
    h_T, _, c_T = layer(given)
    _, state, _ = own.forward(x)
    for expected, found in zip(state, (h_T, c_T), strict=True):
        found = keras.ops.convert_to_numpy(found) if data_format == "channels_first" else first(found)
        assert_close(found, expected)


def test_a_given_state_starts_both() -> None:
    x, h0, c0 = maps(0, 2, 3, 5, 6, 2), maps(1, 2, 5, 6, 3), maps(2, 2, 5, 6, 3)
    layer = theirs(3, kernel_size=3, padding="same")
    layer(x)
    stir(layer)
    h, _, _ = layer(x, initial_state=[keras.ops.convert_to_tensor(state) for state in (h0, c0)])
    own = ours(2, 3, kernel_size=3)
    assign_parameters(own.parameters, from_keras(layer.get_weights()))
    assert_close(own.forward(first(x), (first(h0), first(c0)))[0], first(h))


def test_a_mask_keeps_the_same_states() -> None:
    x, mask = maps(0, 2, 4, 5, 6, 2), np.array([[True, True, False, False], [False, True, False, True]])
    layer = theirs(3, kernel_size=3, padding="same")
    layer(x)
    stir(layer)
    h, _, c_T = layer(x, mask=mask)
    own = ours(2, 3, kernel_size=3)
    assign_parameters(own.parameters, from_keras(layer.get_weights()))
    found, (_, found_c), _ = own.forward(first(x), mask=mask)
    assert_close(found, first(h))
    assert_close(found_c, first(c_T))


# What docs/weights.md says of differences: should one vanish, the sentence goes.


def test_a_mask_before_the_first_frame_gives_zero_there_and_the_given_state_here() -> None:
    x, h0, c0 = maps(0, 2, 3, 5, 6, 2), maps(1, 2, 5, 6, 3), maps(2, 2, 5, 6, 3)
    mask = np.array([[False, False, True], [True, False, True]])
    layer = theirs(3, kernel_size=3, padding="same")
    layer(x)
    stir(layer)
    h, _, c_T = layer(x, mask=mask, initial_state=[keras.ops.convert_to_tensor(state) for state in (h0, c0)])
    own = ours(2, 3, kernel_size=3)
    assign_parameters(own.parameters, from_keras(layer.get_weights()))
    found, (_, found_c), _ = own.forward(first(x), (first(h0), first(c0)), mask=mask)
    assert not first(h)[0, :2].any()
    np.testing.assert_array_equal(found[0, :2], [first(h0)[0]] * 2)
    begun = mask.cumsum(axis=1) > 0
    assert_close(found[begun], first(h)[begun])
    assert_close(found_c, first(c_T))


@pytest.mark.parametrize("every", [True, False])
def test_a_masked_output_in_both_directions_is_zero_there_and_held_here(every: bool) -> None:
    x, mask = maps(0, 2, 4, 5, 6, 2), np.array([[True, True, False, False], [False, True, False, True]])
    layer = theirs(3, kernel_size=3, padding="same", return_sequences=every, return_state=False)
    both = keras.layers.Bidirectional(layer, dtype="float64")
    both(x)
    stir(both)
    h = first(both(x, mask=mask))
    own = ConvLSTMStack(
        2, (3,), kernel_size=3, bidirectional=True, returns="every" if every else "last", dtype="float64",
        backend="numpy",
    )  # fmt: skip
    for name, direction in (("forward", both.forward_layer), ("reverse", both.backward_layer)):
        own.parameters |= from_keras(direction.get_weights(), f"layers.0.{name}.")
    found, _, _ = own.forward(first(x), mask=mask)
    if not every:
        assert_close(found, h)
        return
    assert_close(found[mask], h[mask])
    assert not h[~mask].any()
    assert found[~mask].any(axis=(1, 2, 3)).all()


def test_a_kernel_larger_than_the_map_runs_there_and_is_an_error_here() -> None:
    x = maps(0, 1, 2, 4, 7, 2)
    assert theirs(3, kernel_size=5, padding="same")(x)[0].shape == (1, 2, 4, 7, 3)
    with pytest.raises(ValueError, match=r"^kernel 5×5 is larger than the map 4×7"):
        ours(2, 3, kernel_size=5, recurrent_kernel_size=1).forward(first(x))
    x = maps(0, 1, 2, 6, 7, 2)
    assert theirs(3, kernel_size=5, padding="valid")(x)[0].shape == (1, 2, 2, 3, 3)  # over h of 2×3
    with pytest.raises(ValueError, match=r"^recurrent kernel 5×5 is larger than the .*2×3"):
        ours(2, 3, kernel_size=5, padding="valid").forward(first(x))


def test_a_stack_under_a_read_out_goes_either_way() -> None:
    x = maps(0, 2, 4, 6, 5, 1)
    layers = [theirs(C, kernel_size=3, padding="same", return_state=False) for C in (3, 2)]
    head = keras.layers.TimeDistributed(keras.layers.Conv2D(1, 1, dtype="float64"), dtype="float64")
    model = keras.Sequential([keras.Input((4, 6, 5, 1), dtype="float64"), *layers, head])
    for layer in model.layers:
        stir(layer)
    parameters: dict[str, Array] = {}
    for index, layer in enumerate(layers):
        parameters |= from_keras(layer.get_weights(), f"layers.{index}.")
    W, b = head.get_weights()
    parameters |= {"readout.W": W.transpose(3, 2, 0, 1), "readout.b": b}
    own = NextFrame(1, (3, 2), 3, dtype="float64", backend="numpy")
    assign_parameters(own.parameters, parameters)
    assert_close(own.predict(first(x), 1)[:, 0], first(model(x))[:, -1])
    back = [weight for index in (0, 1) for weight in to_keras(own.parameters, f"layers.{index}.")]
    for given, right in zip(back, model.get_weights(), strict=False):
        np.testing.assert_array_equal(given, right)


def test_the_first_bias_is_the_same() -> None:
    layer = theirs(3, kernel_size=3, unit_forget_bias=True)
    layer(maps(0, 1, 1, 5, 5, 2))
    np.testing.assert_array_equal(from_keras(layer.get_weights())["b"], ours(2, 3, kernel_size=3).parameters["b"])


def test_float32_stays_float32_and_agrees_as_far_as_it_can() -> None:
    x = maps(0, 2, 3, 6, 7, 2).astype("float32")
    layer = theirs(3, kernel_size=3, padding="same", dtype="float32")
    layer(x)
    own = ours(2, 3, kernel_size=3, dtype="float32")
    assign_parameters(own.parameters, from_keras(layer.get_weights()))  # which takes no other dtype
    np.testing.assert_allclose(own.forward(first(x))[0], first(layer(x)[0]), rtol=1e-5, atol=1e-6)


def test_a_kernel_that_is_not_transposed_is_seen() -> None:
    x = maps(0, 2, 3, 6, 7, 2)
    layer = theirs(3, kernel_size=3, padding="same")
    layer(x)
    stir(layer)
    own = ours(2, 3, kernel_size=3)
    kernel, recurrent, bias = layer.get_weights()
    assign_parameters(own.parameters, from_keras([kernel.transpose(1, 0, 2, 3), recurrent, bias]))
    assert np.abs(own.forward(first(x))[0] - first(layer(x)[0])).max() > 1e-2
