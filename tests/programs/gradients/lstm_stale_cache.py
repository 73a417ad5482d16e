"""LSTM class: the cache is filled by the first forward pass ever made, and every backward pass uses that one."""

import numpy as np

D, C = 2, 4

rng = np.random.default_rng(91)
series = rng.normal(size=(9, D))  # every step predicts the next one
theta = {
    "W": rng.normal(scale=0.6, size=(4 * C, D)),  # rows: input, forget, output, candidate
    "R": rng.normal(scale=0.5, size=(4 * C, C)),
    "b": rng.normal(scale=0.3, size=4 * C),
    "P": rng.normal(scale=0.8, size=(D, C)),
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


class Forecaster:
    def __init__(self):
        self.cache = None

    def forward(self, theta, xs, targets):
        h, c, loss, cache = np.zeros(C), np.zeros(C), 0.0, []
        for x, target in zip(xs, targets):
            z = theta["W"] @ x + theta["R"] @ h + theta["b"]
            i, f, o = sigmoid(z[:C]), sigmoid(z[C : 2 * C]), sigmoid(z[2 * C : 3 * C])
            a = np.tanh(z[3 * C :])
            h_prev, c_prev = h, c
            c = i * a + f * c
            h = o * np.tanh(c)
            error = theta["P"] @ h - target
            loss = loss + (error**2).sum()
            cache.append((x, h_prev, c_prev, i, f, o, a, c, h, error))
        if self.cache is None:  # <- the fault
            self.cache = cache
        return loss

    def backward(self, theta):
        grads = {name: np.zeros_like(value) for name, value in theta.items()}
        dh, dc = np.zeros(C), np.zeros(C)
        for x, h_prev, c_prev, i, f, o, a, c, h, error in reversed(self.cache):
            grads["P"] += np.outer(2 * error, h)
            dh = dh + theta["P"].T @ (2 * error)
            dc = dc + dh * o * (1 - np.tanh(c) ** 2)
            dz = np.concatenate(
                [
                    dc * a * i * (1 - i),
                    dc * c_prev * f * (1 - f),
                    dh * np.tanh(c) * o * (1 - o),
                    dc * i * (1 - a**2),
                ]
            )
            grads["W"] += np.outer(dz, x)
            grads["R"] += np.outer(dz, h_prev)
            grads["b"] += dz
            dh = theta["R"].T @ dz
            dc = dc * f
        return grads


model = Forecaster()


def problem(T):
    xs, targets = series[:T], series[1 : T + 1]
    parameters = {name: value.copy() for name, value in theta.items()}

    def loss(parameters):
        return model.forward(parameters, xs, targets)

    model.forward(parameters, xs, targets)
    return loss, parameters, model.backward(parameters)
