"""LSTM on a batch of sequences: the gradient of the gates' bias is that of the batch's last sample alone."""

import numpy as np

STEPS, N, D, C, K = 8, 3, 2, 4, 3  # longest sequence, samples, inputs, hidden units, classes

rng = np.random.default_rng(171)
XS = rng.normal(size=(STEPS, N, D))
LABELS = rng.integers(K, size=(STEPS, N))
PARAMS = {
    "weight_ih": rng.normal(0, 0.6, (4 * C, D)),  # gates i, f, g, o
    "weight_hh": rng.normal(0, 0.5, (4 * C, C)),
    "bias": rng.normal(0, 0.3, 4 * C),
    "weight_out": rng.normal(0, 0.8, (C, K)),
    "bias_out": rng.normal(0, 0.3, K),
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
        z = x @ p["weight_ih"].T + h @ p["weight_hh"].T + p["bias"]
        i, f, o = sigmoid(z[:, :C]), sigmoid(z[:, C : 2 * C]), sigmoid(z[:, 3 * C :])
        g = np.tanh(z[:, 2 * C : 3 * C])
        h_prev, c_prev = h, c
        c = f * c_prev + i * g
        tc = np.tanh(c)
        h = o * tc
        probs = softmax(h @ p["weight_out"] + p["bias_out"])
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
        grads["weight_out"] += h.T @ dy
        grads["bias_out"] += dy.sum(axis=0)
        dh = dy @ p["weight_out"].T + dh_next
        dc = dh * o * (1 - tc**2) + dc_next
        di = dc * g * i * (1 - i)
        df = dc * c_prev * f * (1 - f)
        dg = dc * i * (1 - g**2)
        do = dh * tc * o * (1 - o)
        dz = np.concatenate([di, df, dg, do], axis=1)
        grads["weight_ih"] += dz.T @ x
        grads["weight_hh"] += dz.T @ h_prev
        grads["bias"] += dz[-1]  # <- the fault
        dh_next = dz @ p["weight_hh"]
        dc_next = dc * f
    return grads


def problem(T):
    xs, labels = XS[:T], LABELS[:T]
    parameters = {k: v.copy() for k, v in PARAMS.items()}

    def loss(parameters):
        return cross_entropy(forward(parameters, xs), labels)

    return loss, parameters, backward(parameters, forward(parameters, xs), labels)
