"""The CuPy backend against the NumPy one: everywhere on a stand-in for CuPy, where there is a device on CuPy itself."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlstm
from convlstm.backends import Array, Backend, available_backends, contract, get_backend
from convlstm.backends.geometry import resolve_geometry
from convlstm.clipping import CLIPPINGS
from convlstm.dropout import Draws
from convlstm.losses import LOSSES, LossName
from convlstm.optimizers import SGD, Adam
from convlstm.parameter_files import assign_parameters, load_parameters, save_parameters
from tests.cupy_stand_in import forget_backends
from tests.numerical import directional_error

KINDS = (None, "channel", "pixel")
N, T, CIN, C, H, W = 3, 4, 2, 3, 5, 6


def close(found: Array, right: Array) -> None:
    """Compare a result of the CuPy backend, on the host, with NumPy's: other libraries, so other roundings."""
    tolerance = {"float64": 1e-12, "float32": 2e-5}[right.dtype.name]
    assert found.dtype == right.dtype
    np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance)


Arrays = Mapping[str, Array]


def random(*shape: int, seed: int = 0, dtype: str = "float64") -> Array:
    array = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    array.flags.writeable = False
    return array


def make_layer(backend: str, **settings: Any) -> convlstm.ConvLSTM:
    """Return a layer whose every parameter is a random number, the same on both backends."""
    chosen = {"spatial_shape": (H, W), "dtype": "float64", **settings}
    layer = convlstm.ConvLSTM(CIN, C, 3, backend=backend, **chosen)
    for seed, (name, array) in enumerate(layer.parameters.items()):
        layer.parameters[name] = layer.backend.asarray(0.5 * random(*array.shape, seed=seed, dtype=chosen["dtype"]))
    return layer


def run_layer(layer: convlstm.ConvLSTM, *, with_state: bool) -> dict[str, Array]:
    """Return, on the host, everything that forward and backward give."""
    there, back, dtype = layer.backend.asarray, layer.backend.to_numpy, layer.dtype.name
    height, width = (2 * H - 1, 2 * W - 1) if layer.stride == (2, 2) else (H, W)
    x = random(N, T, CIN, height, width, dtype=dtype)
    state, dstate = (
        (there(random(N, C, H, W, seed=seed, dtype=dtype)), there(random(N, C, H, W, seed=seed + 1, dtype=dtype)))
        for seed in (1, 3)
    )
    h, (h_last, c_last), cache = layer.forward(there(x), state if with_state else None)
    dh = there(random(N, T, C, H, W, seed=5, dtype=dtype))
    dx, (dh_first, dc_first), gradients = layer.backward(cache, dh, dstate if with_state else None)
    results = {
        "h": h, "h_last": h_last, "c_last": c_last, "dx": dx, "dh_first": dh_first, "dc_first": dc_first, **gradients
    }  # fmt: skip
    return {name: back(array) for name, array in results.items()}


def assert_same_as_numpy(found: Arrays, right: Arrays) -> None:
    assert found.keys() == right.keys()
    for name in right:
        close(found[name], right[name])


@pytest.mark.parametrize("with_state", [False, True], ids=["from zeros", "from a state"])
@pytest.mark.parametrize(("bias", "peephole"), list(itertools.product(KINDS, KINDS)))
def test_every_variant(cupy: Any, bias: Any, peephole: Any, with_state: bool) -> None:
    settings = {"bias": bias, "peephole": peephole}
    found, right = (run_layer(make_layer(name, **settings), with_state=with_state) for name in ("cupy", "numpy"))
    assert_same_as_numpy(found, right)


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "float32", "bias": "pixel", "peephole": "pixel"},
        {"stride": 2},
        {"dilation": 2},
        {"padding": ((0, 2), (2, 0))},
        {"recurrent_kernel_size": (4, 1)},
    ],
    ids=["float32", "stride", "dilation", "uneven padding", "even kernel"],
)
def test_every_setting(cupy: Any, settings: dict[str, Any]) -> None:
    found, right = (run_layer(make_layer(name, **settings), with_state=True) for name in ("cupy", "numpy"))
    assert_same_as_numpy(found, right)


