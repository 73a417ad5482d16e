"""A run's data.json: what a model must know of the frames that it was trained on, to be used on others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convlstm.data.scaling import Scaling
from convlstm.data.series import DataError
from convlstm.whole_files import write_whole


@dataclass(frozen=True)
class Facts:
    """What is known of a run's frames.

    Attributes:
        name: what was read, as the configuration names it; "digits" and the like where it is made.
        shape: (C, H, W) of a frame.
        scaling: fitted on the training frames.
        lowest, highest: of each channel of the training frames, in their own units.
        filling: what the model reads, scaled, at a pixel of each channel that it has not seen: the mean.
        damping: by lead time and channel, how much of what differs from the climatology is usually left then.
        rows, columns: where the first and the last of each lie on the map; None where that is not known.
        channels: their names; () where they have none.
        variable: what the file calls the frames; "" where they have no name.
        units: "" where they are not known.
        windows: how many sequences each split has; None where they are made, as many as asked for.
        sha256: of the files; "" where none is read.
    """

    name: str
    shape: tuple[int, int, int]
    scaling: Scaling
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    filling: tuple[float, ...]
    damping: tuple[tuple[float, ...], ...] = ()
    rows: tuple[float, float] | None = None
    columns: tuple[float, float] | None = None
    channels: tuple[str, ...] = ()
    variable: str = ""
    units: str = ""
    windows: dict[str, int] | None = None
    sha256: str = ""


def write_facts(file: Path, facts: Facts) -> None:
    """Write a data.json."""
    values = {**asdict(facts), "scaling": facts.scaling.as_json()}
    write_whole(file, (json.dumps(values, indent=1) + "\n").encode())


def read_facts(file: Path) -> Facts:
    """Read a data.json.

    Raises:
        DataError: it cannot be read, or is not of that form; the message begins with its name.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return _facts(values)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: not what a run writes: {type(error).__name__} {error}") from None


def _facts(values: dict[str, Any]) -> Facts:
    shape, windows = values["shape"], values["windows"]
    if len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"shape must be three integers > 0; got {shape}")
    C, H, W = shape
    scaling, lowest, highest = (
        Scaling.from_json(values["scaling"]),
        _numbers(values, "lowest"),
        _numbers(values, "highest"),
    )
    filling, damping = (
        _numbers(values, "filling"),
        tuple(_numbers({"damping": row}, "damping") for row in values["damping"]),
    )
    for name, given in (("scaling", scaling.offset), ("lowest", lowest), ("highest", highest), ("filling", filling)):
        if len(given) != C:
            raise ValueError(f"{name} must be of {C} channels; got {len(given)}")
    if not all(low < high for low, high in zip(lowest, highest, strict=True)):
        raise ValueError(f"lowest must be less than highest; got {lowest} and {highest}")
    if any(len(of_channels) != C for of_channels in damping):
        raise ValueError(f"damping must be of {C} channels; got {damping}")
    return Facts(
        name=str(values["name"]), shape=(C, H, W), scaling=scaling, lowest=lowest, highest=highest, filling=filling,
        damping=damping, rows=_ends(values, "rows"), columns=_ends(values, "columns"),
        channels=tuple(map(str, values["channels"])), variable=str(values["variable"]),
        units=str(values["units"]),
        windows=None if windows is None else {str(split): int(count) for split, count in windows.items()},
        sha256=str(values["sha256"]),
    )  # fmt: skip


def _numbers(values: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """Return a list of finite numbers."""
    given = values[name]
    if not isinstance(given, list) or not all(type(one) in (int, float) and math.isfinite(one) for one in given):
        raise ValueError(f"{name} must be a list of finite numbers; got {given!r}")
    return tuple(map(float, given))


def _ends(values: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Return a first and a last place, where they are known."""
    if values[name] is None:
        return None
    first, last = _numbers(values, name)
    return first, last
