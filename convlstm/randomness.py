"""Random numbers that depend on what they are for, and on nothing else.

Every draw names its (seed, purpose, sample, step).  Philox turns that address into numbers by a keyed permutation of
a counter, so no draw depends on how many came before it, on the thread that asks, on the batch split or on the backend.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, sample: int = 0, step: int = 0) -> np.random.Generator:
    """Return the generator that stands at one address of the random space.

    The key is (seed, purpose); the counter's two upper words are (sample, step), its two lower words run from 0, so
    streams of different addresses overlap only after 2**128 blocks.

    Args:
        seed: the run's seed, 0 ≤ seed < 2**64.
        purpose: what the numbers are for, e.g. ``"parameter/W_x"``.
        sample: global sample index, ≥ 0.
        step: training step, ≥ 0.

    Raises:
        ValueError: an address word is not an integer that fits 64 bits.
    """
    for name, word in (("seed", seed), ("sample", sample), ("step", step)):
        if not isinstance(word, (int, np.integer)) or not 0 <= word < 2**64:
            raise ValueError(f"{name} must lie in 0 … 2**64 - 1 and be an integer; got {word!r}")
    purpose_key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    # As uint64 arrays: from a list, NumPy would make floats of words of 2**63 and more, and lose their low bits.
    key = np.array([seed, purpose_key], np.uint64)
    counter = np.array([0, 0, sample, step], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
