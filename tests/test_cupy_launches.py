"""What a training step asks of a device, counted on the stand-in: it waits once, for the loss; kernels are few.

The counts are upper limits of what each time step adds, so that a launch more is seen here; a launch less lowers them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, Draws, EncoderForecaster, NextFrame
from convlstm.backends import Array, get_backend
from convlstm.clipping import CLIPPINGS
from convlstm.optimizers import SGD, Adam
from tests.cuda_on_host import COMPILER, NO_COMPILER
from tests.cupy_stand_in import counted, stand_in_for_cupy

N, H, W = 3, 6, 5
PER_PIXEL: dict[str, Any] = {"bias": "pixel", "peephole": "pixel", "spatial_shape": (H, W)}


@pytest.fixture
def stand_in() -> Iterator[Any]:
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    with stand_in_for_cupy(devices=1) as module:
        yield module


def count(work: Callable[[], object]) -> Counter[str]:
    """Return what a second call asks for: the first one compiles and remembers."""
    work()
    counted.clear()
    work()
    return Counter(counted)


def frames(T: int) -> Array:
    return get_backend("cupy").asarray(np.random.default_rng(0).random((N, T, 1, H, W), dtype="float32"))


def a_step(kind: Any, T: int, *, optimizer: bool = False, settings: Any = None, **given: Any) -> Callable[[], object]:
    model = kind(1, (4,), 3, backend="cupy", **(settings or {}))
    x = frames(T)

    def step() -> None:
        loss, gradients = model.loss_and_gradients(x, **given)
        assert isinstance(loss, float)
        if optimizer:
            for steps in (SGD(0.1), Adam(0.1)):
                steps.step(model.parameters, CLIPPINGS["none"](gradients))

    return step


# Waiting --------------------------------------------------------------------------------------------------------

SHOWN = np.array([[True, True, False, True, False], [True, False, False, True, True], [True, True, True, True, False]])
VALID = np.random.default_rng(1).random((N, 6, 1, H, W)) < 0.7
STEPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "next frame": (NextFrame, {}),
    "own predictions": (NextFrame, {"context": 2}),
    "scheduled sampling": (NextFrame, {"shown": SHOWN}),
    "truncated": (NextFrame, {"context": 2, "truncate": 2, "recompute": 1}),
    "encoder–forecaster": (EncoderForecaster, {"context": 3}),
    "encoder–forecaster, recomputed": (EncoderForecaster, {"context": 3, "recompute": 2}),
    "missing values": (NextFrame, {"valid": VALID}),
    "dropout": (NextFrame, {"draws": Draws(0), "settings": {"dropout": 0.3, "recurrent_dropout": 0.3}}),
    "layer norm": (EncoderForecaster, {"context": 3, "settings": {"layer_norm": "channel"}}),
    "absolute error": (NextFrame, {"loss": "mae"}),
    "sigmoid": (NextFrame, {"settings": {"output": "sigmoid"}}),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_training_step_waits_for_the_loss_alone(stand_in: Any, step: tuple[Any, dict[str, Any]]) -> None:
    asked = count(a_step(step[0], 6, optimizer=True, **step[1]))
    assert asked["synchronisation"] == 1


def test_a_layer_does_not_wait(stand_in: Any) -> None:
    layer = ConvLSTM(1, 4, 3, backend="cupy", **PER_PIXEL)
    x = frames(3)

    def there_and_back() -> None:
        h, _, cache = layer.forward(x, recompute=2)
        layer.backward(cache, h)

    assert count(there_and_back)["synchronisation"] == 0


def test_a_forecast_does_not_wait(stand_in: Any) -> None:
    model = NextFrame(1, (4,), 3, backend="cupy")
    assert count(lambda: model.predict(frames(3), 4))["synchronisation"] == 0


@pytest.mark.parametrize("wait", [float, bool, lambda array: array.get()], ids=["float", "bool", "get"])
def test_every_way_to_wait_is_counted(stand_in: Any, wait: Callable[[Any], object]) -> None:
    assert count(lambda: wait(frames(1).sum()))["synchronisation"] == 1
    assert count(get_backend("cupy").synchronise)["synchronisation"] == 1


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:cupyx.allow_synchronize")  # it may miss a wait; the stand-in does not
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_cupy_sees_no_other_wait(cupy: Any, step: tuple[Any, dict[str, Any]]) -> None:
    """CuPy's own guard, on a device: with the loss left there, nothing of the step brings anything to the host."""
    if not hasattr(cupy, "__file__"):
        pytest.skip("the stand-in counts")
    cupyx = pytest.importorskip("cupyx")
    run = a_step(step[0], 6, **step[1])
    run()
    with pytest.raises(cupyx.DeviceSynchronized) as caught, cupyx.allow_synchronize(False):
        run()
    ours = [entry.name for entry in caught.traceback if "frame_model" in str(entry.path)]
    assert ours[-1] == "_summed"  # loss = float(…)


