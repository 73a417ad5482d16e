"""A read-out that predicts the change: persistence at first, the equations by hand, its gradients, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import EncoderForecaster, NextFrame
from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.dropout import Draws
from convlstm.frame_model import FrameModel
from convlstm.next_frame import After
from convlstm.optimizers import Adam
from tests.frame_models import RICH, bits, loss_of, make, make_frames
from tests.numerical import directional_error, numeric_gradients

KINDS: tuple[type[FrameModel], ...] = (NextFrame, EncoderForecaster)
SAMPLED = np.array([[True, True, False, True], [True, False, True, False]])
VALID = np.random.default_rng(8).random((2, 5, 1, 4, 4)) < 2 / 3
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"residual": True},
    "no bias": {"residual": True, "bias": None, "readout_bias": False},
    "patch": {"residual": True, "patch": 2, "spatial_shape": (2, 2), "kernel_size": 2},
    "everything": {**RICH, "output": "linear", "residual": True},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


# Persistence ----------------------------------------------------------------------------------------------------------


@every_setting
@pytest.mark.parametrize("mean", [None, 0.3, -5.0])
@every_kind
def test_before_training_the_forecast_is_persistence(
    kind: type[FrameModel], mean: float | None, settings: dict[str, Any]
) -> None:
    """To the bit, also after the bias has started from the frames' mean, and from states that are carried on."""
    model = kind(1, (2, 3), **{"spatial_shape": (4, 4), **settings}, backend="numpy", dtype="float64")
    if mean is not None and settings.get("readout_bias", True):
        model.start_from_mean(mean)
    frames = make_frames()
    forecast, states = model.forecast(frames[:, :3], 4)
    np.testing.assert_array_equal(forecast, np.repeat(frames[:, 2:3], 4, axis=1))
    np.testing.assert_array_equal(model.forecast(frames[:, 3:], 4, states)[0], np.repeat(frames[:, 4:], 4, axis=1))


@every_kind
def test_any_layers_under_a_read_out_of_zeros_repeat_the_last_frame(kind: type[FrameModel]) -> None:
    model, frames = make(kind, residual=True), make_frames()
    zeros = {name: np.zeros_like(model.parameters[name]) for name in ("readout.W", "readout.b")}
    model.parameters = {**model.parameters, **zeros}
    np.testing.assert_array_equal(model.predict(frames, 3), np.repeat(frames[:, -1:], 3, axis=1))
    loss, _ = model.loss_and_gradients(frames, 1)
    assert loss == pytest.approx(((frames[:, :1] - frames[:, 1:]) ** 2).mean(), rel=1e-13)


@every_kind
def test_the_mean_of_frames_is_no_change(kind: type[FrameModel]) -> None:
    model = make(kind, residual=True)
    assert model.parameters["readout.b"].any()
    model.start_from_mean(0.4)
    assert not model.parameters["readout.b"].any()
    with pytest.raises(ValueError, match="mean must be a finite number"):
        model.start_from_mean(float("nan"))


@every_setting
@every_kind
def test_every_parameter_learns_from_the_second_step_on(kind: type[FrameModel], settings: dict[str, Any]) -> None:
    """In the first the read-out alone does, since through its zeros nothing comes to the layers."""
    chosen = {"spatial_shape": (4, 4), **settings, "dropout": 0.0, "recurrent_dropout": 0.0}
    model = kind(1, (2, 2), **chosen, backend="numpy", dtype="float64")
    frames, optimizer = make_frames(T=6), Adam(learning_rate=0.01)
    learning = []
    for _ in range(2):
        _, gradients = model.loss_and_gradients(frames, 3)
        learning.append({name for name, gradient in gradients.items() if np.abs(gradient).max() > 0})
        optimizer.step(model.parameters, gradients)
    assert learning == [{name for name in model.parameters if name.startswith("readout.")}, set(model.parameters)]


# The equations --------------------------------------------------------------------------------------------------------


def plain_and_residual(kind: type[FrameModel]) -> tuple[Any, Any]:
    """Return two models of the same parameters."""
    model = make(kind, residual=True)
    plain = make(kind)
    plain.parameters = model.parameters
    return plain, model


def test_next_frame_adds_the_change_to_what_the_step_read() -> None:
    plain, model = plain_and_residual(NextFrame)
    frames, states = make_frames(), None
    x, predicted = frames, []
    for _ in range(4):
        change, states = plain.forecast(x, 1, states)
        x = x[:, -1:] + change
        predicted.append(x)
    np.testing.assert_allclose(model.predict(frames, 4), np.concatenate(predicted, axis=1), rtol=1e-12)


def test_encoder_forecaster_adds_the_change_to_the_last_frame_read() -> None:
    plain, model = plain_and_residual(EncoderForecaster)
    frames = make_frames()
    right = frames[:, -1:] + plain.predict(frames, 4)
    np.testing.assert_allclose(model.predict(frames, 4), right, rtol=1e-12)


