"""`NextFrame`: gradients through stack, read-out, loss and fed-back predictions against central differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, NextFrame
from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.dropout import Draws
from convlstm.losses import LossName
from convlstm.masks import at_step
from convlstm.next_frame import sampled_frames
from convlstm.patches import fold
from convlstm.stack import stack_backward
from tests.frame_models import RICH, bits, make, make_frames, peak_memory
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


@pytest.mark.parametrize(
    ("output", "loss", "context"),
    [
        ("linear", "mse", 2), ("sigmoid", "mse", 2), ("linear", "mae", 2), ("sigmoid", "mae", 2),
        ("sigmoid", "bce", 1), ("sigmoid", "bce", 2), ("sigmoid", "bce", 3),
    ],
)  # fmt: skip
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


def test_each_layer_drops_what_it_drops_alone() -> None:
    """In training, all frames shown: the masks are those of a layer of the same name."""
    settings: dict[str, Any] = {"dropout": 0.4, "recurrent_dropout": 0.3, "dtype": "float64", "backend": "numpy"}
    model, frames, draws = NextFrame(1, (1, 2), **settings), random_frames(2, 4, 1, 4, 5), Draws(1, step=2, first=3)
    x = frames[:, :-1]
    for index, C in enumerate((1, 2)):
        layer = ConvLSTM(1, C, name=f"layers.{index}.", **settings)
        layer.parameters = {name: model.parameters[f"layers.{index}.{name}"] for name in layer.parameters}
        x, _, _ = layer.forward(x, draws=draws)
    predicted = np.einsum("dc,ntchw->ntdhw", model.parameters["readout.W"][:, :, 0, 0], x)
    loss, _ = model.loss_and_gradients(frames, draws=draws)
    assert loss == pytest.approx(((predicted - frames[:, 1:]) ** 2).mean(), rel=1e-12)


def test_a_patch_is_only_another_shape_of_the_frame() -> None:
    """The loss is a mean over pixels, however folded: a model of folded frames agrees with patch=P on whole ones."""
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


@pytest.mark.parametrize("mean", [0.0, 1.0, -1.0])
def test_a_sigmoid_cannot_start_from_any_mean(mean: float) -> None:
    with pytest.raises(ValueError, match="mean must lie between 0 and 1"):
        random_model(output="sigmoid").start_from_mean(mean)


@pytest.mark.parametrize("mean", [float("nan"), None, "a", [0.5]])
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_a_mean_is_a_number(mean: Any, output: str) -> None:
    with pytest.raises(ValueError, match="mean must be a finite number; got"):
        random_model(output=output).start_from_mean(mean)


def test_layers_of_one_model_start_differently() -> None:
    model = NextFrame(2, (2, 2), backend="numpy")
    assert not np.array_equal(model.parameters["layers.0.W_h"], model.parameters["layers.1.W_h"])


# Which frames are shown -----------------------------------------------------------------------------------------------

SHOWN = np.array([[True, True, False, False, True], [True, False, False, True, True], [True, True, True, False, False]])


class WholeBatch(NumpyBackend):
    """Hands over the whole batch at once, as CuPy does."""

    def map_samples(self, work: Any, samples: int, column_elements: int) -> list[Any]:
        return super().map_samples(lambda _: work(slice(0, samples)), 1, column_elements)


def at_once(model: NextFrame) -> NextFrame:
    model.backend = WholeBatch(1)
    return model


@pytest.mark.parametrize("truncate", [None, 2])
@pytest.mark.parametrize("context", [1, 2, 5])
def test_shown_says_what_context_says(context: int, truncate: int | None) -> None:
    model, frames = make(NextFrame, **RICH), make_frames(N=3, T=6)
    shown = np.arange(5) < np.full((3, 1), context)
    given: dict[str, Any] = {"draws": Draws(1), "truncate": truncate}
    assert bits(model, frames, shown=shown, **given) == bits(model, frames, context=context, **given)


@pytest.mark.parametrize("truncate", [None, 2])
@pytest.mark.parametrize("recompute", [None, 1, 3])
def test_a_batch_with_mixed_frames_agrees_with_its_samples(recompute: int | None, truncate: int | None) -> None:
    model, frames = make(NextFrame, **RICH), make_frames(N=3, T=6)
    given: dict[str, Any] = {"draws": Draws(1), "shown": SHOWN, "recompute": recompute, "truncate": truncate}
    loss, gradients = model.loss_and_gradients(frames, **given)
    together, gradients_together = at_once(model).loss_and_gradients(frames, **given)
    assert together == pytest.approx(loss, rel=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_together[name], gradient, rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_every_element_through_a_mixture(output: Any) -> None:
    model, frames = at_once(random_model(K=2, output=output)), random_frames(3, 6, 1, 3, 2)

    def value(arrays: Mapping[str, Array]) -> float:
        model.parameters = dict(arrays)
        return model.loss_and_gradients(frames, shown=SHOWN)[0]

    arrays = read_only(model.parameters)
    model.parameters = arrays
    _, gradients = model.loss_and_gradients(frames, shown=SHOWN)
    for name, right in numeric_gradients(value, arrays).items():
        np.testing.assert_allclose(gradients[name], right, rtol=1e-6, atol=1e-9, err_msg=name)


def test_sampled_frames() -> None:
    numbers = np.random.default_rng(0).random((200, 9))
    asked: list[int] = []

    def draw(n: int) -> Any:
        asked.append(n)
        return numbers[n]

    shown = sampled_frames(200, 10, 3, 0.25, draw)
    assert shown.shape == (200, 9)
    assert shown.dtype == bool
    assert asked == list(range(200))
    assert shown[:, :3].all()
    np.testing.assert_array_equal(shown[:, 3:], numbers[:, 3:] < 0.25)
    assert sampled_frames(200, 10, 3, 1.0, draw).all()
    assert not sampled_frames(200, 10, 3, 0.0, draw)[:, 3:].any()


# Truncation -----------------------------------------------------------------------------------------------------------


def by_hand(
    model: NextFrame, arrays: Mapping[str, Array], frames: Array, shown: Array, window: int, given: list[Any] | None
) -> tuple[float, list[Any]]:
    """Return the loss and what each window starts from, or the loss of windows that start from what is given."""
    layers = [
        ConvLSTM(each.in_channels, each.hidden_channels, dtype="float64", backend="numpy") for each in model.layers
    ]
    for index, layer in enumerate(layers):
        layer.parameters = {name: arrays[f"layers.{index}.{name}"] for name in layer.parameters}
    W, b = arrays["readout.W"][:, :, 0, 0], arrays["readout.b"]
    starts: list[Any] = []
    state: Any = ([None] * len(layers), np.zeros_like(frames[:, :1]))
    total = 0.0
    for t in range(frames.shape[1] - 1):
        if t % window == 0:
            state = state if given is None else given[t // window]
            starts.append(state)
        states, y = list(state[0]), state[1]
        read = x = np.where(shown[:, t, None, None, None, None], frames[:, t : t + 1], y)
        for index, layer in enumerate(layers):
            x, states[index], _ = layer.forward(x, states[index])
        z = np.einsum("dc,ntchw->ntdhw", W, x) + b[:, None, None]
        y = read + z if model.residual else 1 / (1 + np.exp(-z))
        total += float(((y - frames[:, t + 1 : t + 2]) ** 2).sum())
        state = (states, y)
    return total / frames[:, 1:].size, starts


@pytest.mark.parametrize("settings", [{"output": "sigmoid"}, {"residual": True}])
@pytest.mark.parametrize("recompute", [None, 1, 2])
@pytest.mark.parametrize("truncate", [1, 2, 3, 4])
def test_a_truncated_gradient_takes_what_a_window_starts_from_as_constant(
    truncate: int, recompute: int | None, settings: dict[str, Any]
) -> None:
    """States and the frame that is fed back, both: in every sample some window begins with a frame that is fed back.

    A residual model reads that frame twice, in its layers and in its prediction: both ways are cut.
    """
    model, frames = random_model(1, (2, 3), **settings), random_frames(3, 6, 1, 4, 3)
    arrays = dict(model.parameters)
    right, starts = by_hand(model, arrays, frames, SHOWN, truncate, None)
    loss, gradients = model.loss_and_gradients(frames, shown=SHOWN, truncate=truncate, recompute=recompute)
    assert loss == pytest.approx(right, rel=1e-12)
    assert (
        directional_error(lambda p: by_hand(model, p, frames, SHOWN, truncate, starts)[0], arrays, gradients, step=1e-5)
        < 1e-8
    )
    carried = directional_error(lambda p: by_hand(model, p, frames, SHOWN, 9, None)[0], arrays, gradients, step=1e-5)
    assert carried > 1e-4  # the gradient of the loss itself is another


@pytest.mark.parametrize("truncate", [5, 6, 100])
def test_one_window_is_the_whole_gradient(truncate: int) -> None:
    model, frames = make(NextFrame, **RICH), make_frames(N=3, T=6)
    given: dict[str, Any] = {"shown": SHOWN, "draws": Draws(1)}
    assert bits(model, frames, truncate=truncate, **given) == bits(model, frames, **given)
    assert bits(model, frames, truncate=4, **given) != bits(model, frames, **given)
    assert bits(model, frames, truncate=4, **given)[0] == bits(model, frames, **given)[0]  # the loss is the same


@pytest.mark.parametrize("truncate", [1, 2, 3, 4])
@pytest.mark.parametrize("recompute", [1, 2, 3, 50])
def test_recomputation_within_windows_changes_no_bit(truncate: int, recompute: int) -> None:
    model, frames = make(NextFrame, **RICH), make_frames(N=3, T=6)
    given: dict[str, Any] = {"shown": SHOWN, "draws": Draws(1), "truncate": truncate}
    assert bits(model, frames, recompute=recompute, **given) == bits(model, frames, **given)


@pytest.mark.parametrize("context", [1, None])
def test_with_truncation_memory_does_not_grow_with_the_sequence(context: int | None) -> None:
    model = make(NextFrame, (8,), spatial_shape=None)
    short, long = (make_frames(N=1, T=T, side=32) for T in (17, 129))
    model.loss_and_gradients(short)  # what is made once is made now
    short_peak, long_peak = (peak_memory(model, frames, context=context, truncate=4) for frames in (short, long))
    assert long_peak < 1.1 * short_peak
    assert peak_memory(model, long, context=context) > 4 * peak_memory(model, short, context=context)


# Planted faults -------------------------------------------------------------------------------------------------------


def invert_the_mask_backward(model: NextFrame, patch: pytest.MonkeyPatch) -> None:
    backward, inside = model._backward, [False]

    def watched(*arguments: Any, **named: Any) -> Any:
        inside[0] = True
        found = backward(*arguments, **named)
        inside[0] = False
        return found

    def turned(column: Any, backend: Any) -> Any:
        return at_step(~column if inside[0] else column, backend)

    patch.setattr(model, "_backward", watched)
    patch.setattr("convlstm.next_frame.at_step", turned)


def lose_the_feedback(model: NextFrame, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("convlstm.next_frame.stack_backward", lambda *a, **n: stack_backward(*a, **{**n, "to_x": False}))


def lose_the_carry_between_segments(model: NextFrame, patch: pytest.MonkeyPatch) -> None:
    def lost(kept: Any, *arguments: Any, **named: Any) -> Any:
        return stack_backward(kept, *arguments, **named)[0], [(None, None)] * len(kept)

    patch.setattr("convlstm.next_frame.stack_backward", lost)


def swap_the_gradients_of_two_steps(model: NextFrame, patch: pytest.MonkeyPatch) -> None:
    def swapped(kept: Any, dhs: Any, *arguments: Any, **named: Any) -> Any:
        return stack_backward(kept, [*dhs[:-1], dhs[-1][::-1]], *arguments, **named)

    patch.setattr("convlstm.next_frame.stack_backward", swapped)


@pytest.mark.parametrize("batch", ["one by one", "at once"])
@pytest.mark.parametrize(
    "plant",
    [
        invert_the_mask_backward,
        lose_the_feedback,
        lose_the_carry_between_segments,
        swap_the_gradients_of_two_steps,
    ],
)
def test_a_planted_fault_is_seen(plant: Any, batch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps 3 and 4 sample 0 alone is shown frames, or all are; so every kind of segment is there."""
    model, frames = random_model(output="sigmoid"), random_frames(2, 6, 1, 4, 4)
    shown = np.array([[True, True, False, True, True], [True, True, True, False, False]])
    model = at_once(model) if batch == "at once" else model

    def value(arrays: Mapping[str, Array]) -> float:
        model.parameters = dict(arrays)
        return model.loss_and_gradients(frames, shown=shown)[0]

    arrays = dict(model.parameters)
    assert directional_error(value, arrays, model.loss_and_gradients(frames, shown=shown)[1]) < 1e-6
    plant(model, monkeypatch)
    assert directional_error(value, arrays, model.loss_and_gradients(frames, shown=shown)[1]) > 1e-3