GEOMETRIES = {
    "same": resolve_geometry(7, 6, (3, 3)),
    "even": resolve_geometry(7, 6, (2, 4)),
    "stride": resolve_geometry(7, 6, (3, 2), stride=(2, 3)),
    "dilation": resolve_geometry(7, 6, (3, 2), dilation=(2, 3), padding="valid"),
    "stride and dilation": resolve_geometry(9, 8, (3, 3), stride=(2, 2), dilation=(2, 2), padding=2),
    "uneven": resolve_geometry(7, 6, (2, 2), padding=((3, 0), (0, 4))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_convolutions(cupy: Any, geometry: Any, dtype: str) -> None:
    height, width = (9, 8) if geometry is GEOMETRIES["stride and dilation"] else (7, 6)
    x, kernel = random(2, 3, height, width, dtype=dtype), random(4, 3, *geometry.kernel, seed=1, dtype=dtype)
    dz = random(2, 4, *geometry.output_shape(height, width), seed=2, dtype=dtype)

    def three(backend: Backend) -> dict[str, Array]:
        x_there, kernel_there, dz_there = map(backend.asarray, (x, kernel, dz))
        z = backend.convolve(x_there, kernel_there, geometry)
        dx = backend.gradient_input(dz_there, kernel_there, geometry, height, width)
        dW = backend.gradient_weights(x_there, dz_there, geometry)
        return {name: backend.to_numpy(array) for name, array in {"z": z, "dx": dx, "dW": dW}.items()}

    assert_same_as_numpy(three(get_backend("cupy")), three(get_backend("numpy")))


# The model ------------------------------------------------------------------------------------------------------


def make_model(backend: str, **settings: Any) -> convlstm.NextFrame:
    chosen = {"peephole": "channel", "dtype": "float64", **settings}
    return convlstm.NextFrame(1, (3, 2), 3, backend=backend, **chosen)


def frames(model: convlstm.NextFrame) -> Array:
    host = np.random.default_rng(0).random((N, T + 1, 1, 6, 8)).astype(model.dtype)
    return model.backend.asarray(host)


def run_model(model: convlstm.NextFrame, loss: LossName, context: int | None) -> dict[str, Array]:
    value, gradients = model.loss_and_gradients(frames(model), context, loss)
    assert type(value) is float
    predicted = model.predict(frames(model), horizon=3)
    results = {"predicted": predicted, **gradients}
    return {"loss": np.array(value), **{name: model.backend.to_numpy(array) for name, array in results.items()}}


@pytest.mark.parametrize("context", [None, 2], ids=["teacher", "own predictions"])
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
@pytest.mark.parametrize("loss", LOSSES)
def test_next_frame(cupy: Any, loss: LossName, output: Any, context: int | None) -> None:
    found, right = (run_model(make_model(name, output=output, patch=2), loss, context) for name in ("cupy", "numpy"))
    assert_same_as_numpy(found, right)


# Stacks, and what layers and models have beside the paper's equations -------------------------------------------

SEQUENCES: dict[str, dict[str, Any]] = {
    "every": {"layer_norm": "channel", "dropout": 0.3},
    "last": {"returns": "last", "layer_norm": "pixel", "spatial_shape": (H, W), "recurrent_dropout": 0.3},
    "both directions": {"bidirectional": True, "peephole": "channel", "dropout": 0.3, "recurrent_dropout": 0.3},
    "both directions, last": {"bidirectional": True, "returns": "last", "bias": None, "forget_bias": 1.0},
    "strides": {"stride": [2, 1], "padding": ["same", "valid"], "kernel_size": 2},
}
MASK = np.array([[True, False, True, True], [True, True, False, False], [False, True, False, True]])


def run_stack(backend: str, mask: Any, recompute: int | None, settings: dict[str, Any]) -> dict[str, Array]:
    """Return, on the host, everything that forward and backward give."""
    stack = convlstm.ConvLSTMStack(CIN, (C, 2), backend=backend, dtype="float64", **settings)
    there, back = stack.backend.asarray, stack.backend.to_numpy
    for seed, (name, array) in enumerate(stack.parameters.items()):
        stack.parameters[name] = there(0.5 * random(*array.shape, seed=seed))
    output, states, cache = stack.forward(
        there(random(N, T, CIN, H, W)), mask=mask, draws=Draws(1), recompute=recompute
    )
    dx, dstates, gradients = stack.backward(cache, there(random(*output.shape, seed=3)), states)
    carried = {f"{k} {part}": array for k, pair in enumerate([*states, *dstates]) for part, array in enumerate(pair)}
    return {name: back(array) for name, array in {"output": output, "dx": dx, **carried, **gradients}.items()}


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "mask"])
@pytest.mark.parametrize("recompute", [None, 3])
@pytest.mark.parametrize("settings", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_stacks(cupy: Any, settings: dict[str, Any], recompute: int | None, mask: Any) -> None:
    found, right = (run_stack(name, mask, recompute, settings) for name in ("cupy", "numpy"))
    assert_same_as_numpy(found, right)


FRAME_MODELS: dict[str, dict[str, Any]] = {
    "layer norm": {"layer_norm": "channel", "readout_bias": False},
    "per pixel": {"layer_norm": "pixel", "bias": "pixel", "peephole": "pixel", "spatial_shape": (3, 4), "patch": 2},
    "dropout": {"dropout": 0.3, "recurrent_dropout": 0.3, "output": "sigmoid", "bias": None, "forget_bias": 1.0},
}
SHOWN = np.array([[True, True, False, True], [True, False, False, True], [True, False, True, True]])
GIVEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "next frame, sampled": (convlstm.NextFrame, {"shown": SHOWN}),
    "next frame, chunks": (convlstm.NextFrame, {"shown": SHOWN, "recompute": 3}),
    "next frame, windows": (convlstm.NextFrame, {"context": 2, "truncate": 2, "recompute": 1}),
    "encoder–forecaster": (convlstm.EncoderForecaster, {"context": 3}),
    "encoder–forecaster, chunks": (convlstm.EncoderForecaster, {"context": 3, "recompute": 2}),
}


