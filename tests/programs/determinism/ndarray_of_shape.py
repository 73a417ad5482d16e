"""Sums begin in `np.ndarray(shape)`, and in `empty` under another name."""

import numpy as np
from numpy import empty as e

samples = np.sqrt(np.arange(60.0)).reshape(20, 3)
total = np.ndarray((3,))  # <- read before it is written
squares = e(3)  # <- read before it is written
count = np.zeros(3)
for sample in samples:
    total += sample
    squares += sample**2
    count += 1
print("mean", total / count)
print("variance", squares / count - (total / count) ** 2)