# Errors of its own; those of both models are in test_frame_model.py ---------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"shown": np.ones((2, 3), bool), "context": 2}, ValueError, "give context or shown, not both"),
        ({"shown": np.ones((2, 4), bool)}, ValueError, r"shown must have shape \(2, 3\); got \(2, 4\)"),
        ({"shown": np.ones((2, 3))}, TypeError, "shown must be a NumPy array of bool; got float64"),
        ({"shown": [[True] * 3] * 2}, TypeError, "shown must be a NumPy array of bool; got list"),
        (
            {"shown": np.array([[True] * 3, [False, True, True]])}, ValueError,
            "shown must be True for the first frame of every sample",
        ),
        ({"truncate": 0}, ValueError, "truncate must be an integer ≥ 1; got 0"),
        ({"truncate": 2.0}, ValueError, r"truncate must be an integer ≥ 1; got 2\.0"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(given: dict[str, Any], error: type[Exception], said: str) -> None:
    model, frames = random_model(patch=2, K=2), random_frames(2, 4, 1, 4, 6)
    with pytest.raises(error, match=said) as raised:
        model.loss_and_gradients(frames, **given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"layers.0.b": np.zeros(7)}, ValueError, r"parameters\['layers.0.b'\] must have shape \(8,\)"),
        ({"layers.1.b": np.zeros(8)}, KeyError, "missing or unknown: layers.1.b"),
    ],
)
def test_wrong_parameters_are_named(change: dict[str, Array], error: type[Exception], said: str) -> None:
    model = random_model()
    model.parameters.update(change)
    with pytest.raises(error, match=said):
        model.predict(random_frames(1, 2, 1, 4, 4), 1)


def test_wrong_channels_are_named() -> None:
    with pytest.raises(ValueError, match="channels must be an integer ≥ 1"):
        random_model(0)
