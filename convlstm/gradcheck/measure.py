"""One parameter's gradient beside numerical derivatives: which entries are right, which wrong, which cannot be told.

An entry is right where |a - n| ≤ tolerance + the numerical error, and wrong only where the difference is several times
that.  The tolerance follows the precision of what was given: 1e-6 of the entry for float64, 4e-4 where the gradient
holds nothing but float32 numbers or the loss is rounded like one.  What is below the rounding of the largest gradient
of all, or moves the loss by less than its own rounding, counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from convlstm.gradcheck.arrays import Host
from convlstm.gradcheck.differences import EPSILON, Derivative, Differences

Status = Literal["right", "wrong", "undecided", "kink", "unread"]
FULL = 128  # entries; up to so many, all of a parameter are checked
SAMPLE = 64  # entries of a larger one
DIRECTIONS = 2  # random directions in a larger one, each through all of its entries


@dataclass
class Measured:
    """What is known of one parameter's gradient."""

    name: str
    analytic: Host  # as it was given, the parameter's shape
    precision: float  # eps of the numbers it holds
    loss_precision: float  # eps of the arithmetic in the loss that it is compared with
    moves: bool = True  # whether the loss reads the parameter at all
    flat: list[int] = field(default_factory=list)  # entries checked, in the order of C
    numeric: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)  # estimated, of the numeric ones
    statuses: list[Status] = field(default_factory=list)
    direction: Status = "right"  # of the random directions together
    direction_error: float = 0.0  # largest |⟨v, a⟩ - numeric| / √Σ(v·a)²

    def known(self) -> tuple[npt.NDArray[np.intp], Host, Host]:
        """Return (flat indices, numeric, error) of the entries whose numerical derivative can be relied on, sorted."""
        keep = self._kept()
        return np.array(self.flat, np.intp)[keep], np.array(self.numeric)[keep], np.array(self.errors)[keep]

    def wrong(self) -> npt.NDArray[np.bool_]:
        """Return which of the `known` entries are wrong."""
        return np.array([self.statuses[k] == "wrong" for k in self._kept()], np.bool_)

    def _kept(self) -> list[int]:
        keep = [k for k, status in enumerate(self.statuses) if status in ("right", "wrong")]
        return sorted(keep, key=self.flat.__getitem__)

    @property
    def rtol(self) -> float:
        """The tolerance, relative to an entry."""
        return min(max(1e-6, 3e3 * self.precision, 2e4 * self.loss_precision * (self.loss_precision > EPSILON)), 0.1)

    def count(self, status: Status) -> int:
        """Return how many entries have this status."""
        return self.statuses.count(status)

    @property
    def status(self) -> Status:
        """The verdict on the parameter."""
        if not self.moves:
            return "unread" if self.differs else "right"
        if self.differs:
            return "wrong"
        return "right" if 2 * (self.count("right") + self.count("kink")) >= len(self.flat) else "undecided"

    @property
    def differs(self) -> bool:
        """Whether any number differs from the numerical derivative, also where the loss does not read the parameter."""
        return self.count("wrong") > 0 or self.direction == "wrong"

    @property
    def scale(self) -> float:
        """The largest entry of either gradient."""
        return max([float(abs(self.analytic).max(initial=0)), *map(abs, self.numeric)])

    @property
    def largest_error(self) -> float:
        """The largest |a - n| of the known entries, relative to `scale`, or the directions' where that is larger."""
        flat, numeric, _ = self.known()
        if not flat.size or self.scale == 0:
            return self.direction_error
        return max(float(abs(self.analytic.flat[flat] - numeric).max()) / self.scale, self.direction_error)