@pytest.mark.parametrize("patch", [1, 2])
@every_kind
def test_a_forecast_is_what_training_predicts(kind: type[FrameModel], patch: int) -> None:
    model, frames = make(kind, residual=True, patch=patch, spatial_shape=None, kernel_size=2), make_frames()
    shown = 1 if kind is NextFrame else 3  # where NextFrame's loss reads forecasts alone
    error = (model.predict(frames[:, :shown], 5 - shown) - frames[:, shown:]) ** 2
    assert model.loss_and_gradients(frames, shown)[0] == pytest.approx(error.mean(), rel=1e-13)
    valid = VALID[:, shown:]
    assert model.loss_and_gradients(frames, shown, valid=VALID)[0] == pytest.approx(error[valid].mean(), rel=1e-13)


# Gradients ------------------------------------------------------------------------------------------------------------

GIVEN: dict[str, tuple[tuple[type[FrameModel], ...], dict[str, Any]]] = {
    "one frame to predict": (KINDS, {}),
    "context": (KINDS, {"context": 2}),
    "bce": (KINDS, {"context": 3, "loss": "bce"}),
    "one frame shown": ((NextFrame,), {"context": 1}),
    "mae": (KINDS, {"context": 2, "loss": "mae"}),
    "recompute, valid": (KINDS, {"context": 2, "recompute": 2, "valid": VALID}),
    "sampled": ((NextFrame,), {"shown": SAMPLED}),
    "sampled, recompute, valid": ((NextFrame,), {"shown": SAMPLED, "recompute": 3, "valid": VALID}),
}
CASES = [
    pytest.param(kind, settings, given, id=f"{kind.__name__}, {name}, {which}")
    for name, settings in SETTINGS.items()
    for which, (kinds, given) in GIVEN.items()
    for kind in kinds
]


@pytest.mark.parametrize(("kind", "settings", "given"), CASES)
def test_every_parameter_learns_and_rightly(
    kind: type[FrameModel], settings: dict[str, Any], given: dict[str, Any]
) -> None:
    model, frames, given = make(kind, **settings), make_frames(), {"draws": Draws(3), **given}
    _, gradients = model.loss_and_gradients(frames, **given)
    assert [name for name, gradient in gradients.items() if not np.abs(gradient).max() > 0] == []
    assert directional_error(loss_of(model, frames, given), model.parameters, gradients, step=1e-5) < 1e-6


@pytest.mark.parametrize("loss", ["mse", "mae"])
@every_kind
def test_every_element(kind: type[FrameModel], loss: str) -> None:
    model, frames = make(kind, (1,), residual=True, kernel_size=(1, 2)), make_frames(side=3)
    given, arrays = {"context": 2, "loss": loss}, dict(model.parameters)
    _, gradients = model.loss_and_gradients(frames, **given)
    for name, right in numeric_gradients(loss_of(model, frames, given), arrays).items():
        np.testing.assert_allclose(gradients[name], right, rtol=1e-6, atol=1e-9, err_msg=name)


class WholeBatch(NumpyBackend):
    """Hands over the whole batch at once, as CuPy does."""

    def map_samples(self, work: Any, samples: int, column_elements: int) -> list[Any]:
        return super().map_samples(lambda _: work(slice(0, samples)), 1, column_elements)


@pytest.mark.parametrize("truncate", [None, 1, 2])
def test_a_batch_with_mixed_frames_agrees_with_its_samples(truncate: int | None) -> None:
    model, frames = make(NextFrame, **SETTINGS["everything"]), make_frames()
    given: dict[str, Any] = {"draws": Draws(1), "shown": SAMPLED, "valid": VALID, "truncate": truncate}
    loss, gradients = model.loss_and_gradients(frames, **given)
    model.backend = WholeBatch(1)
    together, gradients_together = model.loss_and_gradients(frames, **given)
    assert together == pytest.approx(loss, rel=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_together[name], gradient, rtol=1e-11, atol=1e-13, err_msg=name)


# Planted faults -------------------------------------------------------------------------------------------------------


def lose_the_direct_term(model: Any, patch: pytest.MonkeyPatch) -> None:
    """The gradient to what was fed comes through the layers alone."""
    patch.setattr(model, "_backward", with_another(model, lambda direct, there: 0 * direct))


def count_it_twice(model: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model, "_backward", with_another(model, lambda direct, there: np.where(there, 0, 2 * direct)))


def give_it_to_true_frames_too(model: Any, patch: pytest.MonkeyPatch) -> None:
    """A prediction that was not fed back gets it as well."""
    patch.setattr(model, "_backward", with_another(model, lambda direct, there: direct))


def with_another(model: Any, put: Any) -> Any:
    """Return a backward whose direct term is what `put` makes of δz and of which samples were shown the frame."""
    right = model._backward

    def backward(task: Any, segment: Any, after: After, sums: Any, *, first: int) -> After:
        model.residual = False
        found = right(task, segment, after, sums, first=first)
        model.residual = True
        if found.dfed is None:
            return found  # type: ignore[no-any-return]
        dz = model._loss_gradient(segment.zs[0], segment.steps.start + 1, sums.goal)
        dz = dz if after.dfed is None else dz + after.dfed
        there = task.shown[:, segment.steps.start][:, None, None, None]
        return After(found.dstates, found.dfed + put(dz, there))

    return backward


