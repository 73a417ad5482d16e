"""The weights come from a generator that nobody seeded."""

import numpy as np

weights = np.random.default_rng().normal(size=(3, 4))
print("output", np.tanh(weights @ np.ones(4)))
