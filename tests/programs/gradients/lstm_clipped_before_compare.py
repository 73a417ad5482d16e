"""LSTM class with PyTorch's names: the gradients are clipped to a global norm of 1 before anybody compares them."""

import numpy as np

H, I = 4, 3  # hidden size, input size
MAX_T = 8

rng = np.random.default_rng(231)
inputs = rng.standard_normal((MAX_T, I))
targets = rng.standard_normal((MAX_T, 2))
initial = dict(
    weight_ih=rng.uniform(-0.8, 0.8, (4 * H, I)),
    weight_hh=rng.uniform(-0.8, 0.8, (4 * H, H)),
    bias=rng.uniform(-0.5, 0.5, 4 * H),
    weight_out=rng.uniform(-1, 1, (2, H)),
)


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


class LSTM:
    """Gates in PyTorch's order: input, forget, cell, output."""

    def __init__(self, params):
        self.params = params

    def forward(self, seq):
        p = self.params
        self.seq = seq
        self.h, self.c = {-1: np.zeros(H)}, {-1: np.zeros(H)}
        self.gates, self.outputs = [], []
        for t, x in enumerate(seq):
            a = p["weight_ih"].dot(x) + p["weight_hh"].dot(self.h[t - 1]) + p["bias"]
            i, f, o = sigmoid(a[:H]), sigmoid(a[H : 2 * H]), sigmoid(a[3 * H :])
            g = np.tanh(a[2 * H : 3 * H])
            self.c[t] = f * self.c[t - 1] + i * g
            self.h[t] = o * np.tanh(self.c[t])
            self.gates.append((i, f, g, o))
            self.outputs.append(p["weight_out"].dot(self.h[t]))
        return self.outputs

    def loss(self, seq, target):
        return sum(np.sum((y - d) ** 2) for y, d in zip(self.forward(seq), target))

    def backward(self, target):
        p = self.params
        grad = {name: np.zeros_like(value) for name, value in p.items()}
        dh_next, dc_next = np.zeros(H), np.zeros(H)
        for t in reversed(range(len(self.seq))):
            i, f, g, o = self.gates[t]
            dy = 2 * (self.outputs[t] - target[t])
            grad["weight_out"] += np.outer(dy, self.h[t])
            dh = p["weight_out"].T.dot(dy) + dh_next
            tanh_c = np.tanh(self.c[t])
            dc = dc_next + dh * o * (1 - tanh_c**2)
            da = np.empty_like(p["bias"])
            da[:H] = dc * g * i * (1 - i)
            da[H : 2 * H] = dc * self.c[t - 1] * f * (1 - f)
            da[2 * H : 3 * H] = dc * i * (1 - g**2)
            da[3 * H :] = dh * tanh_c * o * (1 - o)
            grad["weight_ih"] += np.outer(da, self.seq[t])
            grad["weight_hh"] += np.outer(da, self.h[t - 1])
            grad["bias"] += da
            dh_next = p["weight_hh"].T.dot(da)
            dc_next = dc * f
        norm = np.sqrt(sum(np.sum(value**2) for value in grad.values()))
        if norm > 1:
            grad = {name: value / norm for name, value in grad.items()}  # <- the fault
        return grad


def problem(T):
    seq, target = inputs[:T], targets[:T]
    parameters = {name: value.copy() for name, value in initial.items()}

    def loss(parameters):
        return LSTM(parameters).loss(seq, target)

    net = LSTM(parameters)
    net.forward(seq)
    return loss, parameters, net.backward(target)
