"""Correct: GRU with one set of arrays per gate, a batch of sequences, squared error at every step."""

import numpy as np

T_MAX, N, D, C = 8, 2, 3, 4

rng = np.random.default_rng(77)
SEQUENCES = rng.normal(size=(T_MAX, N, D))
TARGETS = rng.normal(size=(T_MAX, N, C))


def initial_parameters():
    params = {}
    for gate in "zrh":  # update, reset, candidate
        params["W_" + gate] = rng.normal(0, 0.6, (D, C))
        params["U_" + gate] = rng.normal(0, 0.6, (C, C))
        params["b_" + gate] = rng.normal(0, 0.3, C)
    return params


PARAMETERS = initial_parameters()


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def forward(p, xs):
    h = np.zeros((N, C))
    cache = []
    for x in xs:
        z = sigmoid(x @ p["W_z"] + h @ p["U_z"] + p["b_z"])
        r = sigmoid(x @ p["W_r"] + h @ p["U_r"] + p["b_r"])
        n = np.tanh(x @ p["W_h"] + (r * h) @ p["U_h"] + p["b_h"])
        h_new = (1 - z) * h + z * n
        cache.append((x, h, z, r, n, h_new))
        h = h_new
    return cache


def backward(p, cache, targets):
    grads = {name: np.zeros_like(value) for name, value in p.items()}
    dh_next = np.zeros((N, C))
    for t in reversed(range(len(cache))):
        x, h, z, r, n, h_new = cache[t]
        dh = (h_new - targets[t]) + dh_next
        dn = dh * z * (1 - n**2)
        dz = dh * (n - h) * z * (1 - z)
        drh = dn @ p["U_h"].T
        dr = drh * h * r * (1 - r)
        for gate, delta, state in (("z", dz, h), ("r", dr, h), ("h", dn, r * h)):
            grads["W_" + gate] += x.T @ delta
            grads["U_" + gate] += state.T @ delta
            grads["b_" + gate] += delta.sum(axis=0)
        dh_next = dh * (1 - z) + drh * r + dz @ p["U_z"].T + dr @ p["U_r"].T
    return grads


def problem(T):
    xs, targets = SEQUENCES[:T], TARGETS[:T]
    parameters = {name: value.copy() for name, value in PARAMETERS.items()}

    def loss(p):
        cache = forward(p, xs)
        return sum(0.5 * ((step[-1] - target) ** 2).sum() for step, target in zip(cache, targets))

    return loss, parameters, backward(parameters, forward(parameters, xs), targets)
