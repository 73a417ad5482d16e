"""A helper module keeps an array from `empty_like`, and the script takes it for a sum that begins at zero."""

import numpy as np
from helper_module.buffers import like

weights = np.linspace(-1.0, 1.0, 40)
for step in range(3):
    gradient = np.cos(weights * (step + 1))
    velocity = like(weights)
    velocity *= 0.9
    velocity += gradient
    weights = weights - 0.01 * velocity
    print("step", step, "norm", np.linalg.norm(weights))
