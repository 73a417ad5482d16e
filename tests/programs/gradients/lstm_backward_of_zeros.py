"""LSTM in the style of a functional library, forward returns its backward: the weights' gradients come back as zeros."""

import numpy as np

nO, nI = 4, 3

rng = np.random.default_rng(42)
X = rng.normal(size=(8, nI))
Y = rng.normal(size=(8, nO))
W = rng.normal(0, 0.5, (nO * 4, nO + nI))  # acts on [h, x]; rows: forget, input, output, cell
b = rng.normal(0, 0.3, nO * 4)


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def lstm(params, Xs):
    """The hidden states of a sequence, and a function from their gradients to the weights' gradients."""
    W, b = params["W"], params["b"]
    h, c = np.zeros(nO), np.zeros(nO)
    hidden, steps = [], []
    for x in Xs:
        hx = np.concatenate([h, x])
        acts = (W @ hx + b).reshape(4, nO)
        hf, hi, ho = sigmoid(acts[:3])
        hc = np.tanh(acts[3])
        c_prev, c = c, hf * c + hi * hc
        h = ho * np.tanh(c)
        hidden.append(h)
        steps.append((hx, hf, hi, ho, hc, c_prev, c))

    def backprop(d_hidden):
        dW, db = np.zeros_like(W), np.zeros_like(b)
        d_h, d_c = np.zeros(nO), np.zeros(nO)
        for t in reversed(range(len(d_hidden))):
            hx, hf, hi, ho, hc, c_prev, c = steps[t]
            d_h = d_h + d_hidden[t]
            d_c = d_c + d_h * ho * (1 - np.tanh(c) ** 2)
            d_acts = np.zeros(nO * 4)  # <- the fault
            dW += np.outer(d_acts, hx)
            db += d_acts
            d_h = (W.T @ d_acts)[:nO]
            d_c = d_c * hf
        return {"W": dW, "b": db}

    return hidden, backprop


def problem(T):
    parameters = {"W": W.copy(), "b": b.copy()}

    def loss(params):
        hidden, _ = lstm(params, X[:T])
        return sum(((h - y) ** 2).sum() for h, y in zip(hidden, Y))

    hidden, backprop = lstm(parameters, X[:T])
    return loss, parameters, backprop([2 * (h - y) for h, y in zip(hidden, Y)])
