"""Named parameters in files: ``.npz``, ``.safetensors``, or a folder with one text file ``NAME.txt`` a tensor.

None of the three can hold code.  Every one keeps each float16, float32 and float64 exactly; only text forgets which
NaN a NaN was.  Saving replaces what was there in one step, so that a reader never meets half a file.
"""

from __future__ import annotations

import difflib
import io
import math
import os
import re
import zipfile
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.whole_files import unused_name_beside, write_new, write_whole

# Significant digits after which reading a decimal gives back the same bits.
EXACT_DIGITS = {"float16": 5, "float32": 9, "float64": 17}

TEXT_HEADER = re.compile(r"# shape((?: \d+)*) dtype (\w+)")


class ParameterFileError(ValueError):
    """A parameter file cannot be read or written; the message names the file and the fault."""


class ParameterMismatch(ValueError):
    """Loaded parameters do not fit the target; the message names the parameter, what was given and what is right."""


class UnshapedNumbers(np.ndarray[Any, np.dtype[np.float64]]):
    """The numbers of a text file without a header: flat float64, for ``assign_parameters`` to shape as the target."""


def load_parameters(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read all parameters of a file or of a folder of text files.

    A text file holds plain numbers with any white space between them.  A first line ``# shape 16 1 3 3 dtype float32``
    says what they are; without it they come back as ``UnshapedNumbers``.  Other lines that begin with # are skipped.

    Args:
        path: a ``.npz`` file, a ``.safetensors`` file, or a folder.

    Returns:
        Arrays by name, writable, in the machine's byte order.

    Raises:
        ParameterFileError: the path is missing, of another kind, damaged, or holds something else than numbers.
    """
    path = Path(path)
    if path.is_dir():
        return _load_text_folder(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise ParameterFileError(f"{path}: {_ending_fault(path) if path.exists() else 'no such file or folder'}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ParameterFileError(f"{path}: cannot be read: {error.strerror}") from error
    decode = _decode_npz if path.suffix == ".npz" else _decode_safetensors
    try:
        loaded = decode(data)
    except Exception as error:  # damage can show anywhere: in zipfile, zlib, an array header, safetensors' own checks
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise ParameterFileError(f"{path}: not a sound {path.suffix} file: {reason}") from error
    return {name: np.array(array, array.dtype.newbyteorder("=")) for name, array in loaded.items()}


def save_parameters(path: str | os.PathLike[str], parameters: Mapping[str, NDArray[Any]]) -> None:
    """Write parameters so that ``load_parameters`` returns the same bits; the same parameters make the same file.

    Args:
        path: ends in ``.npz`` or ``.safetensors``, or has no ending and becomes a folder of text files.  A file that
            exists is replaced; a folder is replaced only if this function wrote it and nothing else was added.
        parameters: NumPy arrays of float16, float32 or float64, by name.

    Raises:
        ParameterFileError: the ending, a name or a dtype is not one of these, or the folder holds other things.
        TypeError: a parameter is not a NumPy array.
        OSError: the disk is full, the place is not writable, and the like.
    """
    path = Path(path)
    arrays = {name: _checked(path, name, array) for name, array in parameters.items()}
    if path.is_dir() or not path.suffix:
        return _save_text_folder(path, arrays)
    if path.suffix not in (".npz", ".safetensors"):
        raise ParameterFileError(f"{path}: {_ending_fault(path)}")
    data = _encode_npz(arrays) if path.suffix == ".npz" else _encode_safetensors(arrays)
    write_whole(path, data)


def assign_parameters(
    target: MutableMapping[str, Any],
    loaded: Mapping[str, NDArray[Any]],
    convert: Callable[[NDArray[Any]], Any] = np.array,
) -> None:
    """Put loaded parameters into ``target``, all of them or, if any does not fit, none.

    ``UnshapedNumbers`` take the target's shape and dtype; everything else must have them already.

    Args:
        target: the arrays to replace; they say which names, shapes and dtypes are right.
        loaded: what ``load_parameters`` returned.
        convert: makes the array that is stored, e.g. a backend's copy to the device.

    Raises:
        ParameterMismatch: a name is unknown or missing, or a shape or dtype differs.
    """
    for name in loaded:
        if name not in target:
            near = difflib.get_close_matches(name, target, n=1)
            right = f"the nearest right name is {near[0]!r}" if near else f"right are {', '.join(sorted(target))}"
            raise ParameterMismatch(f"unknown parameter {name!r}; {right}")
    for name, array in target.items():
        if name not in loaded:
            given = ", ".join(sorted(loaded)) or "none"
            raise ParameterMismatch(f"parameter {name!r} is missing: {array.dtype} {array.shape}; given are {given}")
    converted = {name: convert(_fitted(name, loaded[name], target[name])) for name in target}
    for name, array in converted.items():
        target[name] = array


def _fitted(name: str, given: NDArray[Any], right: Any) -> NDArray[Any]:
    """Return ``given`` if its shape and dtype are those of ``right``; give them to it if it is unshaped."""
    if isinstance(given, UnshapedNumbers):
        if given.size != right.size:
            raise ParameterMismatch(
                f"parameter {name!r} has {given.size} numbers; it must have {right.size}, for shape {right.shape}"
            )
        with np.errstate(over="ignore"):
            cast = np.array(given, right.dtype).reshape(right.shape)
        if np.isfinite(given).sum() > np.isfinite(cast).sum():
            raise ParameterMismatch(f"parameter {name!r} has a number too large for {right.dtype}")
        return cast
    if given.shape != right.shape:
        raise ParameterMismatch(f"parameter {name!r} has shape {given.shape}; it must be {right.shape}")
    if given.dtype != right.dtype:
        raise ParameterMismatch(f"parameter {name!r} has dtype {given.dtype}; it must be {right.dtype}")
    return given


def _checked(path: Path, name: str, array: Any) -> NDArray[Any]:
    """Return ``array`` in C order and the machine's byte order, or say why it cannot be saved."""
    if not re.fullmatch(r"(?!__metadata__$)[^/\\\x00-\x1f\ud800-\udfff]+", name):
        raise ParameterFileError(f"{path}: a parameter name must serve as a file name, without / or \\; got {name!r}")
    if not isinstance(array, np.ndarray):
        given = f"{type(array).__module__}.{type(array).__name__}"
        raise TypeError(f"parameter {name!r} must be a NumPy array; got {given}")
    if array.dtype.name not in EXACT_DIGITS:
        raise ParameterFileError(
            f"{path}: parameter {name!r} has dtype {array.dtype}; it must be one of {', '.join(EXACT_DIGITS)}"
        )
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def _ending_fault(path: Path) -> str:
    return f"unknown ending {path.suffix!r}; right are .npz, .safetensors, or a folder of text files"


# One file -------------------------------------------------------------------------------------------------------


def _encode_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an archive that ``np.load`` reads.

    ``np.savez`` would put the time of day in it, and takes a parameter named "file" for its own argument.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call, unused-ignore]
    return buffer.getvalue()


