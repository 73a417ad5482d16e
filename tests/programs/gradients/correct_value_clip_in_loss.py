"""Correct: Elman network whose loss clips the predictions to [-1, 1]; some predictions lie exactly on the edge.

The third output starts with zero weights and bias 1, so that it predicts 1 at every step. The gradient passes where
-1 <= y <= 1, edges included, as in the usual frameworks.
"""

import numpy as np

B, D, C, K = 3, 2, 4, 3
LOW, HIGH = -1.0, 1.0

rng = np.random.default_rng(93)
DATA = rng.normal(size=(8, B, D))
TARGET = rng.uniform(LOW, HIGH, size=(8, B, K))
INITIAL = {
    "W_x": 0.7 * rng.normal(size=(D, C)),
    "W_h": 0.5 * rng.normal(size=(C, C)),
    "b_h": 0.3 * rng.normal(size=C),
    "W_o": 0.8 * rng.normal(size=(C, K)) * [1, 1, 0],
    "b_o": np.array([0.2, -0.4, HIGH]),
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
            total = total + np.sum((np.clip(y, LOW, HIGH) - target) ** 2) / B
        return total

    def backward(self, xs, targets):
        self.forward(xs)
        dW_x, dW_h, db_h = np.zeros_like(self.W_x), np.zeros_like(self.W_h), np.zeros_like(self.b_h)
        dW_o, db_o = np.zeros_like(self.W_o), np.zeros_like(self.b_o)
        dh = np.zeros((B, C))
        for t in reversed(range(len(xs))):
            y = self.ys[t]
            dy = 2 * (np.clip(y, LOW, HIGH) - targets[t]) / B * ((LOW <= y) & (y <= HIGH))
            dW_o += self.hs[t + 1].T @ dy
            db_o += dy.sum(axis=0)
            dh = dh + dy @ self.W_o.T
            dz = dh * (1 - self.hs[t + 1] ** 2)
            dW_x += self.xs[t].T @ dz
            dW_h += self.hs[t].T @ dz
            db_h += dz.sum(axis=0)
            dh = dz @ self.W_h.T
        return {"W_x": dW_x, "W_h": dW_h, "b_h": db_h, "W_o": dW_o, "b_o": db_o}


def problem(T):
    xs, targets = DATA[:T], TARGET[:T]
    parameters = {name: value.copy() for name, value in INITIAL.items()}

    def loss(parameters):
        return ElmanNetwork(parameters).loss(xs, targets)

    return loss, parameters, ElmanNetwork(parameters).backward(xs, targets)
