"""Infinities and NaNs in training: each stops the run, and the message names step, tensor and sequence.

Which sequence it was is found only then, by computing those of the batch one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from convlstm.backends import Array

Alone = Callable[[int], tuple[float, Mapping[str, Array]]]  # loss and gradients of the batch's n-th sequence alone

MENDS = "the weights before it are saved; try a smaller learning_rate"


class NotFinite(ArithmeticError):
    """Training met an infinity or a NaN; the message names step, tensor and sequence."""


def check_frames(what: str, frames: Array, indices: range, to_numpy: Callable[[Array], Array] = np.asarray) -> None:
    """Check sequences of the split train before anything is computed from them.

    Args:
        what: what they are, for the message, as "data of step 3".
        frames: (N, T, channels, H, W).
        indices: of these N sequences.
        to_numpy: brings them to the host; asked only where something is wrong.

    Raises:
        NotFinite: a number in them is not.
    """
    if np.isfinite(frames).all():
        return
    host = to_numpy(frames)
    n, t, channel, row, column = np.argwhere(~np.isfinite(host))[0]
    value = host[n, t, channel, row, column]
    place = f"frame {t}, channel {channel}, row {row}, column {column}"
    raise NotFinite(f"{what}: sequence {indices[n]} of split train holds {value} at {place}")


def check_results(loss: float, gradients: Mapping[str, Array], indices: range, step: int, alone: Alone) -> None:
    """Check what a step computed before it moves the weights.

    Args:
        loss, gradients: of the batch.
        indices: of its sequences in the split train.
        step: the step's number.
        alone: asked only where something is wrong.

    Raises:
        NotFinite: the loss or a gradient is not.
    """
    if not np.isfinite(loss):
        culprit = _culprit(indices, lambda n: bool(np.isfinite(alone(n)[0])))
        raise NotFinite(f"loss is {loss} at step {step}, {culprit}; {MENDS}")
    name = first_not_finite(gradients)
    if name is not None:
        culprit = _culprit(indices, lambda n: bool(np.isfinite(alone(n)[1][name]).all()))
        raise NotFinite(f"gradient to {name} is infinite or NaN at step {step}, {culprit}; {MENDS}")


def check_weights(weights: Mapping[str, Array], indices: range, step: int) -> None:
    """Check the weights that a step made of finite gradients.

    Raises:
        NotFinite: one of them is not.
    """
    name = first_not_finite(weights)
    if name is not None:
        raise NotFinite(
            f"step {step} makes {name} infinite or NaN, with {_batch(indices)}; it is taken back; try a smaller "
            "learning_rate"
        )


def first_not_finite(arrays: Mapping[str, Array]) -> str | None:
    """Return the name of the first array that holds an infinity or a NaN; None where none does."""
    return next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)


def _culprit(indices: range, is_finite: Callable[[int], bool]) -> str:
    """Return the first sequence that is not finite alone, in words."""
    for n, index in enumerate(indices):
        if not is_finite(n):
            return f"from sequence {index} of split train"
    return f"from {_batch(indices)} together"


def _batch(indices: range) -> str:
    last = indices[-1]
    return f"sequence {last} of split train" if len(indices) == 1 else f"sequences {indices[0]} … {last} of split train"


@contextmanager
def without_overflow_warnings() -> Iterator[None]:
    """Silence NumPy's warnings of what `NotFinite` says once; np.errstate would not reach the worker threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(overflow|invalid value|divide by zero) encountered", RuntimeWarning)
        yield
