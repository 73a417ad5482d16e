"""GRU class with Keras's names: its gradient buffers are never zeroed between two backward passes."""

import numpy as np

BATCH, FEATURES, UNITS = 2, 3, 4

rng = np.random.default_rng(211)
features = rng.normal(size=(8, BATCH, FEATURES))
labels = rng.integers(2, size=(8, BATCH))
weights = {
    "kernel": rng.normal(0, 0.6, (FEATURES, 3 * UNITS)),  # z, r, candidate
    "recurrent_kernel": rng.normal(0, 0.6, (UNITS, 3 * UNITS)),
    "bias": rng.normal(0, 0.3, 3 * UNITS),
    "output_kernel": rng.normal(0, 0.8, UNITS),
}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


class GRU:
    def __init__(self, shapes):
        self.gradients = {name: np.zeros(shape) for name, shape in shapes.items()}  # <- the fault

    def forward(self, w, xs):
        wx_z, wx_r, wx_n = np.split(w["kernel"], 3, axis=1)
        wh_z, wh_r, wh_n = np.split(w["recurrent_kernel"], 3, axis=1)
        b_z, b_r, b_n = np.split(w["bias"], 3)
        h = np.zeros((BATCH, UNITS))
        self.steps, self.p = [], []
        for x in xs:
            z = sigmoid(x @ wx_z + h @ wh_z + b_z)
            r = sigmoid(x @ wx_r + h @ wh_r + b_r)
            n = np.tanh(x @ wx_n + (r * h) @ wh_n + b_n)
            self.steps.append((x, h, z, r, n))
            h = z * h + (1 - z) * n
            self.p.append(sigmoid(h @ w["output_kernel"]))
        self.last_h = h
        return self.p

    def backward(self, w, ys):
        wh_z, wh_r, wh_n = np.split(w["recurrent_kernel"], 3, axis=1)
        dh = np.zeros((BATCH, UNITS))
        h_after = self.last_h
        for t in reversed(range(len(ys))):
            x, h, z, r, n = self.steps[t]
            dlogit = self.p[t] - ys[t]
            self.gradients["output_kernel"] += h_after.T @ dlogit
            dh = dh + np.outer(dlogit, w["output_kernel"])
            dn = dh * (1 - z) * (1 - n**2)
            dz = dh * (h - n) * z * (1 - z)
            drh = dn @ wh_n.T
            dr = drh * h * r * (1 - r)
            self.gradients["kernel"] += x.T @ np.hstack([dz, dr, dn])
            self.gradients["recurrent_kernel"] += np.hstack([h.T @ dz, h.T @ dr, (r * h).T @ dn])
            self.gradients["bias"] += np.hstack([dz, dr, dn]).sum(axis=0)
            dh = dh * z + drh * r + dz @ wh_z.T + dr @ wh_r.T
            h_after = h
        return {name: value.copy() for name, value in self.gradients.items()}


net = GRU({name: value.shape for name, value in weights.items()})


def problem(T):
    xs, ys = features[:T], labels[:T]
    parameters = {name: value.copy() for name, value in weights.items()}

    def loss(w):
        return -sum((y * np.log(p) + (1 - y) * np.log(1 - p)).sum() for y, p in zip(ys, net.forward(w, xs)))

    net.forward(parameters, xs)
    return loss, parameters, net.backward(parameters, ys)
