"""Elements that do not count: a mean over the others, to the bit, whatever stands there; in both models of frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convlstm import EncoderForecaster, NextFrame, frame_model
from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.dropout import Draws
from convlstm.frame_model import FrameModel, Goal
from convlstm.losses import LOSSES, LossName
from convlstm.patches import fold
from tests.frame_models import RICH, bits, loss_of, make, make_frames
from tests.numerical import directional_error, freeze, numeric_gradients

KINDS: tuple[type[FrameModel], ...] = (NextFrame, EncoderForecaster)
FIRST = {NextFrame: 1, EncoderForecaster: 2}  # of the frames to predict, where two are shown
SAMPLED = np.array([[True, True, False, True], [True, False, True, False]])
OUTSIDE = [3e38, -3e38, np.inf, np.nan]


def make_valid(N: int = 2, T: int = 5, side: int = 4, seed: int = 8) -> Any:
    """Return which elements count, two of three; all of frame 3, none of frame 4 of sample 0."""
    valid = np.random.default_rng(seed).random((N, T, 1, side, side)) < 2 / 3
    valid[:, 3], valid[0, 4] = True, False
    freeze(valid)
    return valid


GIVEN: dict[str, tuple[tuple[type[FrameModel], ...], dict[str, Any]]] = {
    "context": (KINDS, {"context": 2}),
    "recompute": (KINDS, {"context": 2, "recompute": 2}),
    "all shown": ((NextFrame,), {}),
    "sampled": ((NextFrame,), {"shown": SAMPLED}),
    "sampled, recompute": ((NextFrame,), {"shown": SAMPLED, "recompute": 3}),
    "truncate": ((NextFrame,), {"shown": SAMPLED, "truncate": 2, "recompute": 1}),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "linear": {},
    "sigmoid, patch": {"output": "sigmoid", "patch": 2, "spatial_shape": (2, 2), "kernel_size": 2},
    "everything": RICH,
}
CASES = [
    pytest.param(kind, settings, given, id=f"{kind.__name__}, {name}, {which}")
    for name, settings in SETTINGS.items()
    for which, (kinds, given) in GIVEN.items()
    for kind in kinds
]
every_case = pytest.mark.parametrize(("kind", "settings", "given"), CASES)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_loss = pytest.mark.parametrize("loss", LOSSES)


# The mean over what counts --------------------------------------------------------------------------------------------


def terms(loss: LossName, predicted: Array, y: Array) -> Array:
    """Return each element's loss as textbooks write it, from frames within 0 … 1."""
    each: dict[LossName, Array] = {
        "mse": (predicted - y) ** 2,
        "mae": abs(predicted - y),
        "bce": -(y * np.log(predicted) + (1 - y) * np.log(1 - predicted)),
    }
    return each[loss]


@every_loss
@pytest.mark.parametrize("patch", [1, 2])
@every_kind
def test_the_loss_is_the_mean_of_what_counts(kind: type[FrameModel], patch: int, loss: LossName) -> None:
    model = make(kind, output="sigmoid", patch=patch, spatial_shape=None, kernel_size=2)
    frames, valid = make_frames(), make_valid()
    context = 1 if kind is NextFrame else 2  # where the loss reads forecasts alone
    each = terms(loss, model.predict(frames[:, :context], 5 - context), frames[:, context:])
    found, _ = model.loss_and_gradients(frames, context, loss, valid=valid)
    assert found == pytest.approx(each[valid[:, context:]].mean(), rel=1e-12)
    assert found != pytest.approx(each.mean(), rel=1e-5)


@every_loss
@every_case
def test_gradients(kind: type[FrameModel], settings: dict[str, Any], given: dict[str, Any], loss: LossName) -> None:
    """What counts and what does not make up the whole: S_a g_a + S_b g_b = S g; and each is the gradient of its loss.

    The first holds with truncation too, whose gradient is not that of the loss.
    """
    model, frames, valid = make(kind, **settings), make_frames(), make_valid()
    given = {"draws": Draws(3), "loss": loss, **given}
    _, gradients = model.loss_and_gradients(frames, valid=valid, **given)
    _, others = model.loss_and_gradients(frames, valid=~valid, **given)
    _, whole = model.loss_and_gradients(frames, **given)
    counted, all_of_them = int(valid[:, FIRST[kind] :].sum()), valid[:, FIRST[kind] :].size
    for name, right in whole.items():
        both = counted * gradients[name] + (all_of_them - counted) * others[name]
        np.testing.assert_allclose(both, all_of_them * right, rtol=1e-9, atol=1e-11, err_msg=name)
    if "truncate" not in given:
        value = loss_of(model, frames, {**given, "valid": valid})
        assert directional_error(value, model.parameters, gradients, step=1e-5) < 1e-6


