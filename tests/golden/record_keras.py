"""Records what Keras's own ConvLSTM2D computes, for tests/test_golden_keras.py, which then needs no Keras.

In an environment that has Keras 3 and PyTorch (docs/weights.md says how to make one), from the repository's root:

    python -m tests.golden.record_keras

writes keras_convlstm2d.npz, the arrays in Keras's own layout, and keras_convlstm2d.json, what made them.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from convlstm import save_parameters
from convlstm.whole_files import write_whole

HERE = Path(__file__).parent
N, T, CIN, C = 2, 3, 3, 2

# One geometry each; what is not named is Keras's default: padding "valid", strides 1, dilation 1, with a bias.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "valid": {"kernel_size": 3},
    "same": {"kernel_size": 3, "padding": "same", "gradients": True},
    "valid-strides": {"kernel_size": 2, "strides": 2, "size": (7, 6), "gradients": True},
    "same-strides": {"kernel_size": 3, "padding": "same", "strides": 2, "size": (7, 6)},
    "same-strides-even-map": {"kernel_size": (3, 2), "padding": "same", "strides": (2, 1), "size": (6, 5)},
    "valid-dilation": {"kernel_size": 2, "dilation_rate": 2, "size": (5, 4)},
    "same-dilation": {"kernel_size": (2, 3), "padding": "same", "dilation_rate": (2, 1)},
    "same-even-kernel": {"kernel_size": (4, 2), "padding": "same", "use_bias": False, "gradients": True},
    "valid-float32": {"kernel_size": 2, "size": (5, 4), "dtype": "float32"},
    "same-strides-float32": {"kernel_size": 3, "padding": "same", "strides": 2, "dtype": "float32", "gradients": True},
    "same-no-unit-forget-bias": {"kernel_size": 1, "padding": "same", "unit_forget_bias": False, "size": (3, 4)},
}


def record(keras: Any, torch: Any, configuration: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the arrays that went into one layer and came out of it."""
    rng = np.random.default_rng(seed)
    options = dict(configuration)
    size, gradients = options.pop("size", (5, 6)), options.pop("gradients", False)
    dtype = options.setdefault("dtype", "float64")
    layer = keras.layers.ConvLSTM2D(
        C, data_format="channels_last", return_sequences=True, return_state=True, **options
    )  # fmt: skip
    x = torch.tensor(rng.standard_normal((N, T, *size, CIN)).astype(dtype), requires_grad=True)
    layer(x)  # builds the weights
    arrays: dict[str, Any] = {"x": x}
    if layer.cell.use_bias:
        arrays["initial_bias"] = layer.cell.bias.value.detach().clone()
    for weight in layer.weights:  # larger than the initial ones, so that every gate leaves its linear range
        weight.assign(0.5 * rng.standard_normal(weight.shape))
        arrays[weight.name] = weight.value
    h, _, arrays["c_last"] = layer(x)
    arrays["h"] = h
    if gradients:  # of Σ u·h, by PyTorch's automatic differentiation
        u = torch.tensor(rng.standard_normal(tuple(h.shape)).astype(dtype))
        (u * h).sum().backward()
        arrays |= {"u": u, "d_x": x.grad} | {f"d_{weight.name}": weight.value.grad for weight in layer.weights}
    return {name: array.detach().numpy() for name, array in arrays.items()}


def main() -> None:
    """Write both files."""
    os.environ["KERAS_BACKEND"] = "torch"
    with tempfile.TemporaryDirectory() as home:
        os.environ["KERAS_HOME"] = home  # Keras writes its settings there when it is imported
        import keras  # type: ignore[import-not-found, unused-ignore]
        import torch
    arrays = {}
    for seed, (name, configuration) in enumerate(CONFIGURATIONS.items()):
        for part, array in record(keras, torch, configuration, seed).items():
            arrays[f"{name}.{part}"] = np.ascontiguousarray(array)
    save_parameters(HERE / "keras_convlstm2d.npz", arrays)
    versions = {"keras": keras.__version__, "torch": torch.__version__, "numpy": np.__version__}
    facts = {"versions": versions, "keras_backend": keras.backend.backend(), "configurations": CONFIGURATIONS}
    write_whole(HERE / "keras_convlstm2d.json", (json.dumps(facts, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
