"""Layers, stacks and models that compute with Winograd's convolutions: gradients, and bits that stay the same.

Gradients are held in float64 against a difference of losses in a random direction, and against the plain convolution's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, Draws, EncoderForecaster, NextFrame, self_check
from convlstm.backends import Array, kernel_gradient, winograd
from convlstm.backends.numpy_backend import NumpyBackend, WinogradBackend
from convlstm.config import config_from
from convlstm.masks import mask_of_lengths
from convlstm.self_check import Variant, configured_variant
from tests.frame_models import bits, loss_of, make_frames
from tests.layer_problems import Problem, StackProblem, assert_same_bits
from tests.numerical import directional_error, read_only
from tests.test_self_check import run

SIZE = (8, 9)
OPERATIONS = ("convolve", "gradient_input", "gradient_weights")


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count how often each operation was Winograd's."""
    counted = dict.fromkeys(OPERATIONS, 0)

    def counting(name: str) -> Any:
        function = getattr(winograd, name)

        def count(*arguments: Any) -> Array:
            counted[name] += 1
            found: Array = function(*arguments)
            return found

        return count

    for name in OPERATIONS:
        monkeypatch.setattr(winograd, name, counting(name))
    return counted


def problem(
    N: int = 2, T: int = 3, *, backend: type[NumpyBackend] = WinogradBackend, threads: int = 1, **options: Any
) -> Problem:
    """Return a layer whose kernels are both of a shape that suits, with all that it may have."""
    chosen = {"in_channels": 8, "hidden_channels": 8, "bias": "pixel", "peephole": "pixel", "spatial_shape": SIZE}
    made = Problem(N, T, SIZE, **{**chosen, **options})
    made.layer.backend = backend(threads)
    return made


LAYERS: dict[str, dict[str, Any]] = {
    "one step": {"T": 1},
    "five steps": {"T": 5, "N": 1},
    "from zeros": {"state": False},
    "bare": {"bias": None, "peephole": None},
    "per channel": {"bias": "channel", "peephole": "channel"},
    "layer norm": {"layer_norm": "pixel"},
    "layer norm per channel": {"layer_norm": "channel", "peephole": None},
    "5x5": {"kernel_size": 5},
    "4x2": {"kernel_size": (4, 2)},
    "two kernels": {"kernel_size": (2, 3), "recurrent_kernel_size": (5, 4)},
    "more channels": {"in_channels": 11, "hidden_channels": 9},
    "one kernel does not suit alone": {"in_channels": 2},
    "no kernel suits alone": {"in_channels": 1, "hidden_channels": 7, "state": False},
    "no input": {"in_channels": None},
    "one kernel does not suit": {"in_channels": 2, "padding": ((2, 0), (1, 1))},
    "mask": {"call": {"mask": mask_of_lengths((3, 1), 3)}},
    "dropout": {"dropout": 0.3, "recurrent_dropout": 0.2, "call": {"draws": Draws(1)}},
    "recomputed": {"T": 5, "call": {"recompute": 2}},
    "valid": {"padding": "valid", "bias": "channel", "peephole": "channel", "spatial_shape": None},
    "uneven padding": {"padding": ((0, 2), (1, 1))},
}  # fmt: skip


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
def test_gradients_of_a_layer(options: dict[str, Any], calls: dict[str, int]) -> None:
    fast = problem(**options)
    gradients = fast.gradients()
    assert min(calls.values()) > 0
    assert directional_error(fast.loss, fast.arrays, gradients) < 1e-7
    for name, right in problem(backend=NumpyBackend, **options).gradients().items():
        np.testing.assert_allclose(
            gradients[name], right, rtol=0, atol=1e-11 * np.abs(right).max(initial=0), err_msg=name
        )


