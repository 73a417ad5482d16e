"""The table of bad input: for every reader and command one line that names the file and its fault, and exit code 2.

Nothing is left behind: no run directory, no half a file.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bad_files import FRAMES, MAKERS, write_good
from tests.field_runs import command, config_of, field, months, refused, trained, tree, write_field

for package in ("h5py", "h5netcdf", "xarray", "scipy", "PIL"):
    pytest.importorskip(package, reason=f"{package} of the extra files is not installed")

Capsys = pytest.CaptureFixture[str]
ARRAYS = (".npy", ".npz", ".h5", ".nc", ".tif")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows no seasons and so takes frames of any size without times."""
    folder = tmp_path_factory.mktemp("run")
    data = write_field(folder / "sea.nc", field())
    return trained(folder / "run", config_of(data, scaling="standard"), steps=2)


@pytest.fixture(scope="module")
def seasonal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows the seasons."""
    folder = tmp_path_factory.mktemp("seasonal")
    return trained(folder / "run", config_of(write_field(folder / "sea.nc", field())), steps=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """All bad files of the readers, in one folder."""
    folder = tmp_path_factory.mktemp("bad")
    found = {}
    for number, (name, make) in enumerate(MAKERS.items()):
        place = folder / f"case{number}"
        place.mkdir()
        found[name] = make(place)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, where a command that is not told otherwise makes its runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


SHORT = [f"--set=data.{name}=1" for name in ("context", "horizon", "test_frames", "validation_frames")]
USES: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "train": lambda run, data: ("train", "frames", "--data", data, *SHORT),
    "evaluate": lambda run, data: ("evaluate", run, "--data", data),
    "predict": lambda run, data: ("predict", run, data, "-o", "out.npy"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", MAKERS)
def test_a_file_that_holds_no_frames(case: str, use: str, run: Path, made: Any, here: Path, capsys: Capsys) -> None:
    path, words = made[case]
    before = tree(run)
    refused(capsys, here, USES[use](run, path), str(path), *words)
    assert tree(run) == before


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".nc", ".tif"])
def test_a_file_that_may_not_be_read(
    ending: str, use: str, run: Path, here: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = here / f"locked{ending}"
    write_good(locked)
    if os.geteuid() == 0:  # the superuser may read everything
        opened = Path.open

        def refuse(path: Path, *given: Any, **named: Any) -> Any:
            if path == locked:
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *given, **named)

        monkeypatch.setattr(Path, "open", refuse)
        words = (str(locked), "Permission denied")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.field_runs.tree", lambda folder: sorted(folder.rglob("*")))
            refused(capsys, here, USES[use](run, locked), *words)
        return
    locked.chmod(0)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.field_runs.tree", lambda folder: sorted(folder.rglob("*")))
            refused(capsys, here, USES[use](run, locked), str(locked), "Permission denied")
    finally:
        locked.chmod(0o600)


@pytest.mark.parametrize("ending", ARRAYS)
def test_too_few_frames(ending: str, run: Path, here: Path, capsys: Capsys) -> None:
    two = here / f"two{ending}"
    write_good(two, FRAMES[:2])
    refused(capsys, here, USES["train"](run, two), str(two), "leave none of its 2 for training")
    refused(capsys, here, USES["evaluate"](run, two), str(two), "no test window fits", "5 frames in a row")
    refused(capsys, here, USES["predict"](run, two), str(two), "the model reads 3 frames in a row", "has 2")


def _frames(**changes: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return 20 sound frames with another value at some places, which slices of their numbers name."""
    frames = np.tile(FRAMES, (4, 1, 1))[:20] + np.arange(20, dtype=np.float32)[:, None, None]
    for value, frame_numbers in changes.items():
        frames[frame_numbers] = {"nan": np.nan, "inf": np.inf, "zero": 0}[value]
    return frames


