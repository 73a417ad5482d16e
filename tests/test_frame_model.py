"""What both models of frames promise: sizes, gradients of every variant, the same bits however steps are taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import EncoderForecaster, NextFrame, check_gradients
from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.dropout import Draws
from convlstm.frame_model import FrameModel
from tests.frame_models import DROPPING, RICH, bits, loss_of, make, make_frames, peak_memory
from tests.numerical import directional_error, freeze

KINDS: tuple[type[FrameModel], ...] = (NextFrame, EncoderForecaster)
SAMPLED = np.array([[True, True, False, True], [True, False, True, False]])


# Sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden", "kernels", "parameters"),
    [
        ((128, 64, 64), (5, None), 7_585_296),
        ((128, 128), (5, None), 10_042_896),
        ((256,), (5, None), 13_524_496),
        ((128, 128), (9, 1), 11_550_224),
    ],
)
def test_the_papers_models_have_as_many_parameters_as_there(
    hidden: tuple[int, ...], kernels: tuple[int, int | None], parameters: int
) -> None:
    """Shi et al. 2015, table 1 (7.59, 10.04, 13.52 and 11.55 million), on 64×64 frames in patches of 4×4."""
    K, recurrent = kernels
    model = EncoderForecaster(
        1, hidden, K, recurrent_kernel_size=recurrent, patch=4, peephole="channel", backend="numpy"
    )
    assert sum(array.size for array in model.parameters.values()) == parameters


def test_the_openstl_model_has_as_many_parameters_as_there() -> None:
    model = NextFrame(1, (128,) * 4, 5, patch=4, bias=None, readout_bias=False, backend="numpy")
    assert sum(array.size for array in model.parameters.values()) == 11_675_648


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_the_settings_that_are_asked_for(kind: type[FrameModel]) -> None:
    asked: dict[str, Any] = {"peephole": "channel", "layer_norm": "channel", "dropout": 0.1, "recurrent_dropout": 0.2}
    model = kind(1, (2, 3), (3, 4), recurrent_kernel_size=(1, 2), forget_bias=-2.5, backend="numpy", **asked)
    for layer in model.layers:
        assert {name: getattr(layer, name) for name in asked} == asked
        assert (layer.kernel_size, layer.recurrent_kernel_size) == ((3, 4), (1, 2))
        C = layer.hidden_channels
        assert model.parameters[f"{layer.name}b"][C : 2 * C].tolist() == [-2.5] * C
    other = kind(1, (2, 3), seed=1, backend="numpy").parameters
    assert not np.array_equal(other["readout.W"], kind(1, (2, 3), seed=2, backend="numpy").parameters["readout.W"])


@pytest.mark.parametrize(("kind", "read"), [(NextFrame, 48), (EncoderForecaster, 64)])
def test_the_read_out_starts_uniform_by_its_fan_in(kind: type[FrameModel], read: int) -> None:
    model = kind(1, (16, 48), patch=8, backend="numpy")
    W = model.parameters["readout.W"]
    assert W.shape == (64, read, 1, 1)
    assert 0.99 / read**0.5 < np.abs(W).max() <= 1 / read**0.5
    assert abs(W.mean()) < 0.05 / read**0.5
    assert not model.parameters["readout.b"].any()


FULL_SIZE: dict[str, tuple[type[FrameModel], tuple[int, ...], dict[str, Any]]] = {
    "OpenSTL": (NextFrame, (128,) * 4, {"bias": None, "readout_bias": False}),
    "Shi": (EncoderForecaster, (128, 64, 64), {"peephole": "channel"}),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_every_array_of_a_model_of_full_size_learns(name: str) -> None:
    """From the initial parameters, where every peephole is 0; the encoder needs two frames to have a state before."""
    kind, hidden, settings = FULL_SIZE[name]
    model = kind(1, hidden, 5, patch=4, backend="numpy", **settings)
    frames = np.random.default_rng(0).random((1, 4, 1, 64, 64), dtype=np.float32)
    _, gradients = model.loss_and_gradients(frames, 2)
    assert [key for key, gradient in gradients.items() if not np.abs(gradient).max() > 0] == []
    assert all(gradient.dtype == np.float32 and np.isfinite(gradient).all() for gradient in gradients.values())


# Gradients ------------------------------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "peephole channel": {"peephole": "channel", "output": "sigmoid"},
    "peephole pixel": {"peephole": "pixel", "bias": "pixel"},
    "no bias": {"bias": None, "readout_bias": False, "forget_bias": 1.0},
    "layer norm": {"layer_norm": "channel"},
    "layer norm pixel": {"layer_norm": "pixel", "peephole": "channel", "bias": None},
    "dropout": DROPPING,
    "patch": {"patch": 2, "spatial_shape": (2, 2), "kernel_size": 2, "recurrent_kernel_size": 1},
    "everything": RICH,
}
GIVEN: dict[str, tuple[tuple[type[FrameModel], ...], dict[str, Any]]] = {
    "one frame to predict": (KINDS, {}),
    "context": (KINDS, {"context": 2}),
    "bce": (KINDS, {"context": 3, "loss": "bce"}),
    "mae": (KINDS, {"context": 2, "loss": "mae"}),
    "recompute": (KINDS, {"context": 2, "recompute": 2}),
    "sampled": ((NextFrame,), {"shown": SAMPLED}),
    "sampled, recompute": ((NextFrame,), {"shown": SAMPLED, "recompute": 3}),
}
CASES = [
    pytest.param(kind, SETTINGS[settings], given, id=f"{kind.__name__}, {settings}, {name}")
    for settings in SETTINGS
    for name, (kinds, given) in GIVEN.items()
    for kind in kinds
]


@pytest.mark.parametrize(("kind", "settings", "given"), CASES)
def test_every_parameter_learns_and_rightly(
    kind: type[FrameModel], settings: dict[str, Any], given: dict[str, Any]
) -> None:
    """One random direction through all parameters at once sees a wrong number anywhere."""
    model, frames, given = make(kind, **settings), make_frames(), {"draws": Draws(3), **given}
    loss = loss_of(model, frames, given)
    arrays = model.parameters
    _, gradients = model.loss_and_gradients(frames, **given)
    assert gradients.keys() == arrays.keys()
    assert [name for name, gradient in gradients.items() if not np.abs(gradient).max() > 0] == []
    assert directional_error(loss, arrays, gradients, step=1e-5) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_every_parameter_learns_from_its_initial_value(kind: type[FrameModel], settings: str) -> None:
    """Peepholes and biases start at 0: their gradients must not."""
    model = kind(1, (2, 2), dtype="float64", backend="numpy", **{"spatial_shape": (4, 4), **SETTINGS[settings]})
    _, gradients = model.loss_and_gradients(make_frames(T=6), 3)
    assert [name for name, gradient in gradients.items() if not np.abs(gradient).max() > 0] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_check_agrees(kind: type[FrameModel]) -> None:
    """Element by element; `convlstm gradcheck` does so with more variants."""
    chosen = {**RICH, "layer_norm": "channel", "bias": "channel", "kernel_size": (1, 2), "spatial_shape": None}
    model, frames = make(kind, (1, 1), **chosen), make_frames(N=1, T=4, side=3)
    given = {"context": 2, "draws": Draws(1)}
    loss, (_, gradients) = loss_of(model, frames, given), model.loss_and_gradients(frames, **given)
    report = check_gradients(loss, model.parameters, gradients)
    assert report.ok, report


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_mean_over_samples(kind: type[FrameModel]) -> None:
    model, frames = make(kind, **RICH), make_frames(N=3)
    alone = [model.loss_and_gradients(frames[n : n + 1], 2, draws=Draws(7, 2, 10 + n)) for n in range(3)]
    loss, gradients = model.loss_and_gradients(frames, 2, draws=Draws(7, 2, 10))
    assert loss == pytest.approx(np.mean([value for value, _ in alone]), rel=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, np.mean([g[name] for _, g in alone], axis=0), rtol=1e-9, atol=1e-14)


# The same bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [1, 2, 3, 4, 5, 6, 50])
def test_recomputation_changes_no_bit(kind: type[FrameModel], recompute: int) -> None:
    model, frames = make(kind, **RICH), make_frames(T=8)
    for context in (1, 3, 7):
        given = {"context": context, "draws": Draws(1)}
        assert bits(model, frames, **given, recompute=recompute) == bits(model, frames, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputation_needs_less_memory(kind: type[FrameModel]) -> None:
    """Of 64 steps in chunks of 8 NextFrame holds one chunk, the encoder–forecaster one of each stack."""
    model, frames = make(kind, (8,), spatial_shape=None), make_frames(N=1, T=65, side=32)
    model.loss_and_gradients(frames, 32)  # what is made once is made now
    most = {NextFrame: 0.3, EncoderForecaster: 0.34}[kind]
    assert peak_memory(model, frames, context=32, recompute=8) < most * peak_memory(model, frames, context=32)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_no_bit(kind: type[FrameModel]) -> None:
    model, frames, given = make(kind, **RICH), make_frames(N=5), {"context": 2, "draws": Draws(1)}
    one = bits(model, frames, **given), model.predict(frames, 3).tobytes()
    for threads in (2, 3, 4):
        model.backend = NumpyBackend(threads)
        for layer in model.layers:
            layer.backend = model.backend
        assert (bits(model, frames, **given), model.predict(frames, 3).tobytes()) == one


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_is_not_changed(kind: type[FrameModel]) -> None:
    """Frames and parameters are read-only throughout this file; here they are kept, and the states too."""
    model, frames = make(kind, **RICH), make_frames()
    before = {name: array.copy() for name, array in model.parameters.items()}
    _, states = model.forecast(frames, 2)
    freeze(states)
    model.forecast(frames, 2, states)
    model.loss_and_gradients(frames, 2, draws=Draws(1), recompute=2)
    for name, array in before.items():
        np.testing.assert_array_equal(model.parameters[name], array)


# Dropout --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", DROPPING)
def test_dropout_is_for_training_alone(kind: type[FrameModel], which: str) -> None:
    frames, plain, dropping = make_frames(), make(kind), make(kind, **dict[str, Any]({which: 0.5}))
    np.testing.assert_array_equal(dropping.predict(frames, 3), plain.predict(frames, 3))
    assert bits(dropping, frames) == bits(plain, frames)  # nothing is drawn where no draws are given
    first, again, later, other = (
        dropping.loss_and_gradients(frames, draws=draws)[0]
        for draws in (Draws(1), Draws(1), Draws(1, step=1), Draws(2))
    )
    assert first == again
    assert len({first, later, other, plain.loss_and_gradients(frames)[0]}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_drops_elements_of_its_own(kind: type[FrameModel]) -> None:
    model = make(kind, (2, 2, 2), dropout=0.5, recurrent_dropout=0.5)
    drops = model._drops(Draws(1), slice(0, 2), make_frames())
    masks = [mask for drop in drops for mask in drop if mask is not None]
    assert len(masks) == {NextFrame: 6, EncoderForecaster: 11}[kind]  # a forecaster's first layer reads nothing
    hidden = [mask.tobytes() for mask in masks if mask.shape[1] == 2]
    assert len(set(hidden)) == len(hidden)


# Forecasts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [[1], [4], [2, 3], [1, 2, 3, 4, 5]])
def test_a_sequence_in_parts_is_forecast_to_the_same_bits(kind: type[FrameModel], cuts: list[int]) -> None:
    model, frames = make(kind, **RICH), make_frames(N=3, T=6)
    whole, last = model.forecast(frames, 4)
    states = None
    for part in np.split(frames, cuts, axis=1):
        forecast, states = model.forecast(np.ascontiguousarray(part), 4, states)
    assert forecast.tobytes() == whole.tobytes()
    for found, right in zip(states or (), last, strict=True):
        assert [array.tobytes() for array in found] == [array.tobytes() for array in right]


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_the_layers_that_read(kind: type[FrameModel]) -> None:
    model = make(kind, (2, 3), patch=2, spatial_shape=None, kernel_size=2)
    forecast, states = model.forecast(make_frames(N=3), 7)
    assert forecast.shape == (3, 7, 1, 4, 4)
    assert [(h.shape, c.shape) for h, c in states] == [((3, C, 2, 2), (3, C, 2, 2)) for C in (2, 3)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_horizon_is_free(kind: type[FrameModel]) -> None:
    """Longer than any that was trained; the first frames do not depend on how many follow."""
    model, frames = make(kind), make_frames()
    np.testing.assert_array_equal(model.predict(frames, 70)[:, :3], model.predict(frames, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_forecast_is_what_training_predicts(kind: type[FrameModel]) -> None:
    """The loss of the frames after the context, from `predict`."""
    model, frames = make(kind, output="sigmoid"), make_frames(T=6)
    shown = 1 if kind is NextFrame else 3  # where NextFrame's loss reads forecasts alone
    predicted = model.predict(frames[:, :shown], 6 - shown)
    loss, _ = model.loss_and_gradients(frames, shown)
    assert loss == pytest.approx(((predicted - frames[:, shown:]) ** 2).mean(), rel=1e-13)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_bias_cannot_start_from_the_mean(kind: type[FrameModel]) -> None:
    model = make(kind, readout_bias=False)
    assert "readout.b" not in model.parameters
    with pytest.raises(ValueError, match="a read-out without bias cannot start from the mean"):
        model.start_from_mean(0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m, x, s: m.predict(x, 0), ValueError, "horizon must be an integer ≥ 1; got 0"),
        (lambda m, x, s: m.predict(x, True), ValueError, "horizon must be an integer ≥ 1; got True"),
        (lambda m, x, s: m.predict(x[0], 1), ValueError, r"frames must have shape \(N, T, 1, H, W\)"),
        (lambda m, x, s: m.predict(x.astype("float32"), 1), TypeError, "frames must have dtype float64; got float32"),
        (lambda m, x, s: m.predict(x[..., :3], 1), ValueError, "patch 2 must divide the height and width"),
        (lambda m, x, s: m.predict(x.tolist(), 1), TypeError, "frames must be an array of backend numpy"),
        (lambda m, x, s: m.forecast(x, 1, s[:1]), ValueError, r"states must be a tuple of 2 pairs .*; got 1"),
        (lambda m, x, s: m.forecast(x, 1, "hc"), ValueError, r"states must be a tuple of 2 pairs .*; got str"),
        (lambda m, x, s: m.forecast(x, 1, (s[0], s[1][0])), TypeError, r"state of \w+\.1 must be a pair of arrays"),
        (lambda m, x, s: m.forecast(x, 1, s[::-1]), ValueError, r"state of \w+\.0 h must have shape \(2, 2, 2, 2\)"),
        (lambda m, x, s: m.forecast(x[:1], 1, s), ValueError, r"state of \w+\.0 h must have shape \(1, 2, 2, 2\)"),
        (
            lambda m, x, s: m.forecast(x, 1, (s[0], (s[1][0], s[1][1].astype("float32")))),
            TypeError,
            r"state of \w+\.1 c must have dtype float64; got float32",
        ),
        (lambda m, x, s: m.loss_and_gradients(x[:, :1]), ValueError, "at least 2 time steps, the last to predict"),
        (lambda m, x, s: m.loss_and_gradients(x, 0), ValueError, "context must be an integer ≥ 1; got 0"),
        (lambda m, x, s: m.loss_and_gradients(x, 5), ValueError, r"context must lie in 1 … T-1 = 4; got 5"),
        (lambda m, x, s: m.loss_and_gradients(x, "2"), ValueError, "context must be an integer ≥ 1; got '2'"),
        (lambda m, x, s: m.loss_and_gradients(x, 2, "l2"), ValueError, "loss must be one of mse, mae, bce; got 'l2'"),
        (lambda m, x, s: m.loss_and_gradients(x, 2, ["mse"]), ValueError, "loss must be one of mse, mae, bce"),
        (lambda m, x, s: m.loss_and_gradients(x, recompute=0), ValueError, "recompute must be an integer ≥ 1; got 0"),
        (lambda m, x, s: m.loss_and_gradients(x, recompute=1.0), ValueError, "recompute must be an integer ≥ 1"),
    ],
)
def test_wrong_arguments_are_named(kind: type[FrameModel], call: Any, error: type[Exception], said: str) -> None:
    model, frames = make(kind, (2, 3), patch=2, spatial_shape=None, kernel_size=2), make_frames()
    _, states = model.forecast(frames, 1)
    with pytest.raises(error, match=said) as raised:
        call(model, frames, states)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden": ()}, r"hidden_channels must be a list, one number for each layer; got \(\)"),
        ({"hidden": 16}, "hidden_channels must be a list, one number for each layer; got 16"),
        ({"hidden": (2, 0)}, "hidden_channels must be an integer ≥ 1; got 0"),
        ({"output": "tanh"}, 'output must be "linear" or "sigmoid"; got \'tanh\''),
        ({"patch": 0}, "patch must be an integer ≥ 1; got 0"),
        ({"dropout": 1.0}, "dropout must be a probability p with 0 ≤ p < 1; got 1.0"),
        ({"layer_norm": True}, 'layer_norm must be None, "channel" or "pixel"; got True'),
        ({"bias": "pixel", "spatial_shape": None}, 'bias="pixel" needs spatial_shape'),
    ],
)
def test_wrong_settings_are_named(kind: type[FrameModel], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(kind, **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"readout.W": np.zeros((1, 2, 1))}, ValueError, r"parameters\['readout.W'\] must have shape \(1, \d, 1, 1\)"),
        ({"readout.b": np.zeros(1, "float32")}, TypeError, r"parameters\['readout.b'\] must have dtype float64"),
        ({"layers.9.b": np.zeros(8)}, KeyError, r"missing or unknown: layers.9.b"),
    ],
)
def test_wrong_parameters_are_named(
    kind: type[FrameModel], change: dict[str, Array], error: type[Exception], said: str
) -> None:
    model = make(kind)
    model.parameters = {**model.parameters, **change}
    with pytest.raises(error, match=said):
        model.predict(make_frames(), 1)


@pytest.mark.parametrize("loss", ["mse", "mae"])
@pytest.mark.parametrize("kind", [NextFrame, EncoderForecaster])
def test_bits_do_not_depend_on_the_frames_order_in_memory(kind: Any, loss: Any) -> None:
    """As an image reader gives frames: channels last in memory."""
    frames = np.random.default_rng(0).random((2, 4, 3, 8, 8), dtype=np.float32)
    turned = np.moveaxis(np.ascontiguousarray(np.moveaxis(frames, 2, -1)), -1, 2)
    model = kind(3, (6,), backend="numpy")
    one, other = (bits(model, given, context=2, loss=loss) for given in (frames, turned))
    assert one == other


@pytest.mark.parametrize("kind", [NextFrame, EncoderForecaster])
def test_small_integers_of_numpy_are_numbers_like_others(kind: Any) -> None:
    small = kind(np.uint8(16), (np.uint8(200), np.uint8(100)), kernel_size=1, patch=np.uint8(4), backend="numpy")
    plain = kind(16, (200, 100), kernel_size=1, patch=4, backend="numpy")
    assert {name: w.shape for name, w in small.parameters.items()} == {
        name: w.shape for name, w in plain.parameters.items()
    }


@pytest.mark.parametrize("kind", [NextFrame, EncoderForecaster])
def test_cross_entropy_is_of_frames_between_0_and_1(kind: Any) -> None:
    model, frames = kind(1, (2,), output="sigmoid", backend="numpy"), np.full((1, 3, 1, 4, 4), 255, np.float32)
    with pytest.raises(ValueError, match="loss 'bce' needs frames within 0 … 1; they lie within 255 … 255"):
        model.loss_and_gradients(frames, loss="bce")
    assert model.loss_and_gradients(frames, loss="mse")[0] > 0