@every_loss
@every_kind
def test_every_element(kind: type[FrameModel], loss: LossName) -> None:
    model = make(kind, (1,), output="sigmoid", kernel_size=(1, 2))
    frames, valid = make_frames(side=3), make_valid(side=3)
    given: dict[str, Any] = {"context": 2, "loss": loss, "valid": valid}
    _, gradients = model.loss_and_gradients(frames, **given)
    arrays = dict(model.parameters)
    for name, right in numeric_gradients(loss_of(model, frames, given), arrays).items():
        assert np.abs(right).max() > 0, f"{name} is not read"
        np.testing.assert_allclose(gradients[name], right, rtol=1e-6, atol=1e-9, err_msg=name)


@every_kind
def test_a_batch_is_the_sum_of_its_samples_by_what_counts_in_each(kind: type[FrameModel]) -> None:
    """A sample without any such element adds nothing."""
    model, frames, valid = make(kind, **RICH), make_frames(N=4), np.array(make_valid(N=4))
    valid[1] = False
    counts = valid[:, FIRST[kind] :].sum(axis=(1, 2, 3, 4))
    loss, gradients = model.loss_and_gradients(frames, 2, valid=valid, draws=Draws(1))
    one_by_one = [
        model.loss_and_gradients(frames[n : n + 1], 2, valid=valid[n : n + 1], draws=Draws(1, first=n))
        for n in (0, 2, 3)
    ]
    share = counts[[0, 2, 3]] / counts.sum()
    assert loss == pytest.approx(sum(s * value for s, (value, _) in zip(share, one_by_one, strict=True)), rel=1e-12)
    for name, gradient in gradients.items():
        right = sum(s * g[name] for s, (_, g) in zip(share, one_by_one, strict=True))
        np.testing.assert_allclose(gradient, right, rtol=1e-9, atol=1e-13, err_msg=name)


# The same bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mae", "bce"])  # of frames, and of logits
@every_case
def test_all_true_is_none(kind: type[FrameModel], settings: dict[str, Any], given: dict[str, Any], loss: Any) -> None:
    """What it says of frames that are not predicted is not read."""
    model, frames = make(kind, **settings), make_frames()
    given = {"draws": Draws(3), "loss": loss, **given}
    valid = np.ones(frames.shape, bool)
    right = bits(model, frames, **given)
    assert bits(model, frames, valid=valid, **given) == right
    valid[:, : FIRST[kind]] = False
    assert bits(model, frames, valid=valid, **given) == right
    valid[0, -1, 0, 0, 0] = False
    assert bits(model, frames, valid=valid, **given) != right


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outside", OUTSIDE)
@every_loss
@every_kind
def test_what_stands_where_nothing_counts_changes_no_bit(
    kind: type[FrameModel], loss: LossName, outside: float, dtype: str
) -> None:
    """No frame that is predicted is read here; (3e38)² overflows in float32, which would be a warning."""
    model, frames, valid = make(kind, dtype=dtype, output="sigmoid"), make_frames().astype(dtype), make_valid()
    model.parameters = {name: array.astype(dtype) for name, array in model.parameters.items()}
    context = 1 if kind is NextFrame else 2
    other = np.where(valid, frames, np.array(outside, dtype))
    other[:, :context] = frames[:, :context]
    given: dict[str, Any] = {"context": context, "loss": loss, "valid": valid}
    found = bits(model, other, **given)
    assert found == bits(model, frames, **given)
    assert np.isfinite(float.fromhex(found[0]))


@every_kind
def test_what_is_read_is_read_whole(kind: type[FrameModel]) -> None:
    model, frames, valid = make(kind), make_frames(), make_valid()
    other = np.array(frames)
    other[:, 0] = np.where(valid[:, 0], frames[:, 0], 2)
    assert bits(model, other, context=2, valid=valid) != bits(model, frames, context=2, valid=valid)


@every_kind
def test_neither_threads_nor_chunks_nor_the_order_of_memory_change_a_bit(kind: type[FrameModel]) -> None:
    model, frames, valid = make(kind, **RICH), make_frames(N=5), make_valid(N=5)
    given: dict[str, Any] = {"context": 2, "draws": Draws(1), "loss": "mae"}
    right = bits(model, frames, valid=valid, **given)
    turned = np.moveaxis(np.ascontiguousarray(np.moveaxis(valid, 1, -1)), -1, 1)
    assert bits(model, frames, valid=turned, recompute=1, **given) == right
    for threads in (2, 3):
        model.backend = NumpyBackend(threads)
        for layer in model.layers:
            layer.backend = model.backend
        assert bits(model, frames, valid=valid, **given) == right