@pytest.mark.parametrize("operation", ["gradient_input", "gradient_weights"])
def test_a_planted_fault_is_seen(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number in a thousand of one gradient."""
    right = getattr(winograd, operation)

    def wrong(*arguments: Any) -> Array:
        found: Array = right(*arguments)
        found[:, 0, 0] *= 1.001
        return found

    monkeypatch.setattr(winograd, operation, wrong)
    fast = problem()
    assert directional_error(fast.loss, fast.arrays, fast.gradients()) > 1e-6


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"returns": "last"}], ids=str)
def test_gradients_of_a_stack(options: dict[str, Any], calls: dict[str, int]) -> None:
    fast = StackProblem(hidden=(8, 8), size=SIZE, **options)
    fast.stack.backend = WinogradBackend(1)
    for layer in fast.stack.layers:
        layer.backend = fast.stack.backend
    gradients = fast.gradients()
    assert min(calls.values()) > 0
    assert directional_error(fast.loss, fast.arrays, gradients) < 1e-7


# Models ---------------------------------------------------------------------------------------------------------------


def model(
    kind: type[NextFrame] | type[EncoderForecaster], threads: int = 1, dtype: str = "float64", **settings: Any
) -> Any:
    chosen = {"peephole": "pixel", "spatial_shape": (8, 8), "dtype": dtype, "backend": "numpy:winograd", **settings}
    made = kind(1, (8, 8), **chosen)
    made.backend = WinogradBackend(threads)
    for layer in made.layers:
        layer.backend = made.backend
    rng = np.random.default_rng(3)
    made.parameters = read_only(
        {name: (0.3 * rng.standard_normal(a.shape)).astype(dtype) for name, a in made.parameters.items()}
    )
    return made


MODELS: dict[str, tuple[type[NextFrame] | type[EncoderForecaster], dict[str, Any], dict[str, Any]]] = {
    "next frame": (NextFrame, {}, {"context": 2}),
    "next frame, recomputed": (NextFrame, {"layer_norm": "channel"}, {"context": 2, "recompute": 2}),
    "encoder-forecaster": (EncoderForecaster, {"output": "sigmoid"}, {"context": 2, "loss": "bce"}),
    "encoder-forecaster, 5x5": (EncoderForecaster, {"kernel_size": 5}, {"context": 3, "recompute": 1}),
}


@pytest.mark.parametrize(("kind", "settings", "given"), MODELS.values(), ids=MODELS.keys())
def test_gradients_of_a_model(kind: Any, settings: Any, given: Any, calls: dict[str, int]) -> None:
    made, frames = model(kind, **settings), make_frames(2, 5, side=8)
    arrays = dict(made.parameters)
    _, gradients = made.loss_and_gradients(frames, **given)
    assert min(calls.values()) > 0
    assert directional_error(loss_of(made, frames, given), arrays, gradients) < 1e-6


# The command that checks gradients ------------------------------------------------------------------------------------


def test_the_command_checks_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a layer that is large enough, of one row of W_h: to check all takes long."""
    layer = ConvLSTM(1, 8, 3, dtype="float64", backend="numpy:winograd")
    rng = np.random.default_rng(0)
    x, u = rng.standard_normal((1, 2, 1, 5, 4)), rng.standard_normal((1, 2, 8, 5, 4))
    W_h = layer.parameters["W_h"].copy()

    def forward(part: Mapping[str, Array]) -> tuple[Array, Any, Any]:
        layer.parameters["W_h"] = np.concatenate([part["a row"][None], W_h[1:]])
        return layer.forward(x)

    def gradients(part: Mapping[str, Array]) -> dict[str, Array]:
        return {"a row": layer.backward(forward(part)[2], u)[2]["W_h"][0]}

    one = Variant("layer: large", lambda part: float((forward(part)[0] * u).sum()), {"a row": W_h[0]}, gradients)
    monkeypatch.setattr(self_check, "variants", lambda backend, seed=0: [one])
    assert run(monkeypatch, "--backend", "numpy:winograd") == 0
    assert capsys.readouterr().out.startswith("backend numpy:winograd (")
    right = winograd.gradient_weights
    monkeypatch.setattr(winograd, "gradient_weights", lambda *given: -right(*given))
    assert run(monkeypatch, "--backend", "numpy:winograd") == 1
    assert "a row: wrong sign" in capsys.readouterr().out


def test_a_configured_model_is_checked_with_them(calls: dict[str, int]) -> None:
    tables: dict[str, dict[str, Any]] = {
        "data": {"size": 32, "context": 3, "horizon": 1},
        "model": {"hidden_channels": [8, 8], "kernel_size": 3, "patch": 4},
        "training": {},
    }
    variant = configured_variant(config_from(tables), "numpy:winograd")
    found = variant.gradients(variant.parameters)
    assert min(calls.values()) > 0
    assert directional_error(variant.loss, variant.parameters, found) < 1e-6


# Bits -----------------------------------------------------------------------------------------------------------------

FLOAT32: dict[str, Any] = {"dtype": "float32", "layer_norm": "channel"}


@pytest.mark.parametrize("backend", [NumpyBackend, WinogradBackend])
def test_any_number_of_threads(backend: type[NumpyBackend]) -> None:
    right = problem(5, 3, backend=backend, **FLOAT32).results()
    for threads in (2, 3, 4):
        assert_same_bits(problem(5, 3, backend=backend, threads=threads, **FLOAT32).results(), right)


@pytest.mark.parametrize("backend", [NumpyBackend, WinogradBackend])
def test_a_sample_alone_and_in_a_batch(backend: type[NumpyBackend]) -> None:
    """Of what belongs to a sample; the parameters' gradients are sums over samples, here of two halves."""
    batch = problem(4, 3, backend=backend, threads=2, **FLOAT32)
    together = batch.results()
    alone = [batch.of(slice(n, n + 1)).results() for n in range(4)]
    for name in ("h", "h_T", "c_T", "dx", "dh0", "dc0"):
        np.testing.assert_array_equal(np.concatenate([one[name] for one in alone]), together[name], err_msg=name)
    for name in ("dW_x", "dW_h", "dgain", "db"):
        first, second = (alone[n][name] + alone[n + 1][name] for n in (0, 2))
        np.testing.assert_array_equal(first + second, together[name], err_msg=name)


@pytest.mark.parametrize("backend", [NumpyBackend, WinogradBackend])
@pytest.mark.parametrize("mask", [None, mask_of_lengths((7, 4), 7)], ids=["all steps", "mask"])
def test_recomputed_in_chunks_of_any_length(
    backend: type[NumpyBackend], mask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the kernels' gradients are taken in groups of two steps, which no chunk of three respects."""
    one_group = problem(2, 7, backend=backend, call={"mask": mask}, **FLOAT32).results()
    monkeypatch.setattr(kernel_gradient, "MOST_BYTES", 70_000)
    right = problem(2, 7, backend=backend, call={"mask": mask}, **FLOAT32).results()
    assert not np.array_equal(one_group["dW_h"], right["dW_h"])
    for recompute in (1, 2, 3, 6):
        call = {"mask": mask, "recompute": recompute}
        assert_same_bits(problem(2, 7, backend=backend, call=call, **FLOAT32).results(), right)


@pytest.mark.parametrize("kind", [NextFrame, EncoderForecaster])
def test_a_model_recomputed_and_on_threads(kind: Any) -> None:
    frames = make_frames(3, 7, side=8).astype("float32")
    right = bits(model(kind, dtype="float32"), frames, context=3)
    for threads, recompute in ((3, None), (1, 1), (2, 2), (1, 3)):
        assert bits(model(kind, threads, "float32"), frames, context=3, recompute=recompute) == right


def test_truncated_backpropagation_is_the_plain_one_to_rounding_and_recomputes_to_the_same_bits() -> None:
    frames, made = make_frames(2, 7, side=8), model(NextFrame)
    loss, gradients = made.loss_and_gradients(frames, context=3, truncate=2)
    whole = made.loss_and_gradients(frames, context=3)[1]
    assert any(np.abs(gradients[name] - whole[name]).max() > 1e-6 for name in whole)  # something was cut off
    assert bits(made, frames, context=3, truncate=2, recompute=1) == bits(made, frames, context=3, truncate=2)
    for layer in made.layers:
        layer.backend = NumpyBackend(1)
    plain_loss, plain = made.loss_and_gradients(frames, context=3, truncate=2)
    assert loss == pytest.approx(plain_loss, rel=1e-12)
    for name, right in plain.items():
        np.testing.assert_allclose(
            gradients[name], right, rtol=0, atol=1e-11 * np.abs(right).max(initial=0), err_msg=name
        )


def test_bits_are_not_those_of_the_plain_backend() -> None:
    """Else the tests above would have looked at the plain one twice."""
    fast, plain = (problem(backend=backend, **FLOAT32).results() for backend in (WinogradBackend, NumpyBackend))
    for name in ("h", "dx", "dW_x", "dW_h"):
        assert not np.array_equal(fast[name], plain[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 3, "hidden_channels": 1},
        {"recurrent_kernel_size": 1, "stride": 2, "bias": None, "peephole": None},
    ],
    ids=["few channels", "stride and 1×1"],
)
def test_shapes_that_do_not_suit_are_left_to_the_plain_operations(
    options: dict[str, Any], calls: dict[str, int]
) -> None:
    fast, plain = (problem(backend=backend, **options).results() for backend in (WinogradBackend, NumpyBackend))
    assert not any(calls.values())
    for name, right in plain.items():
        np.testing.assert_allclose(fast[name], right, rtol=1e-12, atol=1e-12, err_msg=name)
