"""Stable: a small regression is trained on seeded numbers, and observed."""

import numpy as np

from convlstm.determinism import observe

random = np.random.default_rng(1)
x = random.normal(size=(50, 3))
y = x @ np.array([1.0, -2.0, 0.5]) + 0.1 * random.normal(size=50)
w = np.zeros(3)
for step in range(5):
    error = (x * w).sum(axis=1) - y
    w = w - 0.2 * (x * error[:, None]).mean(axis=0)
    observe("weights", w)
    print(f"step {step}: loss {(error**2).mean():.17g}")