@pytest.mark.parametrize("given", [{"context": 2, "loss": "bce"}, {"context": 2, "loss": "mse", "recompute": 1}])
@every_kind
def test_on_a_device_the_batch_at_once(cupy: Any, kind: Any, given: dict[str, Any]) -> None:
    """The mask stays on the host, and a part's is moved."""
    frames, valid = make_frames(N=3), make_valid(N=3)
    on_host = make(kind, patch=2, spatial_shape=None, kernel_size=2)
    right_loss, right = on_host.loss_and_gradients(frames, valid=valid, **given)
    model = kind(1, (2, 3), 2, patch=2, dtype="float64", backend="cupy")
    there = model.backend.asarray
    model.parameters = {name: there(array) for name, array in on_host.parameters.items()}
    loss, gradients = model.loss_and_gradients(there(frames), valid=valid, **given)
    assert loss == pytest.approx(right_loss, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(model.backend.to_numpy(gradient), right[name], rtol=1e-9, atol=1e-12, err_msg=name)


# Faults ---------------------------------------------------------------------------------------------------------------

Fault = Callable[[Goal], Goal]
BACKWARD: dict[str, Fault] = {
    "every element counts": lambda goal: goal._replace(valid=lambda t: None),
    "divided by all elements": lambda goal: goal._replace(scale=1 / 128),
    "the mask of the step before": lambda goal: goal._replace(valid=lambda t: goal.valid(t - 1)),
    "the mask turned around": lambda goal: goal._replace(valid=lambda t: _turned(goal.valid(t))),
}


def _turned(valid: Array | None) -> Array | None:
    return None if valid is None else ~valid


@pytest.mark.parametrize("fault", BACKWARD.values(), ids=BACKWARD)
@every_kind
def test_a_fault_of_the_backward_alone_is_seen(
    kind: type[FrameModel], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, frames, given = make(kind), make_frames(), {"context": 2, "valid": make_valid()}
    value, arrays, right = loss_of(model, frames, given), model.parameters, model._loss_gradient
    assert directional_error(value, arrays, model.loss_and_gradients(frames, **given)[1]) < 1e-6
    monkeypatch.setattr(model, "_loss_gradient", lambda z, t, goal: right(z, t, fault(goal)))
    assert directional_error(value, arrays, model.loss_and_gradients(frames, **given)[1]) > 1e-3


@every_kind
def test_a_mask_that_is_not_folded_as_frames_are_is_seen(
    kind: type[FrameModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradient agree on the wrong pixels: only the plain mean shows it."""

    def wrong(array: Array, P: int) -> Array:
        folded = fold(array, P)
        return array.reshape(folded.shape) if array.dtype == np.bool_ else folded

    monkeypatch.setattr(frame_model, "fold", wrong)
    with pytest.raises(AssertionError):
        test_the_loss_is_the_mean_of_what_counts(kind, 2, "mse")


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("valid", "error", "said"),
    [
        ([[True]], TypeError, "valid must be a NumPy array of bool; got list"),
        (np.ones((2, 5, 1, 4, 4)), TypeError, "valid must be a NumPy array of bool; got float64"),
        (np.ones((2, 5), bool), ValueError, r"valid must have shape \(2, 5, 1, 4, 4\); got \(2, 5\)"),
        (np.zeros((2, 5, 1, 4, 4), bool), ValueError, "valid is False throughout the frames to predict, . … 4: there"),
        (np.arange(5)[None, :, None, None, None] < np.ones((2, 1, 1, 4, 4)), ValueError, "valid is False throughout"),
    ],
)
@every_kind
def test_wrong_masks_are_named(kind: type[FrameModel], valid: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        make(kind).loss_and_gradients(make_frames(), 2, valid=valid)
    assert "\n" not in str(raised.value)


@every_kind
def test_cross_entropy_asks_for_targets_that_count_between_0_and_1(kind: type[FrameModel]) -> None:
    """What is read may be anything."""
    model, frames, valid = make(kind), np.array(make_frames()), np.array(make_valid())
    frames[:, 0], valid[0, 2, 0, 1, 1] = 7, False
    assert model.loss_and_gradients(frames, 2, "bce")[0] > 0
    frames[0, 2, 0, 1, 1] = -3
    with pytest.raises(ValueError, match=r"loss 'bce' needs frames within 0 … 1; they lie within -3 … 0\.9"):
        model.loss_and_gradients(frames, 2, "bce")
    assert model.loss_and_gradients(frames, 2, "bce", valid=valid)[0] > 0
    frames[0, 3, 0, 1, 1] = 1.5
    with pytest.raises(ValueError, match=r"loss 'bce' needs frames within 0 … 1; they lie within 0.0\d+ … 1.5"):
        model.loss_and_gradients(frames, 2, "bce", valid=valid)
