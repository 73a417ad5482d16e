"""The record of models whose steps are not all alike: forecasters, layer norm, dropout, sampled frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm import Draws, EncoderForecaster, NextFrame
from convlstm.backends import Array
from convlstm.recording import Operation, recorded_operations

N, T, CONTEXT, C = 2, 6, 3, 3
SHOWN = np.array([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0]], bool)
CASES: dict[str, tuple[type[NextFrame] | type[EncoderForecaster], dict[str, Any], dict[str, Any]]] = {
    "encoder–forecaster": (EncoderForecaster, {}, {"context": CONTEXT}),
    "1×1 state kernels": (EncoderForecaster, {"recurrent_kernel_size": 1, "readout_bias": False}, {"context": CONTEXT}),
    "layer norm": (NextFrame, {"layer_norm": "channel", "bias": None, "forget_bias": 1.0}, {"context": CONTEXT}),
    "layer norm and dropout": (
        EncoderForecaster,
        {"layer_norm": "channel", "dropout": 0.3, "recurrent_dropout": 0.3},
        {"context": CONTEXT, "draws": Draws(1, 2, 3)},
    ),
    "sampled frames": (NextFrame, {"peephole": "channel"}, {"shown": SHOWN}),
    "cut gradients": (NextFrame, {}, {"truncate": 2}),
}
Recorded = tuple[list[Operation], dict[str, Array], Any]


@pytest.fixture(params=[*CASES.values()], ids=[*CASES])
def recorded(request: pytest.FixtureRequest) -> Recorded:
    kind, settings, arguments = request.param
    model = kind(1, (C, C + 1), 3, patch=2, backend="numpy", seed=3, **settings)
    frames = np.random.default_rng(1).random((N, T, 1, 8, 8), dtype=np.float32)
    plain_loss, plain = model.loss_and_gradients(frames, **arguments)
    with recorded_operations(model) as operations:
        loss, gradients = model.loss_and_gradients(frames, **arguments)
    assert loss == plain_loss
    assert all(gradients[name].tobytes() == g.tobytes() for name, g in plain.items())
    return operations, gradients, model


def arrays(recorded: Recorded, side: str) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for operation in recorded[0]:
        for name, array in getattr(operation, side).items():
            assert side == "inputs" or name not in found, f"{name} is recorded twice"
            found[name] = array
    return found


def test_shares_of_a_gradient_are_of_the_kernel_that_they_name(recorded: Recorded) -> None:
    out, gradients = arrays(recorded, "outputs"), recorded[1]
    kernels = [name for name in gradients if name.endswith(("W_x", "W_h", "readout.W"))]
    for name in kernels:
        layer, _, kernel = name.rpartition(".")
        of_kernel = f", {layer}: {'share of the ' if layer == 'readout' else ''}gradient to {kernel}"
        shares = [a for place, a in out.items() if place.endswith(of_kernel)]
        np.testing.assert_allclose(sum(shares), gradients[name], rtol=1e-4, atol=1e-6, err_msg=name)
        assert len(shares) >= N


def test_a_step_is_followed_by_the_next_of_its_layer(recorded: Recorded) -> None:
    """What a layer's step reads as the cell of the step before is the cell of that step."""
    out, given = arrays(recorded, "outputs"), arrays(recorded, "inputs")
    followed = 0
    for layer in recorded[2].layers:
        for n in range(N):
            for t in range(1, T):
                place = f"sample {n}, t = {t}, {layer.name.rstrip('.')}: c of the step before"
                if place in given:
                    before = out[f"sample {n}, t = {t - 1}, {layer.name.rstrip('.')}: c"]
                    assert given[place].tobytes() == before.tobytes()
                    followed += 1
    assert followed >= 2 * N * (CONTEXT - 1)


def test_every_gate_that_goes_forward_comes_back(recorded: Recorded) -> None:
    out = arrays(recorded, "outputs")
    forward = {name.removesuffix(": h") for name in out if name.endswith(": h")}
    backward = {name.removesuffix(": δ of gate i") for name in out if name.endswith(": δ of gate i")}
    assert forward == backward
    steps = {"encoder": CONTEXT, "forecaster": T - CONTEXT, "layers": T - 1}
    assert len(forward) == N * sum(steps[layer.name.split(".")[0]] for layer in recorded[2].layers)
