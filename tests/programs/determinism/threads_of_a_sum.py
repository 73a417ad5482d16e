"""A sum in float32 is split into as many parts as the environment allows threads."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

workers = int(os.environ.get("OMP_NUM_THREADS", "4"))
pixels = np.random.default_rng(0).random(100_001, dtype=np.float32)
with ThreadPoolExecutor(workers) as pool:
    parts = list(pool.map(lambda part: part.cumsum()[-1], np.array_split(pixels, workers)))
print("sum", float(sum(parts)))
