"""LSTM with Keras's names: cs[t - 1] wraps round to the last cell at t = 0 in the forget gate's delta."""

import numpy as np

LENGTH, BATCH, FEATURES, UNITS = 8, 2, 3, 4

rng = np.random.default_rng(131)
x_all = rng.normal(size=(BATCH, LENGTH, FEATURES))
y_all = rng.normal(size=(BATCH, LENGTH, UNITS))
weights = {
    "kernel": rng.normal(scale=0.6, size=(FEATURES, 4 * UNITS)),  # i, f, c, o as in Keras
    "recurrent_kernel": rng.normal(scale=0.6, size=(UNITS, 4 * UNITS)),
    "bias": rng.normal(scale=0.4, size=(4 * UNITS,)),
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run(w, x):
    """Everything over time; hs[t] and cs[t] are the states after step t."""
    T = x.shape[1]
    kind = w["kernel"].dtype
    hs, cs = np.zeros((2, T, BATCH, UNITS), kind)
    h, c = np.zeros((2, BATCH, UNITS), kind)
    gates = np.zeros((T, 4, BATCH, UNITS), kind)
    for t in range(T):
        z = x[:, t] @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"]
        zi, zf, zc, zo = np.split(z, 4, axis=-1)
        gates[t] = sigmoid(zi), sigmoid(zf), np.tanh(zc), sigmoid(zo)
        i, f, g, o = gates[t]
        c = cs[t] = f * c + i * g
        h = hs[t] = o * np.tanh(c)
    return hs, cs, gates


def loss_of(w, x, y):
    hs, _, _ = run(w, x)
    return ((hs.swapaxes(0, 1) - y) ** 2).sum()


def gradients_of(w, x, y):
    hs, cs, gates = run(w, x)
    d_kernel = np.zeros_like(w["kernel"])
    d_recurrent = np.zeros_like(w["recurrent_kernel"])
    d_bias = np.zeros_like(w["bias"])
    dh, dc = np.zeros((BATCH, UNITS)), np.zeros((BATCH, UNITS))
    for t in range(x.shape[1] - 1, -1, -1):
        i, f, g, o = gates[t]
        dh = dh + 2 * (hs[t] - y[:, t])
        tanh_c = np.tanh(cs[t])
        dc = dc + dh * o * (1 - tanh_c**2)
        delta = np.hstack(
            [
                dc * g * i * (1 - i),
                dc * cs[t - 1] * f * (1 - f),  # <- the fault
                dc * i * (1 - g**2),
                dh * tanh_c * o * (1 - o),
            ]
        )
        d_kernel += x[:, t].T @ delta
        if t > 0:
            d_recurrent += hs[t - 1].T @ delta
        d_bias += delta.sum(axis=0)
        dh = delta @ w["recurrent_kernel"].T
        dc = dc * f
    return {"kernel": d_kernel, "recurrent_kernel": d_recurrent, "bias": d_bias}


def problem(T):
    x, y = x_all[:, :T], y_all[:, :T]
    parameters = {name: array.copy() for name, array in weights.items()}
    return lambda w: loss_of(w, x, y), parameters, gradients_of(parameters, x, y)
