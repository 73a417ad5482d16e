"""Elman network with a forbidden class: its probability is 0 and 0 * log(0) makes the loss NaN."""

import numpy as np

SAMPLES, INPUTS, UNITS, CLASSES = 2, 3, 4, 4
PADDING = 0  # a class that must never be predicted

rng = np.random.default_rng(606)
frames = rng.normal(size=(8, SAMPLES, INPUTS))
wanted = np.eye(CLASSES)[rng.integers(1, CLASSES, size=(8, SAMPLES))]
start = {
    "U": rng.normal(scale=0.6, size=(INPUTS, UNITS)),
    "W": rng.normal(scale=0.5, size=(UNITS, UNITS)),
    "b": rng.normal(scale=0.2, size=UNITS),
    "V": rng.normal(scale=0.8, size=(UNITS, CLASSES)),
}


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def forward(params, xs):
    hs, probs = [np.zeros((SAMPLES, UNITS))], []
    for x in xs:
        hs.append(np.tanh(x @ params["U"] + hs[-1] @ params["W"] + params["b"]))
        logits = hs[-1] @ params["V"]
        logits[:, PADDING] = -np.inf
        probs.append(softmax(logits))
    return hs, probs


def backward(params, xs, labels):
    hs, probs = forward(params, xs)
    grads = {name: np.zeros_like(value) for name, value in params.items()}
    dh_next = np.zeros((SAMPLES, UNITS))
    for t in range(len(xs) - 1, -1, -1):
        dlogits = probs[t] - labels[t]
        grads["V"] += hs[t + 1].T @ dlogits
        da = (dlogits @ params["V"].T + dh_next) * (1 - hs[t + 1] ** 2)
        grads["U"] += xs[t].T @ da
        grads["W"] += hs[t].T @ da
        grads["b"] += da.sum(axis=0)
        dh_next = da @ params["W"].T
    return grads


def problem(T):
    xs, labels = frames[:T], wanted[:T]
    parameters = {name: value.copy() for name, value in start.items()}

    def loss(params):
        _, probs = forward(params, xs)
        with np.errstate(divide="ignore", invalid="ignore"):
            return -sum((y * np.log(p)).sum() for y, p in zip(labels, probs))  # <- the fault

    return loss, parameters, backward(parameters, xs, labels)