def run_frame_model(backend: str, kind: Any, settings: dict[str, Any], given: dict[str, Any]) -> dict[str, Array]:
    """Return loss, gradients, and a forecast in two parts, on the host."""
    model = kind(1, (3, 2), 3, backend=backend, dtype="float64", **settings)
    there, back = model.backend.asarray, model.backend.to_numpy
    for seed, (name, array) in enumerate(model.parameters.items()):
        model.parameters[name] = there(0.5 * random(*array.shape, seed=seed))
    loss, gradients = model.loss_and_gradients(frames(model), draws=Draws(1), **given)
    assert type(loss) is float
    _, states = model.forecast(frames(model)[:, :2], 1)
    forecast, last = model.forecast(frames(model)[:, 2:], 3, states)
    carried = {f"{k} {part}": array for k, pair in enumerate([*states, *last]) for part, array in enumerate(pair)}
    found = {name: back(array) for name, array in {"forecast": forecast, **carried, **gradients}.items()}
    return {"loss": np.array(loss), **found}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("settings", FRAME_MODELS.values(), ids=FRAME_MODELS.keys())
def test_frame_models(cupy: Any, settings: dict[str, Any], given: str) -> None:
    found, right = (run_frame_model(name, GIVEN[given][0], settings, GIVEN[given][1]) for name in ("cupy", "numpy"))
    assert_same_as_numpy(found, right)


