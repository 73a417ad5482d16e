"""Import the installed package and take one layer forward and backward: run by .ci/run on every Python there is.

The gradient of one weight is held against a central difference, so an install that computes nonsense fails too.
"""

import sys

import numpy as np

import convlstm

layer = convlstm.ConvLSTM(in_channels=2, hidden_channels=3, kernel_size=3, dtype="float64", backend="numpy", seed=0)
x = np.random.default_rng(0).normal(size=(2, 3, 2, 5, 6))  # (N, T, C, H, W)
h, state, cache = layer.forward(x)
dx, dstate, gradients = layer.backward(cache, 2 * h)  # of the loss Σ h²

W = np.array(layer.parameters["W_h"])
losses = []
for step in (1e-5, -1e-5):
    moved = W.copy()
    moved[0, 0, 1, 1] += step
    layer.parameters["W_h"] = moved
    losses.append(float(np.square(layer.forward(x)[0]).sum()))
numeric = (losses[0] - losses[1]) / 2e-5
analytic = float(gradients["W_h"][0, 0, 1, 1])

assert h.shape == (2, 3, 3, 5, 6), h.shape
assert dx.shape == x.shape, dx.shape
assert analytic != 0, "no gradient reached W_h"
assert abs(analytic - numeric) <= 1e-7 * max(1, abs(numeric)), f"analytic {analytic!r}, numeric {numeric!r}"
print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}: forward and backward run, gradient right")