UNUSABLE: dict[str, tuple[Any, tuple[str, ...]]] = {
    "one frame": (FRAMES[:1], ("leave none of its 1 for training",)),
    "the same everywhere": (np.full((20, 4, 5), 7.5), ("7.5 in every training frame", "nothing to learn")),
    "the same in training": (_frames(zero=slice(0, 13)), ("nothing to learn",)),
    "one channel the same": (np.stack([_frames(), 0 * _frames()], 1), ("channel 1 is 0.0", "nothing to learn")),
    "only NaN": (_frames(nan=slice(None)), ("no value in any training frame",)),
    "only NaN in training": (_frames(nan=slice(0, 14)), ("no value in any training frame",)),
    "a value in one frame of training": (_frames(nan=slice(1, 14)), ("no training window holds a value",)),
    "only NaN in the test": (_frames(nan=slice(15, None)), ("test", "no value")),
    "infinite in the test": (_frames(inf=slice(19, None)), ("frame 19", "inf", "data.missing")),
    "too few for a window": (_frames()[:14], ("no train window fits", "10 frames in a row")),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_frames_that_nothing_can_be_learnt_from(case: str, here: Path, capsys: Capsys) -> None:
    frames, words = UNUSABLE[case]
    np.save("frames.npy", frames)
    refused(capsys, here, ("train", "frames", "--data", "frames.npy", "--steps", 1), "frames.npy", *words)


SMALL = ("--set=model.hidden_channels=[1]", "--set=data.test_sequences=1", "--set=data.validation_sequences=0",
         "--set=training.sampling_steps=0")  # fmt: skip
SETTINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no path": (("frames",), ("[data] path is empty", "--data")),
    "no month twice": (("sst", "--data=sea.npy"), ("sea.npy", "no times", "seasonal")),
    "the same every year": (
        ("sst", "--data=same.nc", "--set=data.test_frames=6"),
        ("same.nc", "no training frame differs from the mean of its month", "seasonal"),
    ),
    "two sequences": (("frames", "--data=two.npy"), ("two.npy", "leave none of its 24 for training")),
    "a month never seen": (("sst", "--data=year.nc", "--set=data.context=2"), ("year.nc", "month 9", "seasonal")),
    "not a number for missing": (("frames", "--data=sea.nc", "--set=data.missing=water"), ("[data] missing", "water")),
    "no such variable": (("frames", "--data=sea.nc", "--set=data.variable=salt"), ("sea.nc", "salt", "temperature")),
    "other axes": (("frames", "--data=sea.nc", "--set=data.axes=TCHW"), ("sea.nc", "temperature (time 27, latitude 5")),
    "letters that are no axes": (("frames", "--data=sea.nc", "--set=data.axes=XYZ"), ("sea.nc", "XYZ")),
    "a sigmoid": (("frames", "--data=sea.nc", "--set=model.output=sigmoid"), ("sigmoid", "linear")),
    "frames for digits": (("digits", "--data=sea.nc"), ("[data] path is read only where source is",)),
    "no MNIST": (("openstl-s",), ("[data] path is empty", "MNIST")),
    "MNIST in no folder": (("openstl-s", "--data=nowhere"), ("nowhere",)),
    "MNIST in an empty folder": (("openstl-s", "--data=empty"), ("empty", "train-images")),
    "MNIST cut short": (("openstl-s", "--data=short"), ("train-images-idx3-ubyte",)),
    "no test file": (
        ("openstl-s", "--data=mnist", "--set=data.test_file=absent.npy", *SMALL),
        ("absent.npy",),
    ),
    "a test file of other frames": (
        ("openstl-s", "--data=mnist", "--set=data.test_file=sea.npy", *SMALL),
        ("sea.npy", "(20,"),
    ),
    "a test file of another size": (
        ("openstl-s", "--data=mnist", "--set=data.test_file=sea.npy", "--set=data.size=32"),
        ("[data] test_file", "64×64", "32"),
    ),
    "more frames than the test file has": (
        ("openstl-s", "--data=mnist", "--set=data.test_file=sea.npy", "--set=data.horizon=11"),
        ("sea.npy", "20 frames"),
    ),
    "an empty --data": (("frames", "--data="), ("--data is empty",)),
    "--data in --out": (("frames", "--data=runs/sea.nc", "--out=runs"), ("runs",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to name in a command, sound but for those whose names say otherwise."""
    folder = tmp_path_factory.mktemp("stock")
    write_field(folder / "sea.nc", field()[:27])
    write_field(folder / "year.nc", field()[:20])  # twelve are tested on, January to August are learnt on
    write_field(folder / "same.nc", np.tile(field(12), (3, 1, 1)))
    np.save(folder / "sea.npy", field())
    np.save(folder / "two.npy", field(24).reshape(2, 12, 1, 5, 7))
    for name in ("empty", "mnist", "short", "runs"):
        (folder / name).mkdir()
    shutil.copy(folder / "sea.nc", folder / "runs")
    digits = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    for name in ("train", "t10k"):
        data = bytes([0, 0, 8, 3]) + np.array(digits.shape, ">u4").tobytes() + digits.tobytes()
        (folder / "mnist" / f"{name}-images-idx3-ubyte").write_bytes(data)
        (folder / "short" / f"{name}-images-idx3-ubyte").write_bytes(data[:-100])
    return folder


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_the_frames_do_not_allow(
    case: str, stock: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, words = SETTINGS[case]
    monkeypatch.chdir(stock)
    refused(capsys, stock, ("train", *arguments, "--steps=1", "--set=training.warmup_steps=0"), *words)


# A run that is damaged ------------------------------------------------------------------------------------------------


def _without(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def _with(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes(data)

    return damage


def _half(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])

    return damage


def _fact(**changes: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        facts = json.loads((run / "data.json").read_text())
        (run / "data.json").write_text(json.dumps({**facts, **changes}))

    return damage


def _weights(**changes: Any) -> Callable[[Path], None]:
    from convlstm.parameter_files import save_parameters

    return lambda run: save_parameters(run / "weights.safetensors", changes)


def _means(shape: tuple[int, ...]) -> Callable[[Path], None]:
    from convlstm.parameter_files import save_parameters

    return lambda run: save_parameters(run / "climatology.safetensors", {"means": np.zeros(shape, np.float32)})


def _folder(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return damage


def _setting(line: str, other: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        text = (run / "config.toml").read_text()
        assert line in text
        (run / "config.toml").write_text(text.replace(line, other))

    return damage


ALL, SCALE = ("evaluate", "predict", "report"), {"offset": [0.0], "scale": [1.0]}
DAMAGES: dict[str, tuple[tuple[str, ...], Callable[[Path], None], tuple[str, ...]]] = {
    "no configuration": (ALL, _without("config.toml"), ("config.toml",)),
    "a configuration that is a folder": (ALL, _folder("config.toml"), ("config.toml",)),
    "no TOML": (ALL, _with("config.toml", b"[data"), ("config.toml",)),
    "a configuration in bytes": (ALL, _with("config.toml", b"\xff\xfe"), ("config.toml",)),
    "a preset's name": (ALL, _with("config.toml", b"preset = 'sst'"), ("config.toml", "preset")),
    "another model": (ALL, _setting("hidden_channels = [2]", "hidden_channels = [3]"), ("weights.safetensors",)),
    "no data.json": (ALL, _without("data.json"), ("data.json",)),
    "an empty data.json": (ALL, _with("data.json", b""), ("data.json", "not what a run writes")),
    "half a data.json": (ALL, _half("data.json"), ("data.json", "not what a run writes")),
    "a list in data.json": (ALL, _with("data.json", b"[1]"), ("data.json", "not what a run writes")),
    "data.json too deep": (ALL, _with("data.json", b"[" * 100_000), ("data.json", "not what a run writes")),
    "data.json in bytes": (ALL, _with("data.json", b"\xff\xfe"), ("data.json", "not what a run writes")),
    "no scale": (ALL, _fact(scaling={"offset": [0.0]}), ("data.json", "scale")),
    "a scale of 0": (ALL, _fact(scaling={"offset": [0.0], "scale": [0.0]}), ("data.json", "scale")),
    "text as scale": (ALL, _fact(scaling={"offset": [0.0], "scale": ["1"]}), ("data.json", "scale")),
    "two scales": (ALL, _fact(scaling={"offset": [0.0] * 2, "scale": [1.0] * 2}), ("data.json",)),
    "a shape without height": (ALL, _fact(shape=[1, 5]), ("data.json",)),
    "a shape in words": (ALL, _fact(shape="157"), ("data.json",)),
    "a negative shape": (ALL, _fact(shape=[1, -5, 7]), ("data.json",)),
    "no lowest": (ALL, _fact(lowest=None), ("data.json",)),
    "NaN as highest": (ALL, _fact(highest=float("nan")), ("data.json",)),
    "no filling": (ALL, _fact(filling=None), ("data.json", "filling")),
    "two fillings": (ALL, _fact(filling=[0.0, 0.0]), ("data.json", "filling must be of 1 channels; got 2")),
    "text as damping": (ALL, _fact(damping="half"), ("data.json", "damping")),
    "damping of two channels": (ALL, _fact(damping=[[0.5, 0.5]]), ("data.json", "damping must be of 1 channels")),
    "damping of another horizon": (("evaluate", "report"), _fact(damping=[[0.5]]), ("sea.nc", "data.json")),
    "one end of the rows": (ALL, _fact(rows=[1.0]), ("data.json",)),
    "windows in words": (ALL, _fact(windows="many"), ("data.json",)),
    "no weights": (ALL, _without("weights.safetensors"), ("weights.safetensors",)),
    "empty weights": (ALL, _with("weights.safetensors", b""), ("weights.safetensors",)),
    "half the weights": (ALL, _half("weights.safetensors"), ("weights.safetensors",)),
    "weights of another": (ALL, _weights(other=np.zeros(3, np.float32)), ("weights.safetensors", "other")),
    "weights that are a folder": (ALL, _folder("weights.safetensors"), ("weights.safetensors",)),
    "half the climatology": (ALL, _half("climatology.safetensors"), ("climatology.safetensors",)),
    "no climatology": (ALL, _without("climatology.safetensors"), ("climatology.safetensors",)),
    "a climatology of others": (ALL, _means((12, 1, 4, 4)), ("climatology.safetensors", "(12, 1, 4, 4)")),
    "a climatology of a week": (ALL, _means((7, 1, 5, 7)), ("climatology.safetensors", "(7, 1, 5, 7)")),
    "no ledger": (("report",), _without("ledger.jsonl"), ("ledger.jsonl",)),
    "half a ledger": (("report",), _with("ledger.jsonl", b'{"step": 0\n{"step"\n'), ("ledger.jsonl",)),
    "no environment": (("report",), _without("environment.json"), ("environment.json",)),
    "an environment in bytes": (("report",), _with("environment.json", b"\xff"), ("environment.json",)),
    "data that are gone": (("evaluate", "report"), _setting("sea.nc", "lake.nc"), ("lake.nc", "no such file")),
    "other data": (("evaluate", "report"), _fact(sha256="0" * 64), ("sea.nc", "changed since the run began")),
    "other scaling": (("evaluate", "report"), _fact(scaling=SCALE), ("sea.nc", "data.json")),
}
COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "evaluate": lambda run: ("evaluate", run),
    "predict": lambda run: ("predict", run, run.parent / "sea.nc", "-o", "out.npy"),
    "report": lambda run: ("report", run),
}


@pytest.mark.parametrize(("case", "name"), [(case, name) for case in DAMAGES for name in DAMAGES[case][0]])
def test_a_damaged_run(case: str, name: str, seasonal: Path, here: Path, capsys: Capsys) -> None:
    _, damage, words = DAMAGES[case]
    shutil.copytree(seasonal, here / "run")
    shutil.copy(seasonal.parent / "sea.nc", here)
    damage(here / "run")
    refused(capsys, here, COMMANDS[name](here / "run"), *words)


# A sound run and sound frames that do not go together -----------------------------------------------------------------


def _elsewhere(path: Path, latitude: float = 0, longitude: float = 0) -> None:
    """Write the field of another region."""
    from scipy.io import netcdf_file  # type: ignore[import-untyped, unused-ignore]

    with netcdf_file(write_field(path, field()), "a") as file:
        file.variables["latitude"][:] += latitude
        file.variables["longitude"][:] += longitude


OTHERS: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "turned round": ("run", lambda path: write_field(path, field(), south_first=False),
                     ("its rows go from 20 to -20; the model's the other way",)),
    "in other units": ("run", lambda path: write_field(path, field(), units="degC"), ("degC", "K")),
    "of another region": ("seasonal", lambda path: _elsewhere(path, latitude=30), ("another map",)),
    "with rolled longitudes": ("seasonal", lambda path: _elsewhere(path, longitude=-180), ("another map",)),
    "of another size": ("seasonal", lambda path: write_field(path, field(12, 4, 6)), ("5×7 pixels", "got 4×6")),
}  # fmt: skip


@pytest.mark.parametrize("name", ["evaluate", "predict"])
@pytest.mark.parametrize("case", OTHERS)
def test_frames_that_are_none_for_this_model(
    case: str, name: str, run: Path, seasonal: Path, here: Path, capsys: Capsys
) -> None:
    which, write, words = OTHERS[case]
    write(here / "other.nc")
    refused(capsys, here, USES[name]({"run": run, "seasonal": seasonal}[which], here / "other.nc"), "other.nc", *words)


def test_frames_of_another_region_are_for_a_model_that_knows_no_seasons(run: Path, here: Path, capsys: Capsys) -> None:
    _elsewhere(here / "other.nc", latitude=30)
    before = tree(run)
    ended = command(capsys, *USES["evaluate"](run, here / "other.nc"), "--json", "scores.json")
    assert (ended.code, ended.err) == (0, "")
    assert list(json.loads((here / "scores.json").read_text())["overall"]) == ["model", "persistence"]
    assert command(capsys, *USES["predict"](run, here / "other.nc")).code == 0
    assert tree(run) == before


def test_a_model_of_the_summer_half_forecasts_no_november(here: Path, capsys: Capsys) -> None:
    """Neither from frames of November nor for it."""
    times = np.concatenate([months(8, f"{year}-01") for year in range(2001, 2005)])
    summers = write_field(here / "summers.nc", field(32), times)
    half = trained(here / "half", config_of(summers, test_frames=8, validation_sequences=0), steps=1)
    autumn = write_field(here / "autumn.nc", field(7), months(7, "2010-06"))
    august = write_field(here / "august.nc", field(7), months(7, "2010-02"))
    june = write_field(here / "june.nc", field(7), months(7, "2009-12"))
    words = ("trained on no frames of some of the months",)
    refused(capsys, here, USES["evaluate"](half, autumn), "autumn.nc", *words)
    refused(capsys, here, USES["predict"](half, autumn), "autumn.nc", *words)
    refused(capsys, here, USES["predict"](half, august), "august.nc", *words)  # what comes is September
    assert command(capsys, *USES["predict"](half, june)).code == 0  # July and August


def test_facts_of_another_horizon(run: Path, here: Path, capsys: Capsys) -> None:
    shutil.copytree(run, here / "run")
    _fact(damping=[[0.5]])(here / "run")
    data = write_field(here / "other.nc", field())
    refused(capsys, here, USES["evaluate"](here / "run", data), "other.nc", "data.json", "damping of 1 lead times")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("place", ["nowhere", "", "sea.nc", "."])
def test_no_run_at_all(name: str, place: str, seasonal: Path, here: Path, capsys: Capsys) -> None:
    shutil.copy(seasonal.parent / "sea.nc", here)
    command_of = {"evaluate": ("evaluate", place), "predict": ("predict", place, "sea.nc", "-o", "out.npy"),
                  "report": ("report", place)}  # fmt: skip
    refused(capsys, here, command_of[name], place)


# Where the results go -------------------------------------------------------------------------------------------------

TARGETS: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "no suffix": (("predict", "run", "sea.nc", "-o", "out"), ("out", ".npy, .npz, .nc, .gif")),
    "unknown suffix": (("predict", "run", "sea.nc", "-o", "out.mp4"), ("out.mp4", "'.mp4'")),
    "in no folder": (("predict", "run", "sea.nc", "-o", "a/out.nc"), ("a/out.nc", "there is no folder a")),
    "a folder": (("predict", "run", "sea.nc", "-o", "folder.nc"), ("folder.nc", "is a folder")),
    "the input": (("predict", "run", "sea.nc", "-o", "./sea.nc"), ("sea.nc", "made from this file")),
    "the input through a link": (("predict", "run", "sea.nc", "-o", "link.nc"), ("link.nc", "made from this file")),
    "no frames ahead": (("predict", "run", "sea.nc", "-o", "out.nc", "--horizon", 0), ("horizon", "0")),
    "frames behind": (("predict", "run", "sea.nc", "-o", "out.nc", "--horizon", -2), ("horizon", "-2")),
    "a report in no folder": (("report", "run", "-o", "a/page.html"), ("a/page.html", "no directory a")),
    "a report that is a folder": (("report", "run", "-o", "folder.nc"), ("folder.nc", "directory")),
    "scores in no folder": (("evaluate", "run", "--json", "a/b.json"), ("--json", "a/b.json", "no directory a")),
    "scores in a folder": (("evaluate", "run", "--json", "folder.nc"), ("--json", "folder.nc", "directory")),
    "a threshold of nothing": (("evaluate", "run", "--threshold", "nan"), ("threshold", "nan")),
    "no such backend": (("evaluate", "run", "--backend", "abacus"), ("abacus",)),
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_result_that_cannot_be(case: str, seasonal: Path, here: Path, capsys: Capsys) -> None:
    arguments, words = TARGETS[case]
    shutil.copytree(seasonal, here / "run")
    shutil.copy(seasonal.parent / "sea.nc", here)
    (here / "link.nc").symlink_to("sea.nc")
    (here / "folder.nc").mkdir()
    refused(capsys, here, arguments, *words)
    if case.startswith("a report"):
        assert "--json" not in command(capsys, *arguments).err


@pytest.mark.parametrize("name", ALL)
def test_a_full_disk_leaves_nothing_half_written(
    name: str, seasonal: Path, here: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(seasonal, here / "run")
    shutil.copy(seasonal.parent / "sea.nc", here)
    (here / "out.npy").write_bytes(b"an earlier one")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    target = {"evaluate": "evaluation.json", "predict": "out.npy", "report": "report.html"}[name]
    refused(capsys, here, COMMANDS[name](here / "run"), target, "No space left on device")


def test_a_folder_that_may_not_be_written_to(
    seasonal: Path, here: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != here / "locked")
    (here / "locked").mkdir()
    arguments = ("predict", seasonal, seasonal.parent / "sea.nc", "-o", here / "locked" / "out.nc")
    refused(capsys, here, arguments, str(here / "locked" / "out.nc"), "nothing may be written")


def test_a_run_directory_that_cannot_be_made(stock: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stock)
    small = ("--steps=1", "--set=data.context=2", "--set=data.horizon=1")
    train = ("train", "frames", "--data", "sea.nc", *small, "--out")
    refused(capsys, stock, (*train, "sea.npy"), "sea.npy")
    refused(capsys, stock, (*train, "sea.npy/run"), "sea.npy/run")
    refused(capsys, stock, (*train, "mnist"), "mnist exists")
    refused(capsys, stock, (*train, "mnist", "--overwrite"), "mnist", "no part of a run")
