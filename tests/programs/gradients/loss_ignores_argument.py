"""Elman network on a batch: the loss uses a global network's weights instead of those it is given."""

import numpy as np

B, D, C = 3, 2, 4

rng = np.random.default_rng(404)
DATA = rng.normal(size=(8, B, D))
TARGET = rng.normal(size=(8, B, 1))
INITIAL = {
    "W_x": 0.7 * rng.normal(size=(D, C)),
    "W_h": 0.5 * rng.normal(size=(C, C)),
    "b_h": 0.3 * rng.normal(size=C),
    "W_o": 0.8 * rng.normal(size=(C, 1)),
    "b_o": 0.3 * rng.normal(size=1),
}


class ElmanNetwork:
    def __init__(self, weights):
        self.W_x, self.W_h, self.b_h = weights["W_x"], weights["W_h"], weights["b_h"]
        self.W_o, self.b_o = weights["W_o"], weights["b_o"]

    def forward(self, xs):
        self.xs, self.hs = xs, [np.zeros((B, C))]
        self.ys = []
        for x in xs:
            self.hs.append(np.tanh(x @ self.W_x + self.hs[-1] @ self.W_h + self.b_h))
            self.ys.append(self.hs[-1] @ self.W_o + self.b_o)

    def loss(self, xs, targets):
        self.forward(xs)
        total = 0
        for y, target in zip(self.ys, targets):
            total = total + np.sum((y - target) ** 2) / B
        return total

    def backward(self, xs, targets):
        self.forward(xs)
        dW_x, dW_h, db_h = np.zeros_like(self.W_x), np.zeros_like(self.W_h), np.zeros_like(self.b_h)
        dW_o, db_o = np.zeros_like(self.W_o), np.zeros_like(self.b_o)
        dh = np.zeros((B, C))
        for t in reversed(range(len(xs))):
            dy = 2 * (self.ys[t] - targets[t]) / B
            dW_o += self.hs[t + 1].T @ dy
            db_o += dy.sum(axis=0)
            dh = dh + dy @ self.W_o.T
            dz = dh * (1 - self.hs[t + 1] ** 2)
            dW_x += self.xs[t].T @ dz
            dW_h += self.hs[t].T @ dz
            db_h += dz.sum(axis=0)
            dh = dz @ self.W_h.T
        return {"W_x": dW_x, "W_h": dW_h, "b_h": db_h, "W_o": dW_o, "b_o": db_o}


network = ElmanNetwork({name: value.copy() for name, value in INITIAL.items()})


def problem(T):
    xs, targets = DATA[:T], TARGET[:T]
    parameters = {name: value.copy() for name, value in INITIAL.items()}

    def loss(parameters):
        return network.loss(xs, targets)  # <- the fault

    return loss, parameters, network.backward(xs, targets)
