"""A run's data.json: what a model must know of the frames that it was trained on, to be used on others."""

from __future__ import annotations

import json
import math
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
        lowest, highest: of the training frames, in their own units.
        channels: their names; () where they have none.
        units: "" where they are not known.
        windows: how many sequences each split has; None where they are made, as many as asked for.
        sha256: of the files; "" where none is read.
    """

    name: str
    shape: tuple[int, int, int]
    scaling: Scaling
    lowest: float
    highest: float
    channels: tuple[str, ...] = ()
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
    C, H, W = values["shape"]
    scaling, lowest, highest = Scaling.from_json(values["scaling"]), float(values["lowest"]), float(values["highest"])
    if not all(type(size) is int and size > 0 for size in (C, H, W)):
        raise ValueError(f"shape must be three integers > 0; got {values['shape']}")
    if len(scaling.offset) != C:
        raise ValueError(f"scaling must be of {C} channels; got {len(scaling.offset)}")
    if not -math.inf < lowest < highest < math.inf:
        raise ValueError(f"lowest must be less than highest, both finite; got {lowest} and {highest}")
    windows = values["windows"]
    return Facts(
        name=str(values["name"]),
        shape=(C, H, W),
        scaling=scaling,
        lowest=lowest,
        highest=highest,
        channels=tuple(map(str, values["channels"])),
        units=str(values["units"]),
        windows=None if windows is None else {str(split): int(count) for split, count in windows.items()},
        sha256=str(values["sha256"]),
    )
