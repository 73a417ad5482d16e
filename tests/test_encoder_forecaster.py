"""`EncoderForecaster`: against public layers put together by hand, and faults that its gradients would show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, EncoderForecaster, encoder_forecaster
from convlstm.backends import Array
from convlstm.dropout import Draws
from convlstm.patches import fold, unfold
from convlstm.stack import stack_backward
from tests.frame_models import loss_of, make, make_frames
from tests.numerical import directional_error


def by_hand(
    model: EncoderForecaster, frames: Array, horizon: int, draws: Draws | None = None
) -> tuple[Array, list[Any]]:
    """Return the forecast and the encoder's last states, from layers that know of no model."""
    settings: dict[str, Any] = {"bias": "pixel", "peephole": "channel", "spatial_shape": (4, 4), "dtype": "float64"}
    settings |= {"dropout": model.layers[0].dropout, "recurrent_dropout": model.layers[0].recurrent_dropout}

    def layer(name: str, below: int | None, C: int) -> ConvLSTM:
        made = ConvLSTM(below, C, 3, backend="numpy", name=name, **settings)
        made.parameters = {key: model.parameters[f"{name}{key}"] for key in made.parameters}
        return made

    hidden = [each.hidden_channels for each in model.layers[: len(model.layers) // 2]]
    x, states, maps = fold(frames, model.patch), [], []
    for index, C in enumerate(hidden):
        x, state, _ = layer(f"encoder.{index}.", x.shape[2], C).forward(x, draws=draws)
        states.append(state)
    h = np.zeros((len(frames), horizon, 0, 4, 4))
    for index, C in enumerate(hidden):
        h, _, _ = layer(f"forecaster.{index}.", h.shape[2] or None, C).forward(h, states[index], draws=draws)
        maps.append(h)
    W, b = model.parameters["readout.W"][:, :, 0, 0], model.parameters["readout.b"]
    z = np.einsum("dc,nkchw->nkdhw", W, np.concatenate(maps, axis=2)) + b[:, None, None]
    return unfold(1 / (1 + np.exp(-z)) if model.output == "sigmoid" else z, model.patch), states


@pytest.mark.parametrize("hidden", [(3,), (2, 3), (2, 3, 1)])
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_it_is_two_stacks_of_public_layers(output: str, patch: int, hidden: tuple[int, ...]) -> None:
    model = make(EncoderForecaster, hidden, output=output, patch=patch, bias="pixel", peephole="channel")
    frames = make_frames(N=2, T=7, side=4 * patch)
    right, states = by_hand(model, frames[:, :4], 3)
    found, found_states = model.forecast(frames[:, :4], 3)
    np.testing.assert_allclose(found, right, rtol=1e-12)
    for pair, right_pair in zip(found_states, states, strict=True):
        for array, right_array in zip(pair, right_pair, strict=True):
            np.testing.assert_allclose(array, right_array, rtol=1e-12)
    loss, _ = model.loss_and_gradients(frames, 4)
    assert loss == pytest.approx(((right - frames[:, 4:]) ** 2).mean(), rel=1e-12)


def test_each_layer_drops_what_it_drops_alone() -> None:
    """In training: the masks are those of a layer of the same name, in the encoder and in the forecaster."""
    model = make(EncoderForecaster, (2, 2), bias="pixel", peephole="channel", dropout=0.4, recurrent_dropout=0.3)
    frames, draws = make_frames(N=2, T=7), Draws(1, step=2, first=3)
    right, _ = by_hand(model, frames[:, :4], 3, draws)
    loss, _ = model.loss_and_gradients(frames, 4, draws=draws)
    assert loss == pytest.approx(((right - frames[:, 4:]) ** 2).mean(), rel=1e-12)


def test_layers_stand_in_the_order_of_a_step() -> None:
    model = make(EncoderForecaster, (2, 3, 1))
    assert [layer.name for layer in model.layers] == [
        f"{stack}.{k}." for stack in ("encoder", "forecaster") for k in range(3)
    ]
    assert [layer.in_channels for layer in model.layers] == [1, 2, 3, 0, 2, 3]
    assert "forecaster.0.W_x" not in model.parameters
    assert model.parameters["readout.W"].shape == (1, 6, 1, 1)


def test_both_stacks_start_differently() -> None:
    model = EncoderForecaster(1, (2, 2), backend="numpy")
    names = [f"{stack}.{k}.W_h" for stack in ("encoder", "forecaster") for k in range(2)]
    assert len({model.parameters[name].tobytes() for name in names}) == 4


def test_the_loss_does_not_read_what_is_predicted_of_the_context() -> None:
    """Nothing is predicted there: only the encoder reads it."""
    model, frames = make(EncoderForecaster), make_frames(T=6)
    other = np.array(frames)
    other[:, 4:] = 1 - other[:, 4:]
    (one, one_states), (two, two_states) = (model.forecast(given[:, :4], 2) for given in (frames, other))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one_states[0][0], two_states[0][0])
    assert model.loss_and_gradients(frames, 4)[0] != model.loss_and_gradients(other, 4)[0]


def test_truncation_and_sampling_are_no_arguments() -> None:
    """Nothing is fed back, and a forecast has no steps with a loss of their own before it."""
    model: Any = make(EncoderForecaster)
    for name in ("truncate", "shown"):
        with pytest.raises(TypeError, match=name):
            model.loss_and_gradients(make_frames(), 2, **{name: 2})


# Planted faults -------------------------------------------------------------------------------------------------------


def lose_the_encoder(patch: pytest.MonkeyPatch) -> None:
    """What reaches the forecaster's first states does not go on."""
    change_backward(patch, lambda dstates: [(None, None)] * len(dstates), of_forecaster=True)


def cross_the_layers(patch: pytest.MonkeyPatch) -> None:
    change_backward(patch, lambda dstates: dstates[::-1], of_forecaster=True)


def lose_the_cells(patch: pytest.MonkeyPatch) -> None:
    change_backward(patch, lambda dstates: [(dh, None) for dh, _ in dstates], of_forecaster=True)


def lose_the_carry_within_the_encoder(patch: pytest.MonkeyPatch) -> None:
    change_backward(patch, lambda dstates: [(None, None)] * len(dstates), of_forecaster=False)


def change_backward(patch: pytest.MonkeyPatch, change: Any, *, of_forecaster: bool) -> None:
    def changed(kept: Any, dhs: Any, *arguments: Any, **named: Any) -> Any:
        dxs, dstates = stack_backward(kept, dhs, *arguments, **named)
        return dxs, change(dstates) if (dhs[0] is not None) == of_forecaster else dstates

    patch.setattr("convlstm.encoder_forecaster.stack_backward", changed)


def split_in_the_wrong_order(patch: pytest.MonkeyPatch) -> None:
    real = encoder_forecaster._split
    patch.setattr(encoder_forecaster, "_split", lambda dh, like: real(dh, like)[::-1])


def read_the_last_layer_alone(patch: pytest.MonkeyPatch) -> None:
    real = encoder_forecaster._split
    patch.setattr(
        encoder_forecaster, "_split", lambda dh, like: [0 * d for d in real(dh, like)[:-1]] + real(dh, like)[-1:]
    )


def turn_the_steps_around(patch: pytest.MonkeyPatch) -> None:
    def turned(kept: Any, dhs: Any, *arguments: Any, **named: Any) -> Any:
        return stack_backward(kept, [None if dh is None else dh[::-1] for dh in dhs], *arguments, **named)

    patch.setattr("convlstm.encoder_forecaster.stack_backward", turned)


@pytest.mark.parametrize(
    "plant",
    [
        lose_the_encoder,
        cross_the_layers,
        lose_the_cells,
        lose_the_carry_within_the_encoder,
        split_in_the_wrong_order,
        read_the_last_layer_alone,
        turn_the_steps_around,
    ],
)
def test_a_planted_fault_is_seen(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames, given = make(EncoderForecaster, (2, 2)), make_frames(T=6), {"context": 3, "recompute": 2}
    loss, arrays = loss_of(model, frames, given), model.parameters
    assert directional_error(loss, arrays, model.loss_and_gradients(frames, **given)[1]) < 1e-6
    plant(monkeypatch)
    assert directional_error(loss, arrays, model.loss_and_gradients(frames, **given)[1]) > 1e-3
