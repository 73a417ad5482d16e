"""A small field with land, seasons and times, tiny runs that are trained on it, and commands in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm import cli, training
from convlstm.config import Config, Data, Model, Training, config_as_toml
from convlstm.data.fitting import fitted
from convlstm.data.frame_source import FrameSource, Windows
from convlstm.data.series import Series
from convlstm.sources import open_source
from convlstm.training import train
from tests.runs import changed

Field = NDArray[np.float32]  # (T, H, W)
T, H, W = 36, 5, 7
LAND = (slice(None), 1, slice(2, 4))


def field(length: int = T, height: int = H, width: int = W) -> Field:
    """Return a wave that moves on a warm sea with seasons: NaN on land and at one pixel of one frame."""
    t, y, x = np.meshgrid(np.arange(length), np.arange(height), np.arange(width), indexing="ij")
    seasons, wave = 3 * np.cos(2 * np.pi * t / 12) * (1 + y / height), np.sin(0.7 * x + 0.5 * y - 0.9 * t)
    frames: Field = (290 + seasons + wave).astype(np.float32)
    frames[LAND] = np.nan
    frames[length // 2, 0, 0] = np.nan
    return frames


def months(length: int = T, first: str = "2001-01") -> NDArray[np.datetime64]:
    """Return the first moments of months."""
    return (np.datetime64(first, "M") + np.arange(length)).astype("M8[ns]")


def write_field(
    path: Path, frames: Field, times: NDArray[np.datetime64] | None = None,
    *, units: str = "K", south_first: bool = True,
) -> Path:  # fmt: skip
    """Write a NetCDF file of the classic format; without times they are months from January 2001 on."""
    from scipy.io import netcdf_file  # type: ignore[import-untyped, unused-ignore]

    times = months(len(frames)) if times is None else times
    latitudes = np.linspace(-20.0, 20.0, frames.shape[1])[:: 1 if south_first else -1]
    axes = {
        "time": (times.astype("M8[h]").astype(np.float64), "hours since 1970-01-01 00:00:00"),
        "latitude": (latitudes, "degrees_north"),
        "longitude": (np.linspace(100.0, 160.0, frames.shape[2]), "degrees_east"),
    }
    with netcdf_file(path, "w") as file:
        for name, (values, unit) in axes.items():
            file.createDimension(name, len(values))
            variable = file.createVariable(name, "f8", (name,))
            variable[:], variable.units = values, unit
        variable = file.createVariable("temperature", "f4", tuple(axes))
        variable[:], variable.units = frames, units
    return path


def config_of(path: Path | str, **settings: Any) -> Config:
    """Return a run of four steps on a file of frames, less what the settings say."""
    of_field = Config(
        Data(source="frames", path=str(path), scaling="seasonal", context=3, horizon=2, test_frames=6,
             validation_frames=3),
        Model(hidden_channels=(2,), kernel_size=3, patch=2, output="linear", residual=True),
        Training(steps=4, batch_size=2, seed=3, loss="mse", schedule="constant", checkpoint_every=2),
    )  # fmt: skip
    return changed(of_field, **settings)


def trained(directory: Path, config: Config, *, steps: int | None = None) -> Path:
    """Train into a directory, without a picture, which takes longer than such a run."""
    directory.mkdir()
    with no_picture():
        train(config if steps is None else changed(config, steps=steps), directory, backend="numpy", report=silent)
    return directory


def silent(done: int, loss: float) -> None:
    """Report nothing."""


@contextmanager
def no_picture() -> Iterator[None]:
    """Let training draw none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_forecast", lambda config, model, path, source: path.write_bytes(b"picture"))
        yield


def saved(config: Config, path: Path) -> Path:
    """Write a configuration to a file."""
    path.write_text(config_as_toml(config), encoding="utf-8")
    return path


def batch_of(config: Config, split: Any = "test") -> Any:
    """Return all scored sequences of a split of a run's own data, or the first eight of training."""
    source = open_source(config)
    return source.batch(split, range(8 if split == "train" else source.count(split)))


class Ended(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    """Run a command in this process."""
    code: Any = 0
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["convlstm", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    return Ended(code or 0, *capsys.readouterr())


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return all that is in a folder: files with their bytes, folders with None."""
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def refused(capsys: pytest.CaptureFixture[str], folder: Path, arguments: tuple[object, ...], *words: str) -> None:
    """Assert that a command ends with code 2 and one line that holds the words, and changes nothing in a folder."""
    before = tree(folder)
    ended = command(capsys, *arguments)
    assert ended.code == 2, ended
    assert ended.err.startswith("convlstm: "), ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert len(ended.err) < 1200, ended.err  # a list of some thousand endings is no clear line
    assert "Traceback" not in ended.out + ended.err
    for word in words:
        assert word in ended.err, (word, ended.err)
    assert tree(folder) == before


# Series in memory -----------------------------------------------------------------------------------------------------

WINDOWS = Windows(context=3, gap=0, horizon=2, stride=1)
TRAINING = range(27)  # of 36 frames, less 3 for validation and 6 for the test


def series_of(frames: NDArray[Any], times: NDArray[np.datetime64] | None = None, **named: Any) -> Series:
    """Return frames (T, H, W) or (T, C, H, W) of memory as a series."""
    frames = frames.astype(np.float32)
    frames = frames[:, None] if frames.ndim == 3 else frames
    T, C, H, W = frames.shape
    runs = named.pop("runs", (range(T),))
    return Series("sea", (T, C, H, W), lambda start, stop: frames[start:stop].copy(), runs, times=times, **named)


def fit(series: Series, **changes: Any) -> FrameSource:
    chosen: dict[str, Any] = {"scaling": "standard", "validation": 3, "test": 6, "patch": 1, "seed": 0,
                              "most": {"validation": 100, "test": 100}, "windows": WINDOWS}  # fmt: skip
    chosen.update(changes)
    return fitted(series, chosen.pop("windows"), **chosen)


def sea(**named: Any) -> Series:
    return series_of(field(), months(), **named)
