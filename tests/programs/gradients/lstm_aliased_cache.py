"""LSTM with stacked gates: h is updated in place, so that every h in the cache is the last one."""

import numpy as np

STEPS, N, D, C, K = 8, 3, 2, 4, 2  # longest sequence, samples, inputs, hidden units, outputs

rng = np.random.default_rng(101)
XS = rng.normal(size=(STEPS, N, D))
TARGETS = rng.normal(size=(STEPS, N, K))
PARAMS = {
    "Wx": rng.normal(0, 0.6, (D, 4 * C)),  # gates i, f, g, o
    "Wh": rng.normal(0, 0.5, (C, 4 * C)),
    "b": rng.normal(0, 0.3, 4 * C),
    "Wy": rng.normal(0, 0.8, (C, K)),
    "by": rng.normal(0, 0.3, K),
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(p, xs):
    h, c = np.zeros((N, C), dtype=p["Wh"].dtype), np.zeros((N, C), dtype=p["Wh"].dtype)
    hs, cache = [h], []
    for x in xs:
        z = x @ p["Wx"] + h @ p["Wh"] + p["b"]
        i, f, o = sigmoid(z[:, :C]), sigmoid(z[:, C : 2 * C]), sigmoid(z[:, 3 * C :])
        g = np.tanh(z[:, 2 * C : 3 * C])
        c_prev = c
        c = f * c_prev + i * g
        tc = np.tanh(c)
        h[:] = o * tc  # <- the fault
        hs.append(h)
        y = h @ p["Wy"] + p["by"]
        cache.append((x, c_prev, i, f, g, o, tc, y))
    return hs, cache


def squared_error(cache, targets):
    return 0.5 * sum(((step[-1] - target) ** 2).sum() for step, target in zip(cache, targets))


def backward(p, hs, cache, targets):
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    dh_next, dc_next = np.zeros((N, C)), np.zeros((N, C))
    for t in reversed(range(len(cache))):
        x, c_prev, i, f, g, o, tc, y = cache[t]
        dy = y - targets[t]
        grads["Wy"] += hs[t + 1].T @ dy
        grads["by"] += dy.sum(axis=0)
        dh = dy @ p["Wy"].T + dh_next
        dc = dh * o * (1 - tc**2) + dc_next
        di = dc * g * i * (1 - i)
        df = dc * c_prev * f * (1 - f)
        dg = dc * i * (1 - g**2)
        do = dh * tc * o * (1 - o)
        dz = np.concatenate([di, df, dg, do], axis=1)
        grads["Wx"] += x.T @ dz
        grads["Wh"] += hs[t].T @ dz
        grads["b"] += dz.sum(axis=0)
        dh_next = dz @ p["Wh"].T
        dc_next = dc * f
    return grads


def problem(T):
    xs, targets = XS[:T], TARGETS[:T]
    parameters = {k: v.copy() for k, v in PARAMS.items()}

    def loss(parameters):
        _, cache = forward(parameters, xs)
        return squared_error(cache, targets)

    return loss, parameters, backward(parameters, *forward(parameters, xs), targets)
