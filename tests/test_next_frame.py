"""`NextFrame`: gradients through stack, read-out, loss and fed-back predictions against central differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, NextFrame
from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.losses import LossName
from tests.numerical import directional_error, freeze, numeric_gradients, read_only


def random_model(channels: int = 1, hidden: tuple[int, ...] = (2,), K: int = 3, **options: Any) -> NextFrame:
    """Return a float64 model whose parameters are large enough to leave every linear range."""
    model = NextFrame(channels, hidden, K, dtype="float64", backend="numpy", **options)
    model.backend = NumpyBackend(1)  # one thread is quickest on maps this small
    rng = np.random.default_rng(5)
    model.parameters = {name: 0.5 * rng.standard_normal(array.shape) for name, array in model.parameters.items()}
    return model


def loss_of(model: NextFrame, frames: Array, context: int, loss: LossName) -> Any:
    def value(arrays: Mapping[str, Array]) -> float:
        model.parameters = dict(arrays)
        return model.loss_and_gradients(frames, context, loss)[0]

    return value


def random_frames(*shape: int) -> Array:
    frames = np.random.default_rng(6).random(shape)
    freeze(frames)
    return frames


@pytest.mark.parametrize("context", [1, 2, 3])
@pytest.mark.parametrize(
    ("output", "loss"),
    [("linear", "mse"), ("sigmoid", "mse"), ("sigmoid", "bce"), ("linear", "mae"), ("sigmoid", "mae")],
)
def test_every_element(output: Any, loss: LossName, context: int) -> None:
    """Context 3 of 4 frames: nothing fed back; 2: one prediction; 1: all but the first input."""
    model, frames = random_model(K=2, output=output, peephole="channel"), random_frames(2, 4, 1, 3, 2)
    arrays = read_only(model.parameters)
    model.parameters = arrays
    _, gradients = model.loss_and_gradients(frames, context, loss)
    numeric = numeric_gradients(loss_of(model, frames, context, loss), arrays)
    assert gradients.keys() == arrays.keys()
    for name, right in numeric.items():
        assert np.abs(right).max() > 0, f"{name} is not read"
        np.testing.assert_allclose(gradients[name], right, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("context", [1, 3, 5])
def test_a_random_direction_through_a_stack(context: int, patch: int) -> None:
    options: dict[str, Any] = {"peephole": "pixel", "bias": "pixel", "spatial_shape": (8 // patch, 6 // patch)}
    model = random_model(2, (3, 4, 2), output="sigmoid", patch=patch, **options)
    frames, arrays = random_frames(3, 6, 2, 8, 6), dict(model.parameters)
    _, gradients = model.loss_and_gradients(frames, context, "mse")
    assert directional_error(loss_of(model, frames, context, "mse"), arrays, gradients) < 1e-6


def test_a_lost_feedback_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant the fault: treat fed-back predictions as data, as code does that detaches them."""
    model, frames = random_model(output="sigmoid"), random_frames(2, 5, 1, 4, 4)
    arrays = dict(model.parameters)
    loss = loss_of(model, frames, 2, "bce")
    monkeypatch.setattr(model, "_frame_gradient", lambda dy, z: 0 * dy)
    _, gradients = model.loss_and_gradients(frames, 2, "bce")
    assert directional_error(loss, arrays, gradients) > 1e-3


def test_forward_is_the_stack_the_read_out_and_the_feedback() -> None:
    """`predict` step by step, from public layers and plain NumPy."""
    model, frames = random_model(1, (2, 3), output="sigmoid"), random_frames(2, 3, 1, 4, 5)
    layers = [ConvLSTM(1, 2, dtype="float64", backend="numpy"), ConvLSTM(2, 3, dtype="float64", backend="numpy")]
    for index, layer in enumerate(layers):
        layer.parameters = {name: model.parameters[f"layers.{index}.{name}"] for name in layer.parameters}
    W, b = model.parameters["readout.W"][:, :, 0, 0], model.parameters["readout.b"]
    states: list[Any] = [None, None]
    x, predicted = frames, []
    for _ in range(4):
        for index, layer in enumerate(layers):
            x, states[index], _ = layer.forward(x, states[index])
        z = np.einsum("dc,nchw->ndhw", W, x[:, -1]) + b[:, None, None]
        x = 1 / (1 + np.exp(-z[:, None]))
        predicted.append(x)
    np.testing.assert_allclose(model.predict(frames, 4), np.concatenate(predicted, axis=1), rtol=1e-12)


