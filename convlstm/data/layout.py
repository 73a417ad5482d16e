"""Which axis of a file's array is which, and how its frames are cut out of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.data.series import DataError, Series, Wanted, check_range
from convlstm.data.values import as_frames, check_dtype, is_number

BY_RANK = {3: "THW", 4: "TCHW", 5: "NTCHW"}
MOST_CHANNELS = 64  # where nobody said which axis they are

# Cuts an array: a number takes one place of an axis and drops it, a slice takes a part.
Take = Callable[[tuple[int | slice, ...]], NDArray[Any]]


@dataclass(frozen=True)
class Array:
    """An array in a file, before any of it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.shape} of {self.dtype.name}"


@dataclass(frozen=True)
class Layout:
    """The axes of an array, one letter each: N, T, C, H, W, or - for one of length 1 that is dropped."""

    axes: str
    sizes: tuple[int, ...]

    def size(self, letter: str) -> int:
        """Return the length of an axis, 1 if the array has none of this letter."""
        return self.sizes[self.axes.index(letter)] if letter in self.axes else 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """All frames of all sequences, (T, C, H, W)."""
        return self.size("N") * self.size("T"), self.size("C"), self.size("H"), self.size("W")

    @property
    def runs(self) -> tuple[range, ...]:
        """The frames of each sequence."""
        T = self.size("T")
        return tuple(range(n * T, (n + 1) * T) for n in range(self.size("N")))

    def cut(self, take: Take, start: int, stop: int) -> NDArray[Any]:
        """Return frames start … stop - 1 as the file holds them, (n, C, H, W)."""
        T = self.size("T")
        pieces = []
        for n in range(start // T, (stop - 1) // T + 1):
            pieces.append(self._cut_sequence(take, n, slice(max(start - n * T, 0), min(stop - n * T, T))))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _cut_sequence(self, take: Take, n: int, frames: slice) -> NDArray[Any]:
        chosen: dict[str, int | slice] = {"N": n, "-": 0, "T": frames}
        part = np.asarray(take(tuple(chosen.get(letter, slice(None)) for letter in self.axes)))
        left = [letter for letter in self.axes if letter in "TCHW"]
        present = [letter for letter in "TCHW" if letter in left]
        part = part.transpose([left.index(letter) for letter in present])
        return np.expand_dims(part, [k for k, letter in enumerate("TCHW") if letter not in present])  # (n, C, H, W)


def laid_out(name: str, array: Array, wanted: Wanted) -> Layout:
    """Return the layout of an array by what the user says of its axes, else by how many it has.

    Raises:
        DataError: the array is not of numbers, is empty, or its axes are not those.
    """
    check_dtype(name, array.dtype)
    axes = wanted.axes or _axes_by_rank(name, array.shape, wanted.in_folder)
    known = set(axes) <= set("NTCHW") and len(set(axes)) == len(axes)
    if not known or not set("HW" if wanted.in_folder else "THW") <= set(axes):
        raise DataError(
            f"{name}: axes must name T, H and W once each, and N and C at most once, as THW or NTCHW do; got {axes!r}"
        )
    if len(axes) != len(array.shape):
        raise DataError(f"{name}: axes {axes!r} are {len(axes)}; the array has {len(array.shape)}, {array.shape}")
    if 0 in array.shape:
        letter = axes[array.shape.index(0)]
        raise DataError(f"{name}: holds nothing: its shape is {array.shape}, and its axis {letter} has length 0")
    return Layout(axes, array.shape)


def _axes_by_rank(name: str, shape: tuple[int, ...], in_folder: bool) -> str:
    """Return the axes that an array of this shape has if nothing else is said; refuse what is more likely another."""
    if len(shape) == 2 and in_folder:
        return "HW"
    if len(shape) not in BY_RANK:
        frame = "; one frame (H, W) is right in a folder of such files" if len(shape) == 2 else ""
        raise DataError(
            f"{name}: has shape {shape}; right are (T, H, W), (T, C, H, W) and (N, T, C, H, W), or set data.axes to a "
            f"letter for each axis{frame}"
        )
    axes = BY_RANK[len(shape)]
    if len(shape) == 3:
        return axes
    channels, sequences = shape[-3], "N" if len(shape) == 5 else ""
    if shape[-1] in (1, 3, 4) and channels > 4:
        raise DataError(
            f"{name}: has shape {shape}, which looks like axes {sequences}THWC; set data.axes to that, or to {axes}"
        )
    if channels > MOST_CHANNELS:
        other = "NTHW or TNHW" if len(shape) == 4 else "NCTHW or TNCHW"
        raise DataError(
            f"{name}: has shape {shape}, with {channels} channels as {axes}; set data.axes, perhaps to {other}"
        )
    return axes


def chosen(name: str, arrays: Mapping[str, Array], wanted: Wanted) -> str:
    """Return which array of a file is meant: the one that is named, or the only one that can be frames.

    Raises:
        DataError: there is no such name, or none or several that can be frames; the message lists them.
    """
    if wanted.variable:
        variable = wanted.variable.strip("/")
        if variable not in arrays:
            raise unknown_variable(name, variable, list(arrays))
        return variable
    ranks = {len(wanted.axes)} if wanted.axes else set(BY_RANK)
    fitting = [key for key, array in arrays.items() if is_number(array.dtype) and len(array.shape) in ranks]
    if len(fitting) == 1:
        return fitting[0]
    if len(arrays) == 1:
        return next(iter(arrays))  # whose shape or dtype is then found wrong, or right in a folder
    listed = "; ".join(f"{key} {arrays[key]}" for key in (fitting or arrays)) or "nothing at all"
    if fitting:
        raise DataError(f"{name}: holds {len(fitting)} arrays that can be frames; data.variable chooses one: {listed}")
    raise DataError(f"{name}: holds no array of numbers with axes for time, height and width; it holds {listed}")


def unknown_variable(name: str, variable: str, names: list[str]) -> DataError:
    """Return the error that names the nearest variable that is there."""
    near = difflib.get_close_matches(variable, names, n=1)
    right = f"the nearest is {near[0]!r}" if near else f"right are {', '.join(sorted(names)) or 'none'}"
    return DataError(f"{name}: has no variable {variable!r}; {right}")


def series_of(name: str, layout: Layout, take: Take, missing: float | None, **described: Any) -> Series:
    """Return the series of an array; `described` are further fields of it."""

    def read(start: int, stop: int) -> NDArray[np.float32]:
        check_range(name, start, stop, layout.shape[0])
        return as_frames(name, layout.cut(take, start, stop), start, missing)

    return Series(
        **{
            "name": name,
            "shape": layout.shape,
            "read": read,
            "runs": layout.runs,
            "sequences": "N" in layout.axes,
            **described,
        }
    )
