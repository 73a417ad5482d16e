"""Parameter files: what is saved comes back bit for bit, and what does not fit is refused before it does harm."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convlstm.parameter_files import (
    ParameterFileError,
    ParameterMismatch,
    UnshapedNumbers,
    assign_parameters,
    load_parameters,
    save_parameters,
)

FORMATS = ("p.npz", "p.safetensors", "p")  # the last becomes a folder of text files
Arrays = dict[str, NDArray[Any]]


def example() -> Arrays:
    W_x = np.linspace(-1, 1, 4 * 2 * 3 * 3, dtype=np.float32).reshape(4, 2, 3, 3) / 3
    return {"layers.0.W_x": W_x, "layers.0.b": np.array([0.1, -0.0, np.inf, 3e-310])}


def assert_same_bits(got: Arrays, expected: Arrays, any_nan: bool = False) -> None:
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert (got[name].shape, got[name].dtype) == (array.shape, array.dtype.newbyteorder("="))
        same = array.astype(array.dtype.newbyteorder("="))
        if any_nan:
            np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(same))
            assert np.nan_to_num(got[name]).tobytes() == np.nan_to_num(same).tobytes()
        else:
            assert got[name].tobytes() == same.tobytes()


# There and back -------------------------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from(["file", "allow_pickle", "layers.0.W_x", "W x", "β", "a.npy", "a.txt", "..", "metadata"]),
    st.from_regex(r"[A-Za-z_][\w.\-]{0,20}", fullmatch=True),
)


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    """Any bits at all, read as floats: every size of number, both zeros, infinities and every NaN."""
    dtype = np.dtype(draw(st.sampled_from(["<f2", "<f4", "<f8", ">f4", ">f8"])))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    count = int(np.prod(shape))
    data = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    array = np.frombuffer(data, dtype).reshape(shape)
    return np.asfortranarray(array) if draw(st.booleans()) else array


@pytest.mark.parametrize("file", FORMATS)
@settings(max_examples=60, deadline=None)
@given(parameters=st.dictionaries(names, arrays(), min_size=1, max_size=4))
def test_round_trip_is_exact(file: str, parameters: Arrays) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, file)
        save_parameters(path, parameters)
        loaded = load_parameters(path)
        assert_same_bits(loaded, parameters, any_nan=file == "p")
        assert all(array.flags.writeable for array in loaded.values())
        assert os.listdir(folder) == [file]


@pytest.mark.parametrize("file", FORMATS)
def test_saving_again_replaces_everything_and_gives_the_same_bytes(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    contents = []
    for _ in range(2):
        save_parameters(path, {"other": np.ones(3)})
        save_parameters(path, example())
        assert_same_bits(load_parameters(path), example())
        files = [path] if path.is_file() else sorted(path.iterdir())
        contents.append([(f.name, f.read_bytes()) for f in files])
    assert contents[0] == contents[1]
    assert os.listdir(tmp_path) == [file]


def test_other_programs_read_our_files_and_we_read_theirs(tmp_path: Path) -> None:
    save_parameters(tmp_path / "ours.npz", example())
    with np.load(tmp_path / "ours.npz") as archive:
        assert_same_bits(dict(archive), example())
    np.savez_compressed(tmp_path / "theirs.npz", W_x=example()["layers.0.W_x"])
    assert_same_bits(load_parameters(tmp_path / "theirs.npz"), {"W_x": example()["layers.0.W_x"]})

    save_parameters(tmp_path / "ours.safetensors", example())
    assert_same_bits(safetensors.numpy.load_file(tmp_path / "ours.safetensors"), example())
    safetensors.numpy.save_file(example(), tmp_path / "theirs.safetensors")
    assert_same_bits(load_parameters(tmp_path / "theirs.safetensors"), example())

    save_parameters(tmp_path / "ours", {"b": example()["layers.0.W_x"]})
    assert (tmp_path / "ours/b.txt").read_text().startswith("# shape 4 2 3 3 dtype float32\n-0.333333343 -0.3")
    np.testing.assert_array_equal(
        np.loadtxt(tmp_path / "ours/b.txt", dtype=np.float32), example()["layers.0.W_x"].reshape(4, 18)
    )
    (tmp_path / "theirs").mkdir()
    np.savetxt(tmp_path / "theirs/b.txt", np.arange(6.0).reshape(2, 3), header="by np.savetxt")
    np.testing.assert_array_equal(load_parameters(tmp_path / "theirs")["b"], np.arange(6.0))


def test_plain_text_takes_any_white_space(tmp_path: Path) -> None:
    (tmp_path / "W.txt").write_bytes(b"\xef\xbb\xbf1\t2.5e0\r\n\r\n  -3 # shape\n".replace(b" # shape", b""))
    (tmp_path / "notes.md").write_text("not a parameter")
    loaded = load_parameters(tmp_path)
    assert list(loaded) == ["W"]
    assert isinstance(loaded["W"], UnshapedNumbers)
    np.testing.assert_array_equal(loaded["W"], [1, 2.5, -3])


# Files that are damaged or something else -----------------------------------------------------------------------


def fault(path: Path) -> str:
    """Return the one line that loading this path fails with; it must name the path."""
    with pytest.raises(ParameterFileError) as caught:
        load_parameters(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.mark.parametrize("file", FORMATS[:2])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    save_parameters(path, example())
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert "not a sound" in fault(path)


def test_one_changed_bit_in_an_npz_never_gives_a_wrong_number(tmp_path: Path) -> None:
    """It may pass unseen where nothing depends on it, or hide an array, which assign_parameters then misses."""
    path = tmp_path / "p.npz"
    save_parameters(path, example())
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            loaded = load_parameters(path)
        except ParameterFileError:
            refused += 1
        else:
            assert_same_bits(loaded, {name: example()[name] for name in loaded})
    assert refused > 0.8 * len(whole)


def test_files_of_another_kind(tmp_path: Path) -> None:
    for name in FORMATS[:2]:
        assert "cannot be read: No such file" in fault(tmp_path / name)
        (tmp_path / name).write_bytes(b"hello\nthere")
        assert "not a sound" in fault(tmp_path / name)
    assert "no such file or folder" in fault(tmp_path / "missing")
    (tmp_path / "p.pth").touch()
    assert "unknown ending '.pth'; right are .npz, .safetensors" in fault(tmp_path / "p.pth")
    (tmp_path / "empty").mkdir()
    assert "holds no NAME.txt" in fault(tmp_path / "empty")
    bare = bytearray(np.ones(3).tobytes())
    (tmp_path / "bare.npz").write_bytes(bare)
    assert "not a sound .npz" in fault(tmp_path / "bare.npz")


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os._exit, (3,)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, W=np.array([Trap()], dtype=object))
    assert "Object arrays cannot be loaded" in fault(path)
    path.write_bytes(pickle.dumps(Trap()))
    assert "not a sound .npz" in fault(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1 2\n3 four\n", "line 2: 'four' is not a number"),
        (b"1, 2\n", "line 1: '1,' is not a number"),
        (b"\xff\xfe1\x00", "not a text file"),
        (b"# shape 3 dtype float32\n1 2\n", "has 2 numbers; its first line says shape (3,)"),
        (b"# shape 2 dtype float32\n1 2", "the last line is cut off"),
        (b"# shape 2 x dtype float32\n1 2\n", "the first line is '# shape 2 x dtype float32'; it must be like"),
        (b"# shape 2 dtype object\n1 2\n", "it must be like '# shape 16 1 3 3 dtype float32'"),
        (b"# shape 2 dtype float32\n1 2e39\n", "a number is too large for float32"),
    ],
)
def test_text_faults(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "W_x.txt").write_bytes(text)
    with pytest.raises(ParameterFileError) as caught:
        load_parameters(tmp_path)
    assert message in str(caught.value)
    assert "W_x.txt: " in str(caught.value)
    assert "\n" not in str(caught.value)


# Saving that cannot be done -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("name", ["a/b", "a\\b", "../a", "", "a\nb", "a\0b", "\ud800", "__metadata__"])
def test_names_that_are_no_file_names(tmp_path: Path, file: str, name: str) -> None:
    with pytest.raises(ParameterFileError, match="must serve as a file name"):
        save_parameters(tmp_path / file, {name: np.ones(1)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("file", FORMATS)
def test_things_that_are_no_parameters(tmp_path: Path, file: str) -> None:
    with pytest.raises(ParameterFileError, match=r"'n' has dtype int64; it must be one of float16, float32, float64"):
        save_parameters(tmp_path / file, {"n": np.ones(1, np.int64)})
    not_an_array: Any = [1.0]
    with pytest.raises(TypeError, match=r"'n' must be a NumPy array; got builtins\.list"):
        save_parameters(tmp_path / file, {"n": not_an_array})
    assert os.listdir(tmp_path) == []


def test_unknown_ending_to_save(tmp_path: Path) -> None:
    with pytest.raises(ParameterFileError, match=r"unknown ending '\.pt'"):
        save_parameters(tmp_path / "p.pt", example())


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    save_parameters(folder, example())
    for name, text in (("notes.txt", "dear diary\n"), ("notes.md", "# shape of things\n")):
        (folder / name).write_text(text)
        with pytest.raises(ParameterFileError, match="is not a folder of saved parameters"):
            save_parameters(folder, {"b": np.ones(2)})
        (folder / name).unlink()
    assert_same_bits(load_parameters(folder), example())
    (tmp_path / "file").write_text("1 2 3")
    with pytest.raises(ParameterFileError, match="is not a folder of saved parameters"):
        save_parameters(tmp_path / "file", example())
    assert sorted(os.listdir(tmp_path)) == ["file", "p"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    save_parameters(tmp_path / "real", {"b": np.ones(2)})
    (tmp_path / "link").symlink_to("real")
    save_parameters(tmp_path / "link", example())
    assert (tmp_path / "link").is_symlink()
    assert_same_bits(load_parameters(tmp_path / "real"), example())


@pytest.mark.parametrize(
    ("file", "failing"), [*((file, failing) for file in FORMATS for failing in ("fsync", 1)), ("p", 2)]
)
def test_a_save_that_fails_leaves_the_old_parameters(
    tmp_path: Path, file: str, failing: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_parameters(tmp_path / file, example())
    real, calls = os.replace, 0

    def fsync(descriptor: int) -> None:
        raise OSError("the disk is full")

    def replace(source: Path, to: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise KeyboardInterrupt
        real(source, to)

    monkeypatch.setattr(os, *(("fsync", fsync) if failing == "fsync" else ("replace", replace)))
    with pytest.raises((OSError, KeyboardInterrupt)):
        save_parameters(tmp_path / file, {"b": np.ones(2)})
    monkeypatch.undo()
    assert_same_bits(load_parameters(tmp_path / file), example())
    assert os.listdir(tmp_path) == [file]


# Into the model -------------------------------------------------------------------------------------------------


def test_assigning_copies_every_array(tmp_path: Path) -> None:
    target = {name: np.zeros_like(array) for name, array in example().items()}
    loaded = example()
    assign_parameters(target, loaded)
    assert_same_bits(target, example())
    for name in target:
        assert not np.shares_memory(target[name], loaded[name])


def test_bare_text_takes_the_shape_and_dtype_of_the_target(tmp_path: Path) -> None:
    W = example()["layers.0.W_x"]
    np.savetxt(tmp_path / "W.txt", W.ravel(), fmt="%.9g")
    target = {"W": np.zeros_like(W)}
    assign_parameters(target, load_parameters(tmp_path))
    assert type(target["W"]) is np.ndarray
    assert_same_bits(target, {"W": W})


MISMATCHES: dict[str, tuple[Arrays, str]] = {
    "unknown": (
        {**example(), "layers.0.Wx": np.ones(1)},
        "unknown parameter 'layers.0.Wx'; the nearest right name is 'layers.0.W_x'",
    ),
    "unlike any": ({**example(), "zzz": np.ones(1)}, "unknown parameter 'zzz'; right are layers.0.W_x, layers.0.b"),
    "missing": (
        {"layers.0.W_x": example()["layers.0.W_x"]},
        "parameter 'layers.0.b' is missing: float64 (4,); given are layers.0.W_x",
    ),
    "nothing": ({}, "parameter 'layers.0.W_x' is missing: float32 (4, 2, 3, 3); given are none"),
    "shape": (
        {**example(), "layers.0.b": np.ones((4, 1))},
        "parameter 'layers.0.b' has shape (4, 1); it must be (4,)",
    ),
    "dtype": (
        {**example(), "layers.0.b": np.ones(4, np.float32)},
        "parameter 'layers.0.b' has dtype float32; it must be float64",
    ),
    "count": (
        {**example(), "layers.0.b": np.ones(5).view(UnshapedNumbers)},
        "parameter 'layers.0.b' has 5 numbers; it must have 4, for shape (4,)",
    ),
    "too large": (
        {**example(), "layers.0.W_x": np.full(72, 1e39).view(UnshapedNumbers)},
        "parameter 'layers.0.W_x' has a number too large for float32",
    ),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_mismatch_is_named_and_changes_nothing(case: str) -> None:
    loaded, message = MISMATCHES[case]
    target = {name: np.zeros_like(array) for name, array in example().items()}
    before = dict(target)
    with pytest.raises(ParameterMismatch) as caught:
        assign_parameters(target, loaded)
    assert str(caught.value) == message
    assert target.keys() == before.keys()
    for name in target:
        assert target[name] is before[name]
        assert not target[name].any()


def test_a_conversion_that_fails_changes_nothing() -> None:
    target = {name: np.zeros_like(array) for name, array in example().items()}
    before = dict(target)

    def convert(array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim == 1:
            raise MemoryError("the device is full")
        return array

    with pytest.raises(MemoryError):
        assign_parameters(target, example(), convert)
    assert all(target[name] is before[name] for name in before)


def test_flat_float64_from_an_npz_is_not_taken_for_bare_text(tmp_path: Path) -> None:
    save_parameters(tmp_path / "p.npz", {"W": np.ones(72)})
    with pytest.raises(ParameterMismatch, match=r"has shape \(72,\); it must be \(4, 2, 3, 3\)"):
        assign_parameters({"W": example()["layers.0.W_x"]}, load_parameters(tmp_path / "p.npz"))


@pytest.mark.parametrize("header", ["", "# shape 1 dtype float64\n"])
def test_a_number_too_large_for_any_float_is_no_infinity(tmp_path: Path, header: str) -> None:
    (tmp_path / "W").mkdir()
    (tmp_path / "W" / "b.txt").write_text(f"{header}1e400\n")
    with pytest.raises(ParameterFileError, match="1e400 is too large for a float64"):
        load_parameters(tmp_path / "W")


@pytest.mark.parametrize("array", [np.arange(3), np.array(["a"]), np.array([1j]), np.array([True])])
def test_an_npz_of_something_else_than_floats_is_refused(tmp_path: Path, array: NDArray[Any]) -> None:
    np.savez(tmp_path / "W.npz", b=array)
    with pytest.raises(ParameterFileError, match="not floating-point numbers"):
        load_parameters(tmp_path / "W.npz")
