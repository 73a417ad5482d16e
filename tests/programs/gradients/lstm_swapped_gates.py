"""LSTM with stacked gates: backward concatenates the blocks of the forget and the output gate in the wrong order."""

import numpy as np

STEPS, N, D, C, K = 8, 3, 2, 4, 2  # longest sequence, samples, inputs, hidden units, outputs

rng = np.random.default_rng(81)
XS = rng.normal(size=(STEPS, N, D))
TARGETS = rng.normal(size=(STEPS, N, K))
PARAMS = {
    "W_x": rng.normal(0, 0.6, (D, 4 * C)),  # gates i, f, g, o
    "W_h": rng.normal(0, 0.5, (C, 4 * C)),
    "b": rng.normal(0, 0.3, 4 * C),
    "W_y": rng.normal(0, 0.8, (C, K)),
    "b_y": rng.normal(0, 0.3, K),
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(p, xs):
    h, c = np.zeros((N, C)), np.zeros((N, C))
    cache = []
    for x in xs:
        z = x @ p["W_x"] + h @ p["W_h"] + p["b"]
        i, f, o = sigmoid(z[:, :C]), sigmoid(z[:, C : 2 * C]), sigmoid(z[:, 3 * C :])
        g = np.tanh(z[:, 2 * C : 3 * C])
        h_prev, c_prev = h, c
        c = f * c_prev + i * g
        tc = np.tanh(c)
        h = o * tc
        y = h @ p["W_y"] + p["b_y"]
        cache.append((x, h_prev, c_prev, i, f, g, o, tc, h, y))
    return cache


def squared_error(cache, targets):
    return 0.5 * sum(((step[-1] - target) ** 2).sum() for step, target in zip(cache, targets))


def backward(p, cache, targets):
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    dh_next, dc_next = np.zeros((N, C)), np.zeros((N, C))
    for t in reversed(range(len(cache))):
        x, h_prev, c_prev, i, f, g, o, tc, h, y = cache[t]
        dy = y - targets[t]
        grads["W_y"] += h.T @ dy
        grads["b_y"] += dy.sum(axis=0)
        dh = dy @ p["W_y"].T + dh_next
        dc = dh * o * (1 - tc**2) + dc_next
        di = dc * g * i * (1 - i)
        df = dc * c_prev * f * (1 - f)
        dg = dc * i * (1 - g**2)
        do = dh * tc * o * (1 - o)
        dgates = np.concatenate([di, do, dg, df], axis=1)  # <- the fault
        grads["W_x"] += x.T @ dgates
        grads["W_h"] += h_prev.T @ dgates
        grads["b"] += dgates.sum(axis=0)
        Wi, Wf, Wg, Wo = np.split(p["W_h"], 4, axis=1)
        dh_next = di @ Wi.T + df @ Wf.T + dg @ Wg.T + do @ Wo.T
        dc_next = dc * f
    return grads


def problem(T):
    xs, targets = XS[:T], TARGETS[:T]
    parameters = {k: v.copy() for k, v in PARAMS.items()}

    def loss(parameters):
        return squared_error(forward(parameters, xs), targets)

    return loss, parameters, backward(parameters, forward(parameters, xs), targets)
