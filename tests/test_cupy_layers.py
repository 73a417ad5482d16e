"""Layer normalisation, dropout, masks, layers without input and stacks on CuPy: the numbers are NumPy's.

Everywhere on a stand-in for CuPy, where there is a device on CuPy itself.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from convlstm import ConvLSTM, ConvLSTMStack, Draws, Stateful
from convlstm.backends import Array

N, T, CIN, C, H, W = 3, 4, 2, 3, 5, 6
MASK = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], bool)


def random(*shape: int, seed: int = 0, dtype: str = "float64") -> Array:
    array = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    array.flags.writeable = False
    return array


def with_random_parameters(layer: Any) -> Any:
    layer.parameters = {
        name: layer.backend.asarray(0.5 * random(*array.shape, seed=seed, dtype=layer.dtype.name))
        for seed, (name, array) in enumerate(layer.parameters.items())
    }
    return layer


def close(found: dict[str, Array], right: dict[str, Array]) -> None:
    """Compare results of the CuPy backend, on the host, with NumPy's: other libraries, so other roundings."""
    assert found.keys() == right.keys()
    for name, array in right.items():
        tolerance = {"float64": 1e-11, "float32": 1e-4}[array.dtype.name]
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


def results(layer: Any, states: Any, call: dict[str, Any]) -> dict[str, Array]:
    """Return, on the host, everything that forward and backward give."""
    there, back, dtype = layer.backend.asarray, layer.backend.to_numpy, layer.dtype.name
    channels = (layer.layers[0] if isinstance(layer, ConvLSTMStack) else layer).in_channels
    h, after, cache = layer.forward(there(random(N, T, channels, H, W, dtype=dtype)), states, **call)
    dx, before, gradients = layer.backward(cache, there(random(*h.shape, seed=5, dtype=dtype)))
    flat: list[Any] = [array for state in after for array in (state if isinstance(state, tuple) else (state,))]
    flat += [array for state in before for array in (state if isinstance(state, tuple) else (state,))]
    named = {"h": h, "dx": dx, **gradients, **{f"state {k}": array for k, array in enumerate(flat)}}
    return {name: back(array) for name, array in named.items()}


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "layer norm": ({"layer_norm": "channel"}, {}),
    "layer norm per pixel": ({"layer_norm": "pixel", "bias": "pixel", "peephole": "pixel"}, {}),
    "dropout": ({"dropout": 0.4, "recurrent_dropout": 0.4}, {"draws": Draws(1, first=2)}),
    "mask": ({}, {"mask": MASK}),
    "mask, float32": ({"dtype": "float32", "layer_norm": "channel"}, {"mask": MASK}),
    "no input": ({"in_channels": None}, {"mask": MASK}),
    "constant bias": ({"bias": None, "forget_bias": 1.0}, {}),
    "recompute": ({"layer_norm": "channel"}, {"recompute": 3, "mask": MASK}),
}


@pytest.mark.parametrize("with_state", [False, True], ids=["from zeros", "from a state"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_layer(cupy: Any, variant: Any, with_state: bool) -> None:
    options, call = variant

    def run(backend: str) -> dict[str, Array]:
        settings = {"in_channels": CIN, "spatial_shape": (H, W), "dtype": "float64", **options}
        layer = with_random_parameters(ConvLSTM(hidden_channels=C, backend=backend, **settings))
        state = [layer.backend.asarray(random(N, C, H, W, seed=seed, dtype=layer.dtype.name)) for seed in (1, 2)]
        return results(layer, state if with_state else None, call)

    close(run("cupy"), run("numpy"))


@pytest.mark.parametrize(
    ("returns", "bidirectional"), list(itertools.product(["every", "last"], [False, True])), ids=str
)
@pytest.mark.parametrize("call", [{}, {"mask": MASK, "draws": Draws(0)}], ids=["", "mask and dropout"])
def test_a_stack(cupy: Any, returns: Any, bidirectional: bool, call: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"returns": returns, "bidirectional": bidirectional, "layer_norm": "channel"}

    def run(backend: str) -> dict[str, Array]:
        stack = ConvLSTMStack(CIN, (C, 2), dropout=0.3, dtype="float64", backend=backend, **settings)
        return results(with_random_parameters(stack), None, call)

    close(run("cupy"), run("numpy"))


def test_one_frame_at_a_time(cupy: Any) -> None:
    def run(backend: str) -> dict[str, Array]:
        live = Stateful(with_random_parameters(ConvLSTMStack(CIN, (C,), dtype="float64", backend=backend)))
        there, back = live.layer.backend.asarray, live.layer.backend.to_numpy
        return {str(t): back(live.step(there(random(N, CIN, H, W, seed=t)))) for t in range(T)}

    close(run("cupy"), run("numpy"))
