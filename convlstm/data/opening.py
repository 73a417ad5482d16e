"""Opens frames of whatever kind: a file, a folder of files of one kind, or a file in an installed package."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from convlstm.data.arrays import open_npy, open_npz
from convlstm.data.hdf5 import open_hdf5
from convlstm.data.images import open_images
from convlstm.data.netcdf import open_netcdf
from convlstm.data.series import DataError, Series, Wanted, concatenated, damage_named


def _open_image(path: Path, name: str, wanted: Wanted) -> Series:
    return open_images(name, [(path, name)], wanted)


@dataclass(frozen=True)
class _Kind:
    """A kind of file: what its names end with, and who opens one."""

    endings: tuple[str, ...]
    opens: Callable[[Path, str, Wanted], Series]


KINDS = (
    _Kind((".npy",), open_npy),
    _Kind((".npz",), open_npz),
    _Kind((".h5", ".hdf5", ".hdf", ".he5"), open_hdf5),
    _Kind((".nc", ".nc4", ".cdf", ".netcdf"), open_netcdf),
    *(
        _Kind(endings, _open_image)
        for endings in ((".png",), (".tif", ".tiff"), (".gif",), (".jpg", ".jpeg"), (".bmp",), (".webp",))
    ),
)
ENDINGS = {ending: kind for kind in KINDS for ending in kind.endings}

PACKAGE = "package:"


def open_series(
    path: str | os.PathLike[str], *, variable: str = "", axes: str = "", missing: float | None = None
) -> Series:
    """Open frames; none is read yet.

    Args:
        path: a file, a folder of files of one kind in the natural order of their names, frame2 before frame10, or
            ``package:NAME/FILE``, a file inside an installed package.
        variable: which array of a file that holds several; of a NetCDF file several by commas, each a channel.
        axes: the letters of N, T, C, H and W in the file's order, as THWC or TNHW; "" is THW, TCHW or NTCHW by their
            number, and in NetCDF goes by what the file says.  In a folder T may be absent: one frame a file.
        missing: the value that stands for missing, beside NaN and what the file itself declares.

    Raises:
        DataError: the frames cannot be read, or are not what is said of them.
        ModuleNotFoundError: a package that reads this kind of file is not installed.
    """
    name = os.fspath(path)
    place = _place(name)
    wanted = Wanted(variable.strip(), axes.strip().upper(), missing)
    try:
        mode = place.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file or folder") from error
    except (OSError, ValueError) as error:  # ValueError of a zero byte
        raise DataError(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if stat.S_ISDIR(mode):
        return _open_folder(place, name, wanted)
    if not stat.S_ISREG(mode):
        raise DataError(f"{name}: is neither a file nor a folder")
    series = _open_file(place, name, wanted)
    if ENDINGS[place.suffix.lower()].opens is _open_image and series.shape[0] == 1:
        raise DataError(f"{name}: is one image; name the folder that holds the frames, or a file of several frames")
    return series


def _place(name: str) -> Path:
    """Return where a name leads, for a file in a package too, which is found without importing it."""
    if not name.startswith(PACKAGE):
        return Path(name)
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    if not package.isidentifier() or not inside or ".." in Path(inside).parts:
        raise DataError(f"{name}: right is {PACKAGE}NAME/FILE, a file inside an installed package")
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise DataError(f"{name}: the package {package} is not installed; pip install {package.replace('_', '-')}")
    return next(
        (file for file in (Path(folder, inside) for folder in folders) if file.exists()), Path(folders[0], inside)
    )


def _open_file(path: Path, name: str, wanted: Wanted) -> Series:
    kind = ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{name}: unknown ending {path.suffix!r}; right are {', '.join(ENDINGS)}, or a folder of them")
    with damage_named(name), path.open("rb") as stream:  # a file that may not be read is refused here
        if not stream.read(1):
            raise DataError(f"{name}: is empty")
    return kind.opens(path, name, wanted)


def _open_folder(folder: Path, name: str, wanted: Wanted) -> Series:
    """Open all files of a folder whose endings are known; hidden files are passed over."""
    with damage_named(name):
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    files = sorted((file for file in entries if file.suffix.lower() in ENDINGS), key=lambda file: natural(file.name))
    if not files:
        raise DataError(f"{name}: the folder holds no file of frames; their names end with {', '.join(ENDINGS)}")
    kind = ENDINGS[files[0].suffix.lower()]
    for file in files:
        if ENDINGS[file.suffix.lower()] is not kind:
            raise DataError(f"{name}: holds files of two kinds, {files[0].name} and {file.name}; right is one kind")
    labelled = [(file, os.path.join(name, file.name)) for file in files]
    wanted = Wanted(wanted.variable, wanted.axes, wanted.missing, in_folder=True)
    if kind.opens is _open_image:
        return open_images(name, labelled, wanted)
    parts = [partial(_open_file, file, label, wanted) for file, label in labelled]
    return concatenated(name, parts)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return by what to sort names so that numbers in them count as numbers: frame2 before frame10."""
    pieces = re.split(r"([0-9]+)", name)  # every second one is a number
    return [(int(piece), "") if k % 2 else (-1, piece) for k, piece in enumerate(pieces)], name
