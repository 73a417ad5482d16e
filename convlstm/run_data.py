"""What a run directory keeps of its data: data.json, and of frames from files what is usual at each time of year."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from convlstm.data.climatology import MONTHS, Climatology
from convlstm.data.facts import Facts, read_facts, write_facts
from convlstm.data.frame_source import FrameSource
from convlstm.data.series import DataError
from convlstm.data.source import Source
from convlstm.parameter_files import load_parameters, save_parameters
from convlstm.run_directory import CLIMATOLOGY, DATA


def save_data(directory: Path, source: Source) -> None:
    """Write what a run keeps of its data."""
    if isinstance(source, FrameSource) and source.climatology is not None:
        save_parameters(directory / CLIMATOLOGY, {"means": source.climatology.means})
    write_facts(directory / DATA, source.facts)


def load_climatology(directory: Path, facts: Facts) -> Climatology | None:
    """Return what is usual in a run's training frames, of which these are the facts; None where they were made.

    Raises:
        DataError: it cannot be read, or is of other frames; the message begins with the file's name.
    """
    file = directory / CLIMATOLOGY
    if not file.exists():
        return None
    try:
        means = load_parameters(file)["means"]
    except KeyError:
        raise DataError(f"{file}: holds no means") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: {error}") from None
    right = [(rows, *facts.shape) for rows in (1, MONTHS)]
    if means.shape not in right or means.dtype != np.float32:
        raise DataError(f"{file}: must hold float32 of {right[0]} or {right[1]}; got {means.dtype} of {means.shape}")
    return Climatology(means)


def check_data(directory: Path, source: Source) -> None:
    """Check that a run's data are still those that it began with, as far as it recorded them.

    Raises:
        DataError: they are others; the message begins with their name.
    """
    file = directory / DATA
    if not file.is_file():  # lost; nothing that the steps need
        return
    then, now = read_facts(file), source.facts
    if then.sha256 != now.sha256:
        raise DataError(f"{now.name}: it has changed since the run began: its SHA-256 was {then.sha256}")
    if replace(then, name=now.name) != now:
        raise DataError(f"{now.name}: {file} says other things of it than it holds now")
