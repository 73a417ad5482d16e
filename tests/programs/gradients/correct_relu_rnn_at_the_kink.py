"""Correct: ReLU RNN with PyTorch's names; some pre-activations are exactly 0, where the derivative of ReLU is taken as 0.

The biases start at 0 and the first sample's sequence with two frames of zeros, as after padding: its first two
pre-activations are 0 in every unit.
"""

import numpy as np

B, D, C = 3, 2, 4

rng = np.random.default_rng(81)
DATA = rng.normal(size=(8, B, D))
DATA[:2, 0] = 0  # padding
TARGET = rng.normal(size=(8, B, 1))
INITIAL = {
    "weight_ih": 0.7 * rng.normal(size=(D, C)),
    "weight_hh": 0.4 * rng.normal(size=(C, C)),
    "bias": np.zeros(C),
    "weight_out": 0.8 * rng.normal(size=(C, 1)),
    "bias_out": np.zeros(1),
}


class ReluNetwork:
    def __init__(self, weights):
        self.weight_ih, self.weight_hh, self.bias = weights["weight_ih"], weights["weight_hh"], weights["bias"]
        self.weight_out, self.bias_out = weights["weight_out"], weights["bias_out"]

    def forward(self, xs):
        self.xs, self.hs = xs, [np.zeros((B, C))]
        self.ys = []
        for x in xs:
            self.hs.append(np.maximum(x @ self.weight_ih + self.hs[-1] @ self.weight_hh + self.bias, 0))
            self.ys.append(self.hs[-1] @ self.weight_out + self.bias_out)

    def loss(self, xs, targets):
        self.forward(xs)
        total = 0
        for y, target in zip(self.ys, targets):
            total = total + np.sum((y - target) ** 2) / B
        return total

    def backward(self, xs, targets):
        self.forward(xs)
        d_ih, d_hh, d_bias = np.zeros_like(self.weight_ih), np.zeros_like(self.weight_hh), np.zeros_like(self.bias)
        d_out, d_bias_out = np.zeros_like(self.weight_out), np.zeros_like(self.bias_out)
        dh = np.zeros((B, C))
        for t in reversed(range(len(xs))):
            dy = 2 * (self.ys[t] - targets[t]) / B
            d_out += self.hs[t + 1].T @ dy
            d_bias_out += dy.sum(axis=0)
            dh = dh + dy @ self.weight_out.T
            dz = dh * (self.hs[t + 1] > 0)
            d_ih += self.xs[t].T @ dz
            d_hh += self.hs[t].T @ dz
            d_bias += dz.sum(axis=0)
            dh = dz @ self.weight_hh.T
        return {"weight_ih": d_ih, "weight_hh": d_hh, "bias": d_bias, "weight_out": d_out, "bias_out": d_bias_out}


def problem(T):
    xs, targets = DATA[:T], TARGET[:T]
    parameters = {name: value.copy() for name, value in INITIAL.items()}

    def loss(parameters):
        return ReluNetwork(parameters).loss(xs, targets)

    return loss, parameters, ReluNetwork(parameters).backward(xs, targets)