# Launching ------------------------------------------------------------------------------------------------------

# What a time step adds: (kernels, products and copies; memory set to zero).
LIMITS: dict[str, tuple[Any, dict[str, Any], tuple[int, int]]] = {
    "next frame": (NextFrame, {}, (44, 3)),
    "next frame, per pixel": (NextFrame, PER_PIXEL, (58, 3)),
    "next frame, layer norm": (NextFrame, {"layer_norm": "channel"}, (75, 3)),
    "encoder–forecaster": (EncoderForecaster, {}, (30, 3)),
    "encoder–forecaster, per pixel": (EncoderForecaster, PER_PIXEL, (44, 3)),
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS.keys())
def test_launches_of_a_time_step(stand_in: Any, limit: tuple[Any, dict[str, Any], tuple[int, int]]) -> None:
    kind, settings, most = limit

    def asked(T: int) -> Counter[str]:
        context = T - 1 if kind is NextFrame else T // 2
        return count(a_step(kind, T, settings=settings, context=context))

    short, long = asked(4), asked(8)
    assert (long["launch"] - short["launch"]) / 4 <= most[0]
    assert (long["zeros"] - short["zeros"]) / 4 <= most[1]
    assert long["transfer"] == short["transfer"] == 0


ROWS = {
    "| `NextFrame` |": "next frame",
    "| … with peepholes and biases per pixel |": "next frame, per pixel",
    "| … with layer norm |": "next frame, layer norm",
    "| `EncoderForecaster` |": "encoder–forecaster",
}


@pytest.mark.parametrize("row", ROWS)
def test_the_page_says_the_same(row: str) -> None:
    page = (Path(__file__).parent.parent / "docs" / "gpu.md").read_text("utf-8")
    launches, zeros = LIMITS[ROWS[row]][2]
    assert f"{row} {launches} | {zeros} |\n" in page


def maps(channels: int) -> Array:
    backend = get_backend("cupy")
    return backend.channels_last(backend.asarray(np.random.default_rng(0).random((N, channels, H, W), dtype="float32")))


def test_gates_are_one_kernel_each_way(stand_in: Any) -> None:
    backend = get_backend("cupy")
    z, c, bias = maps(16), maps(4), backend.asarray(np.ones((16, H, W), "float32"))
    forward = count(lambda: backend.gates_forward(z, z, bias, c, None))
    assert forward == {"launch": 1, "zeros": 2}
    _, _, kept = backend.gates_forward(z, z, bias, c, None)
    assert count(lambda: backend.gates_backward(c, c, kept)) == {"launch": 1, "zeros": 1}


def test_a_sum_of_maps_is_one_kernel_whatever_their_order_of_memory(stand_in: Any) -> None:
    backend = get_backend("cupy")
    a, b = maps(4), backend.contiguous(maps(4))
    assert count(lambda: backend.add(a, b)) == {"launch": 1}
    assert count(lambda: backend.channels_last(backend.add(a, b))) == {"launch": 1}
