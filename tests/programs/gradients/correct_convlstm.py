"""Correct: ConvLSTM with 3x3 kernels, zero padding, a bias per channel and peepholes per pixel."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

N, D, C, H, W = 2, 2, 3, 5, 4  # samples, channels of the frames, hidden channels, height, width

rng = np.random.default_rng(17)
FRAMES = rng.normal(size=(8, N, D, H, W))
TARGETS = rng.normal(size=(8, N, C, H, W))
PARAMS = {
    "W_x": rng.normal(0, 0.3, (4 * C, D, 3, 3)),  # gates i, f, g, o
    "W_h": rng.normal(0, 0.3, (4 * C, C, 3, 3)),
    "b": rng.normal(0, 0.3, 4 * C),
    "p_i": rng.normal(0, 0.5, (C, H, W)),
    "p_f": rng.normal(0, 0.5, (C, H, W)),
    "p_o": rng.normal(0, 0.5, (C, H, W)),
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
        h_prev, c_prev = h, c
        i, f, g = sigmoid(zi + p["p_i"] * c_prev), sigmoid(zf + p["p_f"] * c_prev), np.tanh(zg)
        c = f * c_prev + i * g
        o = sigmoid(zo + p["p_o"] * c)
        h = o * np.tanh(c)
        cache.append((x, h_prev, c_prev, i, f, g, o, c, h))
    return cache


def backward(p, cache, targets):
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    dh_next, dc_next = np.zeros((2, N, C, H, W))
    for t in reversed(range(len(cache))):
        x, h_prev, c_prev, i, f, g, o, c, h = cache[t]
        dh = (h - targets[t]) / N + dh_next
        tc = np.tanh(c)
        do = dh * tc * o * (1 - o)
        dc = dc_next + dh * o * (1 - tc**2) + do * p["p_o"]
        di = dc * g * i * (1 - i)
        df = dc * c_prev * f * (1 - f)
        dg = dc * i * (1 - g**2)
        dz = np.concatenate([di, df, dg, do], axis=1)
        grads["W_x"] += conv_grad_kernel(x, dz)
        grads["W_h"] += conv_grad_kernel(h_prev, dz)
        grads["b"] += dz.sum(axis=(0, 2, 3))
        dh_next = conv_grad_input(dz, p["W_h"])
        dc_next = dc * f + di * p["p_i"] + df * p["p_f"]
        grads["p_i"] += (di * c_prev).sum(axis=0)
        grads["p_f"] += (df * c_prev).sum(axis=0)
        grads["p_o"] += (do * c).sum(axis=0)
    return grads


def problem(T):
    xs, targets = FRAMES[:T], TARGETS[:T]
    parameters = {k: v.copy() for k, v in PARAMS.items()}

    def loss(p):
        return sum(0.5 * ((step[-1] - y) ** 2).sum() / N for step, y in zip(forward(p, xs), targets))

    return loss, parameters, backward(parameters, forward(parameters, xs), targets)