def test_a_patch_is_only_another_shape_of_the_frame() -> None:
    """The loss is a mean over pixels, however folded: a model of folded frames agrees with patch=P on whole ones."""
    from convlstm.patches import fold

    whole, folded = random_model(1, (3,), patch=2), random_model(4, (3,))
    folded.parameters = dict(whole.parameters)
    frames = random_frames(2, 4, 1, 6, 8)
    one, other = (
        whole.loss_and_gradients(frames, 2),
        folded.loss_and_gradients(np.ascontiguousarray(fold(frames, 2)), 2),
    )
    assert one[0] == other[0]
    for name, gradient in one[1].items():
        np.testing.assert_array_equal(gradient, other[1][name])


def test_loss_is_the_mean_over_samples() -> None:
    model, frames = random_model(), random_frames(3, 4, 1, 4, 4)
    alone = [model.loss_and_gradients(frames[n : n + 1]) for n in range(3)]
    loss, gradients = model.loss_and_gradients(frames)
    assert loss == pytest.approx(np.mean([value for value, _ in alone]), rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, np.mean([g[name] for _, g in alone], axis=0), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("output", "mean"), [("linear", -0.5), ("linear", 3.0), ("sigmoid", 0.07)])
def test_start_from_mean(output: Any, mean: float) -> None:
    model = random_model(output=output)
    model.start_from_mean(mean)
    model.parameters["readout.W"] = np.zeros_like(model.parameters["readout.W"])
    np.testing.assert_allclose(model.predict(random_frames(1, 2, 1, 4, 4), 2), mean, rtol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 1.0, -1.0, float("nan")])
def test_a_sigmoid_cannot_start_from_any_mean(mean: float) -> None:
    with pytest.raises(ValueError, match="mean must lie between 0 and 1"):
        random_model(output="sigmoid").start_from_mean(mean)


def test_layers_of_one_model_start_differently() -> None:
    model = NextFrame(2, (2, 2), backend="numpy")
    assert not np.array_equal(model.parameters["layers.0.W_h"], model.parameters["layers.1.W_h"])


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m, x: m.predict(x, 0), ValueError, "horizon must be an integer ≥ 1; got 0"),
        (lambda m, x: m.predict(x, 2.0), ValueError, r"horizon must be an integer ≥ 1; got 2\.0"),
        (lambda m, x: m.loss_and_gradients(x, "2"), ValueError, "context must be an integer ≥ 1; got '2'"),
        (lambda m, x: m.loss_and_gradients(x, 2, ["mse"]), ValueError, "loss must be one of mse, mae, bce"),
        (lambda m, x: m.predict(x[0], 1), ValueError, r"frames must have shape \(N, T, 1, H, W\)"),
        (lambda m, x: m.predict(x.astype("float32"), 1), TypeError, "frames must have dtype float64"),
        (lambda m, x: m.predict(x[..., :3], 1), ValueError, "patch 2 must divide the height and width"),
        (lambda m, x: m.loss_and_gradients(x[:, :1]), ValueError, "at least 2 time steps"),
        (lambda m, x: m.loss_and_gradients(x, 4), ValueError, r"context must lie in 1 … T-1 = 3; got 4"),
        (lambda m, x: m.loss_and_gradients(x, 0), ValueError, "context must be an integer ≥ 1; got 0"),
        (
            lambda m, x: m.loss_and_gradients(x, 2, "huber"),
            ValueError,
            "loss must be one of mse, mae, bce; got 'huber'",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Any, error: type[Exception], said: str) -> None:
    model, frames = random_model(patch=2, K=2), random_frames(2, 4, 1, 4, 6)
    with pytest.raises(error, match=said):
        call(model, frames)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"readout.W": np.zeros((1, 2, 1))}, ValueError, r"parameters\['readout.W'\] must have shape \(1, 2, 1, 1\)"),
        ({"layers.0.b": np.zeros(7)}, ValueError, r"parameters\['layers.0.b'\] must have shape \(8,\)"),
        ({"layers.1.b": np.zeros(8)}, KeyError, "missing or unknown: layers.1.b"),
    ],
)
def test_wrong_parameters_are_named(change: dict[str, Array], error: type[Exception], said: str) -> None:
    model = random_model()
    model.parameters.update(change)
    with pytest.raises(error, match=said):
        model.predict(random_frames(1, 2, 1, 4, 4), 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden": ()}, "hidden_channels must be a list, one number for each layer"),
        ({"hidden": 16}, "hidden_channels must be a list, one number for each layer; got 16"),
        ({"output": "tanh"}, 'output must be "linear" or "sigmoid"'),
        ({"channels": 0}, "channels must be an integer ≥ 1"),
        ({"patch": 0}, "patch must be an integer ≥ 1"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        random_model(**options)