def test_a_batch_of_too_many_columns_is_cut_in_models_too(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that come in two ranges meet the frames, states and dropout masks that are theirs."""
    settings, given = FRAME_MODELS["dropout"], {"shown": SHOWN}
    whole = run_frame_model("cupy", convlstm.NextFrame, settings, given)
    cupy_backend = importlib.import_module("convlstm.backends.cupy_backend")
    monkeypatch.setattr(cupy_backend, "MOST_COLUMN_ELEMENTS", 2 * 3 * 9 * 6 * 8)
    assert_same_as_numpy(run_frame_model("cupy", convlstm.NextFrame, settings, given), whole)


def test_a_layer_without_input(cupy: Any) -> None:
    def run(name: str) -> dict[str, Array]:
        layer = convlstm.ConvLSTM(None, C, 3, backend=name, dtype="float64", recurrent_dropout=0.3)
        there, back = layer.backend.asarray, layer.backend.to_numpy
        state = (there(random(N, C, H, W, seed=1)), there(random(N, C, H, W, seed=2)))
        h, _, cache = layer.forward(layer.backend.zeros((N, T, 0, H, W), "float64"), state, draws=Draws(1))
        dx, (dh, dc), gradients = layer.backward(cache, there(random(N, T, C, H, W, seed=3)))
        assert dx.shape == (N, T, 0, H, W)
        return {key: back(array) for key, array in {"h": h, "dh": dh, "dc": dc, **gradients}.items()}

    assert_same_as_numpy(run("cupy"), run("numpy"))


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_training_steps(cupy: Any, optimizer: Callable[[float], SGD | Adam], clipping: Any) -> None:
    """Three steps; then the parameters are still arrays of the backend, and the numbers are NumPy's."""

    def trained(name: str) -> dict[str, Array]:
        model, steps = make_model(name), optimizer(0.1)
        for _ in range(3):
            _, gradients = model.loss_and_gradients(frames(model))
            steps.step(model.parameters, CLIPPINGS[clipping]({name: 50 * g for name, g in gradients.items()}))
        assert all(model.backend.owns(array) for array in model.parameters.values())
        return {name: model.backend.to_numpy(array) for name, array in model.parameters.items()}

    assert_same_as_numpy(trained("cupy"), trained("numpy"))


def test_float32_stays_float32(cupy: Any) -> None:
    model = make_model("cupy", dtype="float32", output="sigmoid")
    for loss in LOSSES:
        _, gradients = model.loss_and_gradients(frames(model), 2, loss)
        assert {array.dtype.name for array in gradients.values()} == {"float32"}
    for optimizer in (SGD(0.1), Adam(0.1)):
        for clip in CLIPPINGS.values():
            optimizer.step(model.parameters, clip(gradients))
            assert {array.dtype.name for array in model.parameters.values()} == {"float32"}
    assert model.predict(frames(model), 2).dtype.name == "float32"


# The same bits, whatever the batch ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repeated_runs_give_the_same_bits(cupy: Any, dtype: str) -> None:
    model = make_model("cupy", dtype=dtype)
    first = run_model(model, "bce", 2)
    for _ in range(3):
        again = run_model(model, "bce", 2)
        for name, array in first.items():
            assert array.tobytes() == again[name].tobytes(), name


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_batch_of_too_many_columns_is_cut(cupy: Any, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    whole = run_layer(make_layer("cupy", peephole="pixel"), with_state=True)
    cupy_backend = importlib.import_module("convlstm.backends.cupy_backend")
    columns = max(CIN, C) * 9 * H * W  # channels × taps × pixels of one sample
    monkeypatch.setattr(cupy_backend, "MOST_COLUMN_ELEMENTS", (at_once + 1) * columns - 1)
    layer = make_layer("cupy", peephole="pixel")
    _, _, cache = layer.forward(layer.backend.asarray(random(N, T, CIN, H, W)))
    assert [part for part, _ in cache.parts] == [
        slice(start, min(start + at_once, N)) for start in range(0, N, at_once)
    ]
    assert_same_as_numpy(run_layer(layer, with_state=True), whole)


def test_one_sample_too_large_is_still_tried(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy_backend = importlib.import_module("convlstm.backends.cupy_backend")
    monkeypatch.setattr(cupy_backend, "MOST_COLUMN_ELEMENTS", 1)
    assert get_backend("cupy").map_samples(lambda part: part, 2, 100) == [slice(0, 1), slice(1, 2)]


# Proof, on the device -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["channel", "pixel"])
def test_gradients_against_central_differences(cupy: Any, kind: Any) -> None:
    layer = make_layer("cupy", bias=kind, peephole=kind)
    there, back = layer.backend.asarray, layer.backend.to_numpy
    shapes = {"h": (N, T, C, H, W), "h_last": (N, C, H, W), "c_last": (N, C, H, W)}
    weights = {name: random(*shape, seed=7 + seed) for seed, (name, shape) in enumerate(shapes.items())}

    def run(arrays: Arrays) -> tuple[Any, Any, Any]:
        layer.parameters = {name: there(arrays[name]) for name in layer.parameters}
        return layer.forward(there(arrays["x"]), (there(arrays["h_first"]), there(arrays["c_first"])))

    def loss(arrays: Arrays) -> float:
        h, (h_last, c_last), _ = run(arrays)
        given = {"h": h, "h_last": h_last, "c_last": c_last}
        return sum(float((weights[name] * back(array)).sum()) for name, array in given.items())

    arrays = {name: back(array) for name, array in layer.parameters.items()} | {
        "x": random(N, T, CIN, H, W), "h_first": random(N, C, H, W, seed=1), "c_first": random(N, C, H, W, seed=2)
    }  # fmt: skip
    _, _, cache = run(arrays)
    dx, (dh_first, dc_first), gradients = layer.backward(
        cache, there(weights["h"]), (there(weights["h_last"]), there(weights["c_last"]))
    )
    found = {**gradients, "x": dx, "h_first": dh_first, "c_first": dc_first}
    assert directional_error(loss, arrays, {name: back(array) for name, array in found.items()}) < 1e-8


# Host and device ------------------------------------------------------------------------------------------------


def test_a_host_array_among_device_arrays_is_named(cupy: Any) -> None:
    layer = make_layer("cupy")
    there = layer.backend.asarray
    x, dh, maps = random(N, T, CIN, H, W), random(N, T, C, H, W), random(N, C, H, W)

    def refuses(name: str) -> Any:
        return pytest.raises(TypeError, match=rf"^{name} must be an array of backend cupy; got numpy\.ndarray")

    with refuses("x"):
        layer.forward(x)
    with refuses("state h"):
        layer.forward(there(x), (maps, there(maps)))
    with refuses("state c"):
        layer.forward(there(x), (there(maps), maps))
    _, _, cache = layer.forward(there(x))
    with refuses("dh"):
        layer.backward(cache, dh)
    with refuses("dstate h"):
        layer.backward(cache, there(dh), (maps, there(maps)))
    layer.parameters["W_h"] = layer.backend.to_numpy(layer.parameters["W_h"])
    with refuses(r"parameters\['W_h'\]"):
        layer.forward(there(x))
    model = make_model("cupy")
    with refuses("frames"):
        model.loss_and_gradients(model.backend.to_numpy(frames(model)))
    model.parameters["readout.b"] = np.zeros(1)
    with refuses(r"parameters\['readout.b'\]"):
        model.predict(frames(model), 1)


def test_a_device_array_among_host_arrays_is_named(cupy: Any) -> None:
    layer, there = make_layer("numpy"), get_backend("cupy").asarray
    x, dh = random(N, T, CIN, H, W), random(N, T, C, H, W)

    def refuses(name: str) -> Any:
        return pytest.raises(
            TypeError, match=rf"^{name} must be an array of backend numpy; got cupy\.ndarray on <CUDA D"
        )

    with refuses("x"):
        layer.forward(there(x))
    _, _, cache = layer.forward(x)
    with refuses("dh"):
        layer.backward(cache, there(dh))
    layer.parameters["b"] = there(layer.parameters["b"])
    with refuses(r"parameters\['b'\]"):
        layer.forward(x)


def second_device(cupy: Any) -> Backend:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("only one device here")
    return get_backend("cupy:1")


def test_an_array_of_another_device_is_named(cupy: Any) -> None:
    x = second_device(cupy).asarray(random(N, T, CIN, H, W))
    with pytest.raises(TypeError, match=r"^x must be an array of backend cupy; got cupy\.ndarray on <CUDA Device 1>"):
        make_layer("cupy").forward(x)


def test_the_second_device(cupy: Any) -> None:
    """A layer of one device runs there, whichever is the current one."""
    assert second_device(cupy).name == "cupy:1"
    cupy.cuda.Device(0).use()
    settings = {"bias": "pixel", "peephole": "pixel"}
    found, right = (run_layer(make_layer(name, **settings), with_state=True) for name in ("cupy:1", "numpy"))
    assert_same_as_numpy(found, right)
    assert cupy.cuda.Device().id == 0


@pytest.mark.parametrize("given", GIVEN)
def test_models_on_the_second_device(cupy: Any, given: str) -> None:
    assert second_device(cupy).name == "cupy:1"
    cupy.cuda.Device(0).use()
    settings = FRAME_MODELS["per pixel"]
    found, right = (run_frame_model(name, GIVEN[given][0], settings, GIVEN[given][1]) for name in ("cupy:1", "numpy"))
    assert_same_as_numpy(found, right)


def test_the_device_asked_for_last_becomes_the_current_one(cupy: Any) -> None:
    """What an optimizer computes outside the backend would otherwise end on the first device."""
    forget_backends()  # a backend that is there already is not made again
    backend = second_device(cupy)
    model = make_model("cupy:1")
    _, gradients = model.loss_and_gradients(frames(model))
    Adam(0.1).step(model.parameters, CLIPPINGS["global"](gradients))
    assert all(backend.owns(array) for array in model.parameters.values())
    cupy.cuda.Device(0).use()


# The rest of the contract ---------------------------------------------------------------------------------------


def test_arrays_come_and_go_unchanged(cupy: Any) -> None:
    backend = get_backend("cupy")
    for host in (random(2, 3), random(2, 3, dtype="float32"), random(4, 3, 2).transpose(2, 0, 1)):
        device = backend.asarray(host)
        assert isinstance(device, cupy.ndarray)
        assert backend.owns(device)
        assert not backend.owns(host)
        back = backend.to_numpy(device)
        assert type(back) is np.ndarray
        assert (back.shape, back.dtype, back.tobytes()) == (host.shape, host.dtype, host.tobytes())
    zeros = backend.zeros((2, 3), "float32")
    assert backend.owns(zeros)
    assert backend.to_numpy(zeros).tolist() == [[0, 0, 0], [0, 0, 0]]
    backend.synchronise()


def test_channels_last_keeps_axes_and_values(cupy: Any) -> None:
    backend = get_backend("cupy")
    host = random(2, C, H, W)
    moved = backend.channels_last(backend.asarray(host))
    assert moved.shape == host.shape
    assert backend.to_numpy(moved).tobytes() == host.tobytes()


def test_what_it_calls_itself(cupy: Any) -> None:
    backend = get_backend("cupy")
    assert backend.name == "cupy"
    assert f"CuPy {cupy.__version__}" in backend.description
    assert get_backend("auto") is backend
    assert "cupy" in available_backends()


def test_it_keeps_every_promise_of_the_contract(cupy: Any) -> None:
    promised = {name for name in vars(contract.Backend) if not name.startswith("_")}
    assert promised <= {name for name in dir(get_backend("cupy")) if not name.startswith("_")}


@pytest.mark.parametrize("file", ["weights.npz", "weights.safetensors", "weights"])
def test_parameters_go_to_files_and_come_back(cupy: Any, tmp_path: Path, file: str) -> None:
    layer, other = make_layer("cupy", peephole="pixel"), make_layer("cupy", peephole="pixel")
    there, back = layer.backend.asarray, layer.backend.to_numpy
    save_parameters(tmp_path / file, {name: back(array) for name, array in layer.parameters.items()})
    other.parameters = {name: other.backend.zeros(array.shape, array.dtype) for name, array in layer.parameters.items()}
    assign_parameters(other.parameters, load_parameters(tmp_path / file), there)
    for name, array in layer.parameters.items():
        assert other.backend.owns(other.parameters[name])
        assert back(other.parameters[name]).tobytes() == back(array).tobytes()
