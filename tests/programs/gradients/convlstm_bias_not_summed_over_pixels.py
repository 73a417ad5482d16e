"""ConvLSTM with stacked gates on a batch: the bias's gradient is not summed over the pixels."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

N, D, C, H, W = 2, 2, 3, 5, 4  # samples, channels of the frames, hidden channels, height, width

rng = np.random.default_rng(161)
FRAMES = rng.normal(size=(8, N, D, H, W))
TARGETS = rng.normal(size=(8, N, C, H, W))
PARAMS = {
    "W_x": rng.normal(0, 0.3, (4 * C, D, 3, 3)),  # gates i, f, g, o
    "W_h": rng.normal(0, 0.3, (4 * C, C, 3, 3)),
    "b": rng.normal(0, 0.3, 4 * C),
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def windows(x):
    """(N, channels, H, W, 3, 3): the 3x3 neighbourhood of every pixel, zeros beyond the edge."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (3, 3), axis=(2, 3))


def conv(x, kernel):
    return np.tensordot(windows(x), kernel, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def conv_grad_kernel(x, dz):
    return np.tensordot(dz, windows(x), axes=((0, 2, 3), (0, 2, 3)))


def conv_grad_input(dz, kernel):
    return conv(dz, kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))


def forward(p, xs):
    h, c = np.zeros((2, N, C, H, W))
    cache = []
    for x in xs:
        z = conv(x, p["W_x"]) + conv(h, p["W_h"]) + p["b"][:, None, None]
        zi, zf, zg, zo = np.split(z, 4, axis=1)
        i, f, g, o = sigmoid(zi), sigmoid(zf), np.tanh(zg), sigmoid(zo)
        h_prev, c_prev = h, c
        c = f * c_prev + i * g
        h = o * np.tanh(c)
        cache.append((x, h_prev, c_prev, i, f, g, o, c, h))
    return cache


def backward(p, cache, targets):
    grads = {"W_x": np.zeros_like(p["W_x"]), "W_h": np.zeros_like(p["W_h"]), "b": 0}
    dh_next, dc_next = np.zeros((2, N, C, H, W))
    for t in reversed(range(len(cache))):
        x, h_prev, c_prev, i, f, g, o, c, h = cache[t]
        dh = (h - targets[t]) / N + dh_next
        tc = np.tanh(c)
        do = dh * tc * o * (1 - o)
        dc = dc_next + dh * o * (1 - tc**2)
        di = dc * g * i * (1 - i)
        df = dc * c_prev * f * (1 - f)
        dg = dc * i * (1 - g**2)
        dz = np.concatenate([di, df, dg, do], axis=1)
        grads["W_x"] += conv_grad_kernel(x, dz)
        grads["W_h"] += conv_grad_kernel(h_prev, dz)
        grads["b"] = grads["b"] + dz.sum(axis=0)  # <- the fault
        dh_next = conv_grad_input(dz, p["W_h"])
        dc_next = dc * f
    return grads


def problem(T):
    xs, targets = FRAMES[:T], TARGETS[:T]
    parameters = {k: v.copy() for k, v in PARAMS.items()}

    def loss(p):
        return sum(0.5 * ((step[-1] - y) ** 2).sum() / N for step, y in zip(forward(p, xs), targets))

    return loss, parameters, backward(parameters, forward(parameters, xs), targets)
