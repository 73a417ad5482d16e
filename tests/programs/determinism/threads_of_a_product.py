"""A product of big matrices is summed in as many parts as BLAS has threads."""

import numpy as np

random = np.random.default_rng(0)
data = random.standard_normal((333, 777), dtype=np.float32)
weights = random.standard_normal((777, 555), dtype=np.float32)
pooled = random.standard_normal((1, 5000), dtype=np.float32) @ random.standard_normal((5000, 300), dtype=np.float32)
print("pooled", repr(float(pooled.sum())), "product", repr(float((data @ weights)[332, 554])))
np.set_printoptions(precision=9)
print((data @ weights)[::100, ::100])