def _decode_safetensors(data: bytes) -> dict[str, NDArray[Any]]:
    import safetensors.numpy  # here, so that whoever wants NumPy alone needs nothing else

    return safetensors.numpy.load(data)


def _encode_safetensors(arrays: dict[str, NDArray[Any]]) -> bytes:
    import safetensors.numpy

    return safetensors.numpy.save(arrays)


def _decode_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an archive.  Reading a member whole checks its CRC before its header is believed."""
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if name == member or name in arrays:
                raise ValueError(f"{member!r} is not an array, or there twice")
            content = io.BytesIO(archive.read(member))
            array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)  # type: ignore[no-untyped-call, unused-ignore]
            if array.dtype.kind != "f":
                raise ValueError(f"{name!r} holds {array.dtype}, not floating-point numbers")
            arrays[name] = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray makes () to (1,)
    return arrays


# A folder of text files -----------------------------------------------------------------------------------------


def _load_text_folder(folder: Path) -> dict[str, NDArray[Any]]:
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise ParameterFileError(f"{folder}: this folder holds no NAME.txt")
    return {file.name.removesuffix(".txt"): _load_text(file) for file in files}


def _load_text(file: Path) -> NDArray[Any]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except OSError as error:
        raise ParameterFileError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParameterFileError(f"{file}: not a text file") from error
    numbers: list[float] = []
    for count, line in enumerate(lines, start=1):
        if line.startswith("#"):
            continue
        for word in line.split():
            try:
                number = float(word)
            except ValueError as error:
                raise ParameterFileError(f"{file}: line {count}: {word[:40]!r} is not a number") from error
            if math.isinf(number) and "inf" not in word.lower():
                raise ParameterFileError(f"{file}: line {count}: {word[:40]} is too large for a float64")
            numbers.append(number)
    values = np.array(numbers, np.float64)
    if not lines or not lines[0].startswith("# shape"):
        return values.view(UnshapedNumbers)
    if not lines[-1].endswith("\n"):  # its last number may have lost digits and still be a number
        raise ParameterFileError(f"{file}: the last line is cut off: it does not end in a line break")
    return _shaped(file, lines[0].strip(), values)


def _shaped(file: Path, header: str, values: NDArray[np.float64]) -> NDArray[Any]:
    """Return the numbers of a text file as its header says."""
    match = TEXT_HEADER.fullmatch(header)
    if not match or match[2] not in EXACT_DIGITS:
        right = f"'# shape 16 1 3 3 dtype float32', or {', '.join(EXACT_DIGITS)}"
        raise ParameterFileError(f"{file}: the first line is {header[:60]!r}; it must be like {right}")
    shape = tuple(map(int, match[1].split()))
    with np.errstate(over="ignore"):
        array = values.astype(match[2])
    if np.isfinite(values).sum() > np.isfinite(array).sum():
        raise ParameterFileError(f"{file}: a number is too large for {match[2]}")
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise ParameterFileError(f"{file}: has {array.size} numbers; its first line says shape {shape}") from error


def _text(array: NDArray[Any]) -> str:
    """Return the header and the numbers, one row for each entry of the first axis."""
    header = " ".join(["# shape", *map(str, array.shape), "dtype", array.dtype.name])
    rows = array.reshape(len(array) if array.ndim and array.size else 1, -1).tolist()
    number = f"%.{EXACT_DIGITS[array.dtype.name]}g"
    return "\n".join([header, *(" ".join(number % value for value in row) for row in rows)]) + "\n"


def _save_text_folder(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    folder = folder.resolve()  # a link to a folder stays a link
    if folder.exists() and not (folder.is_dir() and all(map(_is_our_text, folder.iterdir()))):
        raise ParameterFileError(f"{folder}: exists and is not a folder of saved parameters; choose another name")
    with unused_name_beside(folder) as new:
        new.mkdir()
        for name, array in arrays.items():
            write_new(new / f"{name}.txt", _text(array).encode())
        if not folder.exists():
            os.replace(new, folder)
            return
        # No system call puts a folder in a full folder's place: the old one steps aside first.
        with unused_name_beside(folder) as old:
            os.replace(folder, old)
            try:
                os.replace(new, folder)
            except BaseException:
                os.replace(old, folder)
                raise


def _is_our_text(file: Path) -> bool:
    if file.suffix != ".txt" or not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(7) == b"# shape"


# Nothing half-written -------------------------------------------------------------------------------------------
