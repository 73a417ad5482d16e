"""One frame at a time gives the bits of the whole sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, ConvLSTMStack, NextFrame, Stateful
from convlstm.backends import Array
from tests.numerical import freeze


def frames(*shape: int, dtype: str = "float64") -> Array:
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    freeze(x)
    return x


def enlarged(layer: Any) -> Any:
    """Return a layer or stack with random parameters, peepholes and gains too."""
    rng = np.random.default_rng(1)
    layer.parameters = {
        name: (rng.standard_normal(array.shape) / 2).astype(layer.dtype) for name, array in layer.parameters.items()
    }
    return layer


LAYERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "float32": {"dtype": "float32"},
    "layer norm": {"layer_norm": "channel", "peephole": "channel"},
    "per pixel": {"bias": "pixel", "peephole": "pixel", "layer_norm": "pixel", "spatial_shape": (5, 6)},
    "strided": {"stride": 2, "padding": "valid", "recurrent_kernel_size": 2},
    "dropout, which is for training": {"dropout": 0.5, "recurrent_dropout": 0.5},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_a_layer(options: dict[str, Any]) -> None:
    layer = enlarged(ConvLSTM(2, 3, **{"dtype": "float64", "backend": "numpy", **options}))
    x = frames(2, 5, 2, 5, 6, dtype=layer.dtype.name)
    h, (h_T, c_T), _ = layer.forward(x)
    live = Stateful(layer)
    for t in range(5):
        np.testing.assert_array_equal(live.step(x[:, t]), h[:, t], strict=True)
    np.testing.assert_array_equal(live.state, (h_T, c_T))


@pytest.mark.parametrize("returns", ["every", "last"])
@pytest.mark.parametrize("options", [{}, {"layer_norm": "channel"}, {"stride": [2, 1], "recurrent_kernel_size": 1}])
def test_a_stack(returns: Any, options: dict[str, Any]) -> None:
    stack = enlarged(ConvLSTMStack(2, (3, 2), returns=returns, dtype="float64", backend="numpy", **options))
    x = frames(2, 5, 2, 5, 6)
    live = Stateful(stack)
    for t in range(5):
        h, states, _ = stack.forward(x[:, : t + 1])
        np.testing.assert_array_equal(live.step(x[:, t]), h if returns == "last" else h[:, -1], strict=True)
        for found, right in zip(live.state, states, strict=True):
            np.testing.assert_array_equal(found, right)


def test_a_layer_without_input_runs_on_from_the_state_it_is_given() -> None:
    layer = enlarged(ConvLSTM(None, 3, dtype="float64", backend="numpy"))
    state = (frames(2, 3, 4, 5), frames(2, 3, 4, 5))
    h, _, _ = layer.forward(frames(2, 3, 0, 4, 5), state)
    live = Stateful(layer)
    live.state = state
    for t in range(3):
        np.testing.assert_array_equal(live.step(frames(2, 0, 4, 5)), h[:, t])


def test_reset_begins_from_zeros_and_an_assigned_state_continues() -> None:
    live, x = Stateful(enlarged(ConvLSTM(2, 3, dtype="float64", backend="numpy"))), frames(1, 2, 2, 5, 6)
    assert live.state is None
    first = live.step(x[:, 0])
    kept = live.state
    second = live.step(x[:, 1])
    live.reset()
    assert live.state is None
    np.testing.assert_array_equal(live.step(x[:, 0]), first)
    live.state = kept
    np.testing.assert_array_equal(live.step(x[:, 1]), second)
    assert not np.array_equal(first, second)


def test_two_sequences_of_one_layer_do_not_meet() -> None:
    layer, x = enlarged(ConvLSTM(2, 3, dtype="float64", backend="numpy")), frames(2, 3, 2, 5, 6)
    one, other = Stateful(layer), Stateful(layer)
    for t in range(3):
        found = one.step(x[:1, t]), other.step(x[1:, t])
    for n in range(2):
        np.testing.assert_array_equal(found[n], layer.forward(x[n : n + 1])[0][:, -1])


def test_a_stack_in_both_directions_is_refused() -> None:
    with pytest.raises(ValueError, match="both directions needs whole sequences; make it with bidirectional=False"):
        Stateful(ConvLSTMStack(2, (3,), bidirectional=True, backend="numpy"))


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        (
            frames(1, 1, 2, 5, 6),
            ValueError,
            r"x must have shape \(1, 2, 5, 6\); got \(1, 1, 2, 5, 6\)",
        ),
        (frames(2, 5, 6), ValueError, r"x must have shape \(1, 2, 5, 6\); got \(2, 5, 6\)"),
        (frames(1, 3, 5, 6), ValueError, r"x must have shape \(1, 2, 5, 6\); got \(1, 3, 5, 6\)"),
        (frames(1, 2, 5, 6, dtype="float32"), TypeError, "x must have dtype float64; got float32"),
        (frames(2, 2, 5, 6), ValueError, r"x must have shape \(1, 2, 5, 6\); got \(2, 2, 5, 6\)"),
        (frames(1, 2, 4, 6), ValueError, r"x must have shape \(1, 2, 5, 6\); got \(1, 2, 4, 6\)"),
    ],
)
def test_wrong_frames_are_named_and_change_no_state(x: Array, error: type[Exception], said: str) -> None:
    live = Stateful(ConvLSTM(2, 3, dtype="float64", backend="numpy"))
    live.step(frames(1, 2, 5, 6))
    before = live.state
    with pytest.raises(error, match=f"^{said}"):
        live.step(x)
    assert live.state is before


def test_the_first_frame_has_the_layers_channels() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2, H, W\); got \(1, 3, 5, 6\)"):
        Stateful(ConvLSTM(2, 3, dtype="float64", backend="numpy")).step(frames(1, 3, 5, 6))


@pytest.mark.parametrize("x", [None, 3.0, [[1.0]]])
def test_only_an_array_is_a_frame(x: Any) -> None:
    with pytest.raises(TypeError, match="x must be an array of backend numpy"):
        Stateful(ConvLSTM(2, 3, backend="numpy")).step(x)


@pytest.mark.parametrize("layer", [None, 3, NextFrame(1, (2,), backend="numpy")])
def test_only_layers_and_stacks_are_stepped_through(layer: Any) -> None:
    with pytest.raises(TypeError, match="layer must be a ConvLSTM or a ConvLSTMStack; got"):
        Stateful(layer)
