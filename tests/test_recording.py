"""Recording: each array under the name of its true place, and not a bit of the result changed by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convlstm.backends import Array, get_backend
from convlstm.losses import sigmoid
from convlstm.next_frame import NextFrame
from convlstm.patches import fold
from convlstm.recording import Operation, RecordingBackend, recorded_operations
from tests.cuda_on_host import COMPILER, NO_COMPILER
from tests.cupy_stand_in import forget_backends, stand_in_for_cupy

N, CONTEXT, HORIZON, SIZE, PATCH, C = 3, 2, 3, 8, 2, 3
STEPS = CONTEXT + HORIZON - 1
SETTINGS: dict[str, dict[str, Any]] = {
    "one layer": {"hidden_channels": (C,), "output": "sigmoid"},
    "two layers": {"hidden_channels": (C, C), "output": "sigmoid"},
    "peepholes per pixel": {"hidden_channels": (C, C), "output": "sigmoid", "bias": "pixel", "peephole": "pixel"},
    "peepholes, linear, no bias": {"hidden_channels": (C, C), "output": "linear", "bias": None, "peephole": "channel"},
}
Arrays = dict[str, npt.NDArray[Any]]


def make_model(settings: dict[str, Any], backend: str = "numpy") -> NextFrame:
    side = SIZE // PATCH
    model = NextFrame(1, kernel_size=3, patch=PATCH, spatial_shape=(side, side), backend=backend, seed=3, **settings)
    rng = np.random.default_rng(7)
    for name, w in model.parameters.items():  # biases and peepholes start at zero
        model.parameters[name] = model.backend.asarray(rng.normal(0, 0.3, w.shape).astype(np.float32))
    return model


def make_frames(horizon: int = HORIZON) -> Array:
    return np.random.default_rng(1).random((N, CONTEXT + horizon, 1, SIZE, SIZE), dtype=np.float32)


def loss_of(model: NextFrame) -> str:
    return "bce" if model.output == "sigmoid" else "mse"


def recorded(model: NextFrame, frames: Array) -> tuple[list[Operation], float, Arrays]:
    with recorded_operations(model) as operations:
        loss, gradients = model.loss_and_gradients(model.backend.asarray(frames), CONTEXT, loss_of(model))  # type: ignore[arg-type]
    return operations, loss, {name: model.backend.to_numpy(g) for name, g in gradients.items()}


def outputs(operations: list[Operation]) -> Arrays:
    return {name: array for operation in operations for name, array in operation.outputs.items()}


def inputs(operations: list[Operation]) -> Arrays:
    return {name: array for operation in operations for name, array in operation.inputs.items()}


@pytest.fixture(params=[*SETTINGS.values()], ids=[*SETTINGS])
def model(request: pytest.FixtureRequest) -> NextFrame:
    return make_model(request.param)


# Names ----------------------------------------------------------------------------------------------------------------


def test_the_forward_is_recorded_where_it_happens(model: NextFrame) -> None:
    """h of every sample, time and layer is that of the layer's own forward over known and predicted frames."""
    frames = make_frames()
    operations, _, _ = recorded(model, frames)
    out, given = outputs(operations), inputs(operations)
    read = np.concatenate([frames[:, :CONTEXT], model.predict(frames[:, :CONTEXT], HORIZON)[:, :-1]], axis=1)
    x = fold(read, PATCH)
    for layer in model.layers:
        h, _, _ = layer.forward(x)
        for n, t in np.ndindex(N, STEPS):
            place = f"sample {n}, t = {t}, {layer.name[:-1]}"
            np.testing.assert_array_equal(given[f"{place}: x"], x[n, t])
            np.testing.assert_array_equal(out[f"{place}: h"], h[n, t])
            gates = [out[f"{place}: gate {gate}"] for gate in "ifgo"]
            before = out[f"sample {n}, t = {t - 1}, {layer.name[:-1]}: c"] if t else np.zeros_like(gates[0])
            np.testing.assert_array_equal(given[f"{place}: c of the step before"], before)
            i, f, g, o = gates
            c = out[f"{place}: c"]
            np.testing.assert_allclose(c, f * before + i * g, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(out[f"{place}: h"], o * np.tanh(c), rtol=1e-6, atol=1e-7)
            if t:
                np.testing.assert_array_equal(given[f"{place}: h of the step before"], h[n, t - 1])
            if model.layers[0].bias is None and model.layers[0].peephole is None:
                convolved = [out[f"{place}: W_x ∗ x"], *([out[f"{place}: W_h ∗ h"]] if t else [])]
                np.testing.assert_allclose(sigmoid(sum(convolved[1:], convolved[0])[:C]), i, rtol=1e-6, atol=1e-7)
        x = h
    W = model.parameters["readout.W"][:, :, 0, 0]
    for n, t in np.ndindex(N, STEPS):
        place = f"sample {n}, t = {t}, readout"
        np.testing.assert_array_equal(given[f"{place}: h"], x[n, t])
        np.testing.assert_allclose(out[f"{place}: W ∗ h"], np.einsum("dc,chw->dhw", W, x[n, t]), rtol=1e-5, atol=1e-6)


def test_the_convolutions_are_told_apart(model: NextFrame) -> None:
    """z of a gate is the sum of both, bias and peephole: from them comes gate g, which has no peephole."""
    operations, _, _ = recorded(model, make_frames())
    out = outputs(operations)
    for layer in model.layers:
        bias = model.parameters.get(f"{layer.name}b", np.zeros(4 * C, np.float32))
        bias = bias if bias.ndim == 3 else bias[:, None, None]
        for n, t in np.ndindex(N, STEPS):
            place = f"sample {n}, t = {t}, {layer.name[:-1]}"
            assert (f"{place}: W_h ∗ h" in out) == (t > 0)
            z = out[f"{place}: W_x ∗ x"] + bias + out.get(f"{place}: W_h ∗ h", np.float32(0))
            np.testing.assert_allclose(out[f"{place}: gate g"], np.tanh(z[2 * C : 3 * C]), rtol=1e-5, atol=1e-6)


def test_the_backward_is_recorded_where_it_happens(model: NextFrame) -> None:
    """δ of gate o follows from δh, o and c of its own place; δh and δc of a step before arrive there."""
    operations, _, _ = recorded(model, make_frames())
    out, given = outputs(operations), inputs(operations)
    last = model.layers[-1].name[:-1]
    for layer, n, t in ((a, n, t) for a in model.layers for n, t in np.ndindex(N, STEPS)):
        place = f"sample {n}, t = {t}, {layer.name[:-1]}"
        after = f"sample {n}, t = {t + 1}, {layer.name[:-1]}"
        o, c = out[f"{place}: gate o"], out[f"{place}: c"]
        dh, dz = given[f"{place}: δh"], np.concatenate([out[f"{place}: δ of gate {gate}"] for gate in "ifgo"])
        np.testing.assert_allclose(dz[-C:], dh * np.tanh(c) * o * (1 - o), rtol=1e-4, atol=1e-9)
        np.testing.assert_array_equal(given[f"{place}: c"], c)
        np.testing.assert_array_equal(given[f"{place}: gate o"], o)
        from_after = out[f"{after}: δh of the step before"] if t < STEPS - 1 else 0
        from_above = out[f"sample {n}, t = {t}, " + ("readout: δh" if layer.name[:-1] == last else "layers.1: δx")]
        np.testing.assert_allclose(dh, from_above + from_after, rtol=1e-6, atol=1e-9)
        if t < STEPS - 1:
            np.testing.assert_array_equal(given[f"{place}: δc"], out[f"{after}: δc of the step before"])
        if f"{place}: δz" in given:
            np.testing.assert_array_equal(given[f"{place}: δz"], dz)
        fed_back = layer is model.layers[0] and t >= CONTEXT
        assert (f"{place}: δx" in out) == (fed_back or layer is not model.layers[0])


def test_the_readouts_backward_is_of_the_step_that_it_says(model: NextFrame) -> None:
    """Where no frame is fed back from, δz is the loss's own; everywhere it is what δh comes from."""
    frames = make_frames()
    operations, _, _ = recorded(model, frames)
    out, given = outputs(operations), inputs(operations)
    y = fold(frames, PATCH)[:, 1:]
    b, W = model.parameters["readout.b"][:, None, None], model.parameters["readout.W"][:, :, 0, 0]
    for n, t in np.ndindex(N, STEPS):
        place = f"sample {n}, t = {t}, readout"
        z, dz = out[f"{place}: W ∗ h"] + b, given[f"{place}: δz"]
        if t < CONTEXT - 1 or t == STEPS - 1:
            right = sigmoid(z) - y[n, t] if model.output == "sigmoid" else 2 * (z - y[n, t])
            np.testing.assert_allclose(dz, right / y.size, rtol=1e-4, atol=1e-9)
        share = out[f"{place}: share of the gradient to W"][:, :, 0, 0]
        np.testing.assert_allclose(share, np.einsum("dhw,chw->dc", dz, given[f"{place}: h"]), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(out[f"{place}: δh"], np.einsum("dc,dhw->chw", W, dz), rtol=1e-4, atol=1e-7)


def test_the_shares_are_of_the_weights_that_they_say(model: NextFrame) -> None:
    """Together they are the gradients; a step's δz is kept where it goes in, but not for W_h at t = 0."""
    operations, _, gradients = recorded(model, make_frames())
    out = outputs(operations)
    for layer, name in ((a.name, w) for a in model.layers for w in ("W_x", "W_h")):
        shares = [out[f"sample {n}, {layer[:-1]}: gradient to {name}"] for n in range(N)]
        np.testing.assert_allclose(np.sum(shares, axis=0), gradients[layer + name], rtol=1e-4, atol=1e-6)
    shares = [out[f"sample {n}, t = {t}, readout: share of the gradient to W"] for n, t in np.ndindex(N, STEPS)]
    np.testing.assert_allclose(np.sum(shares, axis=0), gradients["readout.W"], rtol=1e-4, atol=1e-6)
    taken = [name for operation in operations for name in operation.inputs if name.endswith("layers.0: δz")]
    assert [taken.count(f"sample 0, t = {t}, layers.0: δz") >= 1 + (t > 0) for t in range(STEPS)] == [True] * STEPS


def test_no_output_has_the_name_of_another(model: NextFrame) -> None:
    operations, _, _ = recorded(model, make_frames())
    names = [name for operation in operations for name in operation.outputs]
    assert len(set(names)) == len(names)


def test_what_goes_in_has_come_out_before() -> None:
    """The record is in the order of computing: whatever is named twice is first an output."""
    operations, _, _ = recorded(make_model(SETTINGS["peepholes per pixel"]), make_frames())
    come: set[str] = set()
    later = set(outputs(operations))
    for operation in operations:
        assert not (operation.inputs.keys() & later) - come
        come |= operation.outputs.keys()


@pytest.mark.parametrize("horizon", [1, 2])
def test_short_horizons(horizon: int) -> None:
    model = make_model(SETTINGS["two layers"])
    operations, _, _ = recorded(model, make_frames(horizon))
    out = outputs(operations)
    for layer in ("layers.0: h", "layers.1: h", "readout: W ∗ h", "readout: δh", "layers.1: δ of gate i"):
        times = [t for t in range(9) if f"sample 2, t = {t}, {layer}" in out]
        assert times == list(range(CONTEXT + horizon - 1))


# What it leaves as it was ---------------------------------------------------------------------------------------------


def test_loss_and_gradients_keep_every_bit(model: NextFrame) -> None:
    frames = make_frames()
    loss, gradients = model.loss_and_gradients(frames, CONTEXT, loss_of(model))  # type: ignore[arg-type]
    _, again, recorded_gradients = recorded(model, frames)
    assert again.hex() == loss.hex()
    assert {k: g.tobytes() for k, g in recorded_gradients.items()} == {k: g.tobytes() for k, g in gradients.items()}


def test_what_is_recorded_is_a_copy() -> None:
    model, frames = make_model(SETTINGS["one layer"]), make_frames()
    operations, _, _ = recorded(model, frames)
    for array in (*outputs(operations).values(), *inputs(operations).values()):
        assert array.base is None
        assert not np.shares_memory(array, frames)
        assert not any(np.shares_memory(array, w) for w in model.parameters.values())
    x = inputs(operations)["sample 0, t = 0, layers.0: x"].copy()
    frames[...] = 0
    np.testing.assert_array_equal(inputs(operations)["sample 0, t = 0, layers.0: x"], x)


def test_the_backend_comes_back(model: NextFrame) -> None:
    backend = model.backend
    parts: list[Any] = [model, *model.layers]
    with recorded_operations(model):
        assert all(isinstance(part.backend, RecordingBackend) for part in parts)
    assert all(part.backend is backend for part in parts)
    with pytest.raises(ValueError, match="context must lie"), recorded_operations(model):
        model.loss_and_gradients(make_frames(), 99)
    assert all(part.backend is backend for part in parts)


def test_it_stands_for_its_backend() -> None:
    model = make_model(SETTINGS["one layer"])
    with recorded_operations(model):
        assert (model.backend.name, model.backend.description) == ("numpy", get_backend("numpy").description)


# CuPy -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["stand-in", pytest.param("device", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "device":
        from convlstm.backends import available_backends, unavailable_backends

        if "cupy" not in available_backends():
            pytest.skip(unavailable_backends()["cupy"])
        yield
        return
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    with stand_in_for_cupy():
        yield
    forget_backends()


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_cupy_records_the_same_under_the_same_names(settings: dict[str, Any]) -> None:
    """The batch is computed at once, so only a share of a gradient is of all samples."""
    frames = make_frames()
    (there, loss, gradients), (here, _, _) = (
        recorded(make_model(settings, backend), frames) for backend in ("cupy", "numpy")
    )
    found, right = outputs(there), outputs(here)
    shares = {name for name in right if "gradient to" in name}
    of_all = {name.replace("sample 0", f"samples 0 … {N - 1}") for name in shares if name.startswith("sample 0,")}
    assert set(found) == (set(right) - shares) | of_all
    assert set(inputs(there)) == set(inputs(here))
    for name in set(right) - shares:
        np.testing.assert_allclose(found[name], right[name], rtol=2e-5, atol=2e-5)
    for name in of_all:
        share = sum(right[name.replace(f"samples 0 … {N - 1}", f"sample {n}")] for n in range(N))
        np.testing.assert_allclose(found[name], share, rtol=2e-5, atol=2e-5)
    model = make_model(settings, "cupy")
    plain, plain_gradients = model.loss_and_gradients(model.backend.asarray(frames), CONTEXT, loss_of(model))  # type: ignore[arg-type]
    assert plain == loss
    for name, g in plain_gradients.items():
        assert model.backend.to_numpy(g).tobytes() == gradients[name].tobytes()