class Meter:
    """Measures gradients against one loss's differences."""

    def __init__(
        self, differences: Differences, gradient_scale: float, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Take the loss, the largest entry of all gradients, the seed of samples and directions, and whom to tell."""
        self.differences = differences
        self._global = gradient_scale
        self._seed = seed
        self._progress = progress

    def start(self, name: str, analytic: Host, dtype: npt.DTypeLike) -> Measured:
        """Return an empty record of one parameter, whose gradient was given in `dtype`."""
        precision, of_loss = _precision(analytic, dtype), self.differences.precision
        return Measured(name, analytic, max(precision, of_loss), of_loss, moves=self.differences.moves(name))

    def sample(self, measured: Measured) -> list[int]:
        """Return which entries to check: all of few, else the largest ones and some at random, the same each time."""
        size = measured.analytic.size
        if size <= FULL:
            return list(range(size))
        rng = np.random.default_rng(self._seed)
        spread = rng.choice(size, size=3 * SAMPLE // 4, replace=False)
        largest = np.argsort(-abs(measured.analytic).ravel(), kind="stable")[: SAMPLE // 4]
        return sorted({*map(int, spread), *map(int, largest)})

    def check_entries(self, measured: Measured, flat: Iterable[int]) -> None:
        """Check these entries as well."""
        for index in flat:
            if index in measured.flat:
                continue
            self._progress(f"{measured.name}: {len(measured.flat)} entries checked")
            a = float(measured.analytic.flat[index])
            largest = float(abs(measured.analytic).max())
            unit = max(1.0, abs(float(self.differences.point[measured.name].flat[index])))
            tolerance = measured.rtol * abs(a) + self._floor(measured, largest)
            negligible = 100 * max(measured.precision * self._global, self.differences.noise / unit)
            if abs(a) <= negligible:
                tolerance += negligible
            found = self.differences.entry(measured.name, index, a, tolerance)
            scale = max(largest, abs(found.value), 1e-6 * self._global)
            measured.flat.append(index)
            measured.numeric.append(found.value)
            measured.errors.append(found.error)
            measured.statuses.append(_verdict(a, found, tolerance, scale))

    def check_directions(self, measured: Measured) -> None:
        """Check ⟨v, a⟩ along random directions; where one is wrong and no entry was, find an entry that is."""
        size = measured.analytic.size
        few = len(measured.flat) == size
        for k in range(1 if few else DIRECTIONS):
            v = np.random.default_rng((self._seed, k)).standard_normal(measured.analytic.shape)
            status, error = self._along(measured, v / np.sqrt(max(size, 1)))
            if status == "right":
                measured.direction_error = max(measured.direction_error, error)
            elif status == "wrong" and not few:
                measured.direction, measured.direction_error = "wrong", max(measured.direction_error, error)
                if not measured.count("wrong"):
                    self._find(measured, v)

    def _along(self, measured: Measured, v: Host) -> tuple[Status, float]:
        terms = v * measured.analytic
        a, size = float(terms.sum()), float(np.sqrt((terms**2).sum()))
        scale = max(size, 1e-6 * self._global)
        tolerance = measured.rtol * size + self._floor(measured, size)
        if abs(measured.analytic).max(initial=0) <= 100 * max(
            measured.precision * self._global, self.differences.noise
        ):
            tolerance += 100 * max(measured.precision * self._global, self.differences.noise)
        found = self.differences.along(measured.name, v, a, tolerance)
        return _verdict(a, found, tolerance, scale), abs(a - found.value) / scale if scale else 0.0

    def _floor(self, measured: Measured, largest: float) -> float:
        """Return the difference that rounding makes in a gradient whose largest entry this is, beside the others."""
        coarse = measured.loss_precision > EPSILON  # numerical derivatives of such a loss hold three digits
        own = max(1e-4 * measured.rtol, 10 * measured.precision, 1e4 * measured.loss_precision * coarse) * largest
        return max(own, measured.precision * self._global)

    def _find(self, measured: Measured, signs: Host) -> None:
        """Halve the set of entries towards a wrong one; check it and the lines through it along each axis."""
        inside = np.arange(signs.size)
        while inside.size > 1:
            half = inside[: inside.size // 2]
            v = np.zeros(signs.size)
            v[half] = signs.flat[half] / np.sqrt(half.size)
            wrong = self._along(measured, v.reshape(signs.shape))[0] == "wrong"
            inside = half if wrong else inside[inside.size // 2 :]
        at = np.unravel_index(int(inside[0]), signs.shape)
        lines = set()
        for axis, length in enumerate(signs.shape):
            for k in np.linspace(0, length - 1, min(length, 8)).astype(int):
                lines.add(int(np.ravel_multi_index((*at[:axis], int(k), *at[axis + 1 :]), signs.shape)))
        self.check_entries(measured, [int(inside[0]), *sorted(lines)])


def _verdict(a: float, found: Derivative, tolerance: float, scale: float) -> Status:
    difference = abs(a - found.value)
    if not found.moves and abs(a) <= tolerance:
        return "right"
    if difference <= tolerance + found.error:
        return "right" if found.error <= max(0.01 * scale, tolerance) else "undecided"
    if found.kink is not None:  # any slope between those to either side is a gradient there, as ReLU′(0) = 0 is
        low, high = found.kink
        margin = tolerance + 0.01 * (high - low)
        return "kink" if low - margin <= a <= high + margin else "undecided"
    return "wrong" if difference > tolerance + 5 * found.error else "undecided"


def _precision(analytic: Host, dtype: npt.DTypeLike) -> float:
    """Return the precision of the numbers a gradient holds: float32's also where float64 holds float32 numbers.

    A number such as ½ is one of float32 in any case; so most must need more digits than float16 has.
    """
    with np.errstate(over="ignore"):
        single, half = (analytic.astype(np.float32) == analytic), (analytic.astype(np.float16) == analytic)
    whole = np.array_equal(analytic, np.round(analytic))  # whole numbers are float32's too
    if np.dtype(dtype) == np.float64 and single.all() and 2 * (~half).sum() > np.count_nonzero(analytic) and not whole:
        return float(np.finfo(np.float32).eps)
    return float(np.finfo(np.dtype(dtype)).eps)