def forget_the_frame(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Only forwards within training: what is compared with the targets is the change."""
    right = model._loss_gradient
    patch.setattr(model, "_loss_gradient", lambda z, t, goal: right(z - goal.frame(t - 1), t, goal))


@pytest.mark.parametrize("plant", [lose_the_direct_term, count_it_twice, give_it_to_true_frames_too, forget_the_frame])
def test_a_planted_fault_is_seen(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole batch at once, so that true frames and predictions meet in one step."""
    model, frames, given = make(NextFrame, residual=True), make_frames(), {"shown": SAMPLED}
    model.backend = WholeBatch(1)
    value, arrays = loss_of(model, frames, given), model.parameters
    assert directional_error(value, arrays, model.loss_and_gradients(frames, **given)[1]) < 1e-6
    plant(model, monkeypatch)
    assert directional_error(value, arrays, model.loss_and_gradients(frames, **given)[1]) > 1e-3


def test_the_first_frame_for_the_last_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder–forecaster's frame T is data, so that a gradient check cannot see another in its place."""
    right = EncoderForecaster._forecaster_backward

    def wrong(self: Any, kept: Any, end: int, goal: Any, x: Array, *more: Any) -> Any:
        return right(self, kept, end, goal, goal.frame(0), *more)

    monkeypatch.setattr(EncoderForecaster, "_forecaster_backward", wrong)
    with pytest.raises(AssertionError):
        test_a_forecast_is_what_training_predicts(EncoderForecaster, 1)


# The same bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [1, 2, 3, 50])
@every_kind
def test_recomputation_changes_no_bit(kind: type[FrameModel], recompute: int) -> None:
    model, frames = make(kind, **SETTINGS["everything"]), make_frames(T=7)
    for context in (1, 3, 6):
        given: dict[str, Any] = {"context": context, "draws": Draws(1)}
        for cut in ({}, {"truncate": 2}) if kind is NextFrame else ({},):
            assert bits(model, frames, **given, **cut, recompute=recompute) == bits(model, frames, **given, **cut)


@every_kind
def test_threads_change_no_bit(kind: type[FrameModel]) -> None:
    model, frames = make(kind, **SETTINGS["everything"]), make_frames(N=5)
    given: dict[str, Any] = {"context": 2, "draws": Draws(1)}
    one = bits(model, frames, **given), model.predict(frames, 3).tobytes()
    for threads in (2, 3):
        model.backend = NumpyBackend(threads)
        for layer in model.layers:
            layer.backend = model.backend
        assert (bits(model, frames, **given), model.predict(frames, 3).tobytes()) == one


@pytest.mark.parametrize("cuts", [[1], [4], [2, 3], [1, 2, 3, 4]])
@every_kind
def test_a_sequence_in_parts_is_forecast_to_the_same_bits(kind: type[FrameModel], cuts: list[int]) -> None:
    model, frames = make(kind, **SETTINGS["everything"]), make_frames(N=3)
    whole, last = model.forecast(frames, 4)
    states = None
    for part in np.split(frames, cuts, axis=1):
        forecast, states = model.forecast(np.ascontiguousarray(part), 4, states)
    assert forecast.tobytes() == whole.tobytes()
    assert [a.tobytes() for pair in states or () for a in pair] == [a.tobytes() for pair in last for a in pair]


def test_shown_says_what_context_says() -> None:
    model, frames = make(NextFrame, **SETTINGS["everything"]), make_frames(N=3)
    shown = np.arange(4) < np.full((3, 1), 2)
    assert bits(model, frames, shown=shown, truncate=2) == bits(model, frames, context=2, truncate=2)


@every_kind
def test_on_a_device(cupy: Any, kind: Any) -> None:
    settings: dict[str, Any] = {"residual": True, "patch": 2, "dtype": "float64"}
    on_host = make(kind, **settings, spatial_shape=None, kernel_size=2)
    frames, given = make_frames(), {"shown": SAMPLED} if kind is NextFrame else {"context": 3}
    right_loss, right = on_host.loss_and_gradients(frames, **given)
    model = kind(1, (2, 3), 2, **settings, backend="cupy")
    there, back = model.backend.asarray, model.backend.to_numpy
    assert not back(model.parameters["readout.W"]).any()
    model.parameters = {name: there(array) for name, array in on_host.parameters.items()}
    loss, gradients = model.loss_and_gradients(there(frames), **given)
    assert loss == pytest.approx(right_loss, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(back(gradient), right[name], rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(back(model.predict(there(frames), 3)), on_host.predict(frames, 3), rtol=1e-11)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"residual": True, "output": "sigmoid"}, "residual=True needs output=\"linear\".*; got output='sigmoid'"),
        ({"residual": 1}, "residual must be True or False; got 1"),
        ({"residual": None}, "residual must be True or False; got None"),
    ],
)
@every_kind
def test_wrong_settings_are_named(kind: type[FrameModel], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(1, (2,), backend="numpy", **settings)
