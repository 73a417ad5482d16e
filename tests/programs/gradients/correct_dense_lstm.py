"""Correct: LSTM with stacked gates, a batch of sequences, linear read-out, softmax cross-entropy at every step."""

import numpy as np

STEPS, N, D, C, K = 8, 3, 2, 4, 3  # longest sequence, samples, inputs, hidden units, classes

rng = np.random.default_rng(11)
XS = rng.normal(size=(STEPS, N, D))
LABELS = rng.integers(K, size=(STEPS, N))
PARAMS = {
    "W_x": rng.normal(0, 0.6, (D, 4 * C)),  # gates i, f, g, o
    "W_h": rng.normal(0, 0.5, (C, 4 * C)),
    "b": rng.normal(0, 0.3, 4 * C),
    "W_y": rng.normal(0, 0.8, (C, K)),
    "b_y": rng.normal(0, 0.3, K),
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


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
        probs = softmax(h @ p["W_y"] + p["b_y"])
        cache.append((x, h_prev, c_prev, i, f, g, o, tc, h, probs))
    return cache


def cross_entropy(cache, labels):
    return -sum(np.log(step[-1][np.arange(N), ys]).sum() for step, ys in zip(cache, labels))


def backward(p, cache, labels):
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    dh_next, dc_next = np.zeros((N, C)), np.zeros((N, C))
    for t in reversed(range(len(cache))):
        x, h_prev, c_prev, i, f, g, o, tc, h, probs = cache[t]
        dy = probs.copy()
        dy[np.arange(N), labels[t]] -= 1
        grads["W_y"] += h.T @ dy
        grads["b_y"] += dy.sum(axis=0)
        dh = dy @ p["W_y"].T + dh_next
        dc = dh * o * (1 - tc**2) + dc_next
        di = dc * g * i * (1 - i)
        df = dc * c_prev * f * (1 - f)
        dg = dc * i * (1 - g**2)
        do = dh * tc * o * (1 - o)
        dz = np.concatenate([di, df, dg, do], axis=1)
        grads["W_x"] += x.T @ dz
        grads["W_h"] += h_prev.T @ dz
        grads["b"] += dz.sum(axis=0)
        dh_next = dz @ p["W_h"].T
        dc_next = dc * f
    return grads


def problem(T):
    xs, labels = XS[:T], LABELS[:T]
    parameters = {k: v.copy() for k, v in PARAMS.items()}

    def loss(parameters):
        return cross_entropy(forward(parameters, xs), labels)

    return loss, parameters, backward(parameters, forward(parameters, xs), labels)
