"""From [data] to sequences: whatever file holds them, and what training must not know of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm import sources
from convlstm.config import PRESETS, ConfigError
from convlstm.data.frame_source import FrameSource
from convlstm.data.series import DataError
from convlstm.sources import open_others, open_source
from tests.field_runs import Field, batch_of, config_of, field, months, trained, write_field
from tests.runs import changed

for package in ("scipy", "xarray"):
    pytest.importorskip(package, reason=f"{package} is not installed")

PLAIN: dict[str, Any] = {"scaling": "standard"}


def ledger(directory: Path, frames: Field, **settings: Any) -> bytes:
    """Return the ledger of a run of two steps on these frames."""
    directory.mkdir()
    data = write_field(directory / "sea.nc", frames)
    return (trained(directory / "run", config_of(data, **settings), steps=2) / "ledger.jsonl").read_bytes()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return ledger(tmp_path_factory.mktemp("usual") / "a", field())


def test_training_does_not_depend_on_the_test_frames(usual: bytes, tmp_path: Path) -> None:
    frames = field()
    frames[30:] = 1e30
    frames[33] = np.nan
    assert ledger(tmp_path / "a", frames) == usual
    frames[26, 4, 4] += 0.25  # of the training frames it does
    assert ledger(tmp_path / "b", frames) != usual


@pytest.mark.parametrize("filler", [-999.0, 0.0, 1e30])
def test_training_does_not_depend_on_what_stands_for_missing(filler: float, usual: bytes, tmp_path: Path) -> None:
    frames = np.where(np.isnan(field()), np.float32(filler), field())
    assert ledger(tmp_path / "a", frames, missing=filler) == usual


WRITERS: dict[str, Callable[[Path, NDArray[Any]], None]] = {
    "uint8": lambda path, frames: np.save(path, np.clip(frames - 200, 0, 255).astype(np.uint8)),
    "bool": lambda path, frames: np.save(path, frames > 290),
    "int16": lambda path, frames: np.save(path, (frames * 10).astype(np.int16)),
    "float64": lambda path, frames: np.save(path, frames.astype(np.float64)),
    "float16": lambda path, frames: np.save(path, frames.astype(np.float16)),
    "big-endian": lambda path, frames: np.save(path, frames.astype(">f4")),
    "Fortran": lambda path, frames: np.save(path, np.asfortranarray(frames)),
    "one row": lambda path, frames: np.save(path, frames[:, :1]),
    "one column": lambda path, frames: np.save(path, frames[:, :, :1]),
    "sequences": lambda path, frames: np.save(path, frames.reshape(3, 12, 1, 5, 7)),
    "two channels": lambda path, frames: np.save(path, np.stack([frames, -frames], 1)),
}


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("case", WRITERS)
def test_odd_but_right(case: str, patch: int, tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    WRITERS[case](path, np.nan_to_num(field(), nan=285.0))
    config = config_of(path, patch=patch, kernel_size=1 if case.startswith("one") else 3, **PLAIN)
    directory = trained(tmp_path / "run", config, steps=1)
    lines = (directory / "ledger.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert (directory / "scores.json").is_file()
    assert np.isfinite(batch_of(config).frames).all()


@pytest.mark.parametrize("case", ["float64", "big-endian", "Fortran"])
def test_how_the_numbers_are_stored_changes_no_bit(case: str, tmp_path: Path) -> None:
    ledgers = []
    for name, write in (("usual", lambda path, frames: np.save(path, frames)), (case, WRITERS[case])):
        write(tmp_path / f"{name}.npy", np.nan_to_num(field(), nan=285.0))
        config = config_of(tmp_path / f"{name}.npy", **PLAIN)
        ledgers.append((trained(tmp_path / f"{name} run", config, steps=1) / "ledger.jsonl").read_bytes())
    assert ledgers[0] == ledgers[1]


def test_images_and_maps_from_north_to_south_and_holes_in_time(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    (tmp_path / "images").mkdir()
    for t, frame in enumerate(np.nan_to_num(field(), nan=285.0)):
        pil.fromarray((frame - 200).astype(np.uint8)).save(tmp_path / "images" / f"frame{t}.png")
    trained(tmp_path / "of images", config_of(tmp_path / "images", **PLAIN), steps=1)
    north = write_field(tmp_path / "north.nc", field(), south_first=False)
    trained(tmp_path / "of north", config_of(north), steps=1)
    times = np.concatenate([months(18), months(18, "2005-07")])
    holed = config_of(write_field(tmp_path / "hole.nc", field(), times))
    trained(tmp_path / "of holed", holed, steps=1)
    source = open_source(holed)
    assert source.facts.windows == {"train": 14 + 5, "validation": 2, "test": 5}


def test_settings_reach_the_frames(tmp_path: Path) -> None:
    config = config_of(write_field(tmp_path / "sea.nc", field()), test_sequences=2, validation_sequences=0, gap=1)
    source = open_source(config)
    assert isinstance(source, FrameSource)
    assert source.climatology is not None
    assert (source.count("test"), source.count("validation"), source.windows.gap) == (2, 0, 1)
    tenth_and_fifth = changed(config, test_frames=0, validation_frames=0, validation_sequences=20, test_sequences=100)
    assert open_source(tenth_and_fifth).facts.windows == {"train": 21, "validation": 2, "test": 6}
    other = open_others(config, config.data.path, source.facts, source.climatology)
    assert other.count("test") == 36 - 6 + 1


@pytest.mark.parametrize("T", [10, 12, 15, 20])
@pytest.mark.parametrize("N", range(3, 16))
def test_of_sequences_whole_ones_are_held_back(N: int, T: int, tmp_path: Path) -> None:
    """With the preset as it is; of each frame every pixel is its number."""
    np.save(tmp_path / "N.npy", np.arange(N * T).reshape(N, T, 1, 1, 1) + np.zeros((1, 3, 3)))
    source = open_source(changed(PRESETS["frames"], path=str(tmp_path / "N.npy"), test_sequences=10**6,
                                 validation_sequences=10**6))  # fmt: skip
    test, validation = max(1, N // 5), max(1, N // 10)
    numbers = {"validation": range(N - test - validation, N - test), "test": range(N - test, N)}
    for split, sequences in numbers.items():
        frames = source.batch(split, range(source.count(split))).raw[..., 0, 0, 0]  # type: ignore[arg-type]
        assert list(frames[:, 0]) == [n * T + first for n in sequences for first in range(T - 9)]
    train = source.facts.windows["train"]  # type: ignore[index]
    firsts = source.batch("train", range(train)).raw[:, 0, 0, 0, 0]
    assert sorted(firsts) == [n * T + first for n in range(N - test - validation) for first in range(T - 9)]


@pytest.mark.parametrize(("N", "settings", "fine"), [
    (1, {}, False), (1, {"validation_sequences": 0}, False), (2, {}, False), (2, {"validation_sequences": 0}, True),
    (3, {}, True),
])  # fmt: skip
def test_of_few_sequences_none_may_be_left(N: int, settings: dict[str, Any], fine: bool, tmp_path: Path) -> None:
    np.save(tmp_path / "N.npy", np.random.default_rng(0).random((N, 10, 1, 3, 3)))
    config = changed(PRESETS["frames"], path=str(tmp_path / "N.npy"), **settings)
    if fine:
        assert open_source(config).count("test") > 0
        return
    with pytest.raises(
        DataError, match=rf"N\.npy: \d+ frames for validation and 10 for the test leave none of its {N}0"
    ):
        open_source(config)


def test_no_path() -> None:
    with pytest.raises(ConfigError, match=r"\[data\] path is empty: give the file or folder of your frames"):
        open_source(config_of(""))


@pytest.mark.parametrize(("preset", "right"), [("shi2015", [9999, 0]), ("openstl-s", [9999, 10000])])
def test_shi_trains_on_its_10000_sequences_again_and_again(
    preset: str, right: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def noted(split: str, indices: Any, **named: Any) -> NDArray[np.float32]:
        asked.extend(indices)
        return np.zeros((len(indices), 20, 1, 64, 64), np.float32)

    monkeypatch.setattr(sources, "moving_mnist_sequences", noted)
    open_source(changed(PRESETS[preset], path="mnist")).batch("train", range(9999, 10001))
    assert asked == right
