"""Which backend a name brings, and what is said where it cannot be had: in CuPy's own words, taken down from CuPy 13.6
(cupy-cuda12x) and 14.2 (cupy-cuda13x) on machines without the part in question."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest

from convlstm.backends import Backend, BackendUnavailable, available_backends, get_backend, unavailable_backends
from convlstm.backends.numpy_backend import NumpyBackend
from tests.cupy_stand_in import forget_backends, stand_in_for_cupy


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CONVLSTM_BACKEND", raising=False)
    monkeypatch.delenv("CONVLSTM_THREADS", raising=False)
    forget_backends()
    yield
    forget_backends()


@pytest.fixture
def without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # its import now fails as if there were none


@pytest.fixture
def cupy() -> Iterator[Any]:
    """A CuPy with two devices, to take parts from."""
    with stand_in_for_cupy(devices=2) as module:
        yield module


# Names ----------------------------------------------------------------------------------------------------------


def test_names_bring_backends(cupy: Any) -> None:
    assert get_backend("numpy").name == "numpy"
    assert get_backend("numpy:winograd").name == "numpy:winograd"
    assert get_backend("cupy").name == "cupy"
    assert get_backend("cupy:0") is get_backend("cupy")
    assert get_backend("cupy:1").name == "cupy:1"


def test_the_same_name_brings_the_same_backend(cupy: Any) -> None:
    for name in ("numpy", "numpy:winograd", "cupy", "cupy:1", "auto"):
        assert get_backend(name) is get_backend(name)
    assert get_backend("numpy:winograd") is not get_backend("numpy")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tpu",
        "Numpy",
        "numpy:0",
        "numpy:",
        "winograd",
        "numpy:Winograd",
        "cupy:",
        "cupy:-1",
        "cupy:1.0",
        "cupy:one",
        "cupy 1",
        "cuda",
        None,
        0,
    ],
)
def test_an_unknown_name_is_named(without_cupy: None, name: Any) -> None:
    expected = f'backend must be "auto", "numpy", "numpy:winograd", "cupy" or "cupy:<device number>"; got {name!r}'
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        get_backend(name)


def test_auto_takes_cupy_where_there_is_a_device(cupy: Any) -> None:
    assert get_backend().name == get_backend("auto").name == "cupy"


def test_auto_takes_numpy_where_there_is_none() -> None:
    with stand_in_for_cupy(devices=0):
        assert get_backend().name == "numpy"


def test_auto_takes_numpy_without_cupy(without_cupy: None) -> None:
    assert get_backend().name == "numpy"


# Settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("numpy", "numpy"),
        ("numpy:winograd", "numpy:winograd"),
        ("cupy:1", "cupy:1"),
        ("auto", "cupy"),
        ("", "cupy"),
    ],
)
def test_convlstm_backend_chooses_for_auto(cupy: Any, monkeypatch: pytest.MonkeyPatch, setting: str, name: str) -> None:
    monkeypatch.setenv("CONVLSTM_BACKEND", setting)
    assert get_backend().name == name


def test_a_name_goes_before_convlstm_backend(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLSTM_BACKEND", "numpy")
    assert get_backend("cupy").name == "cupy"


def test_a_bad_convlstm_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLSTM_BACKEND", "tpu")
    with pytest.raises(ValueError, match=r"^CONVLSTM_BACKEND must be .*; got 'tpu'$"):
        get_backend()
    assert get_backend("numpy").name == "numpy"


def test_convlstm_backend_asks_by_name(without_cupy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLSTM_BACKEND", "cupy")
    with pytest.raises(BackendUnavailable, match=r"^backend 'cupy' is not available: the package CuPy is not"):
        get_backend()


def threads() -> int:
    backend = get_backend("numpy")
    assert isinstance(backend, NumpyBackend)
    return backend.threads


def test_convlstm_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    default = threads()
    assert 1 <= default <= (os.cpu_count() or 1)
    for setting, number in (("1", 1), ("3", 3), ("", default)):
        monkeypatch.setenv("CONVLSTM_THREADS", setting)
        assert threads() == number


@pytest.mark.parametrize("name", ["numpy", "numpy:winograd"])
def test_threads_that_were_asked_for_compute_small_samples_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def computing(column_elements: int) -> set[str]:
        return set(get_backend(name).map_samples(lambda _: threading.current_thread().name, 3, column_elements))

    here, large = threading.current_thread().name, 2**30
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)  # three processors
    assert computing(1) == {here}
    assert here not in computing(large)
    monkeypatch.setenv("CONVLSTM_THREADS", "2")
    for column_elements in (0, 1, large):
        assert here not in computing(column_elements)
    monkeypatch.setenv("CONVLSTM_THREADS", "1")
    assert computing(large) == {here}


@pytest.mark.parametrize("setting", ["0", "-1", "1.5", "two", " 2", "1e3"])
def test_a_bad_convlstm_threads_is_named(without_cupy: None, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("CONVLSTM_THREADS", setting)
    for name in ("numpy", "numpy:winograd", "auto"):
        with pytest.raises(ValueError, match=f"^CONVLSTM_THREADS must be an integer ≥ 1; got {setting!r}$"):
            get_backend(name)


# What is missing ------------------------------------------------------------------------------------------------

CUDA13, CUDA12, EITHER = 'pip install ".[cuda13]"', 'pip install ".[cuda12]"', 'pip install ".['

NO_FILE = "cannot open shared object file: No such file or directory"
NVRTC_13_6 = f"CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: {NO_FILE}"
NVRTC_14_2 = (
    'Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13 or libnvrtc.so.12, '
    "No such file: libnvrtc.so.13 or libnvrtc.so.12\n"
)
CUBLAS_13_6 = f"libcublas.so.12: {NO_FILE}"
CUBLAS_14_2 = (
    'Failure finding "libcublasLt.so.13 or libcublasLt.so.12": No such file: libcublasLt.so.13 or libcublasLt.so.12, '
    "No such file: libcublasLt.so.13 or libcublasLt.so.12\n"
)
INSUFFICIENT_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
STUB = "cudaErrorStubLibrary: CUDA driver is a stub library"
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*arguments: object) -> NoReturn:
        raise error

    return fail


def fault(name: str = "cupy") -> str:
    """Return what is said of a backend that cannot be had, the same from all who are asked."""
    with pytest.raises(BackendUnavailable) as error:
        get_backend(name)
    opening, _, said = str(error.value).partition(": ")
    assert opening == f"backend {name!r} is not available"
    assert "\n" not in said
    if name == "cupy":
        assert available_backends() == ["numpy"]
        assert unavailable_backends() == {"cupy": said}
        assert get_backend("auto").name == "numpy"
    return said


def test_the_package_is_missing(without_cupy: None) -> None:
    said = fault()
    assert said.startswith("the package CuPy is not installed; ")
    assert CUDA13 in said
    assert '".[cuda12]"' in said


def broken_import(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let `import cupy` raise."""

    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "cupy":
                raise error

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])


def test_the_package_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy shows the cause in a banner; the line is its cause's."""
    cause = ImportError("libstdc++.so.6: version `GLIBCXX_3.4.29' not found")
    banner = ImportError(f"\n{'=' * 64}\nFailed to import CuPy.\n\nOriginal error:\n  {cause}\n{'=' * 64}\n")
    banner.__cause__ = cause
    broken_import(monkeypatch, banner)
    said = fault()
    assert said.startswith(
        f"the package CuPy is installed but does not import ({cause}); reinstall it: in the clone, {CUDA13}"
    )


def test_an_old_package_on_a_new_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_import(monkeypatch, AttributeError("module 'numpy' has no attribute 'int0'"))
    assert "does not import (module 'numpy' has no attribute 'int0'); reinstall it" in fault()


def test_a_part_of_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_import(monkeypatch, ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"))
    assert fault().startswith("the package CuPy is incomplete (No module named 'fastrlock'); reinstall it: ")


def test_a_folder_that_an_uninstall_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    assert fault().startswith("the package CuPy is incomplete (it has no cupy.cuda); reinstall it: ")


@pytest.mark.parametrize(
    ("words", "build", "command"),
    [(NVRTC_13_6, 12090, CUDA12), (NVRTC_14_2, 13020, CUDA13), (NVRTC_13_6, 11080, EITHER)],
)
def test_cudas_compiler_is_missing(cupy: Any, words: str, build: int, command: str) -> None:
    cupy.cuda.nvrtc.getVersion = raising(RuntimeError(words))
    cupy.cuda.driver.get_build_version = lambda: build
    said = fault()
    assert said.startswith(f"CUDA's libraries cannot be loaded ({words.strip()}); ")
    assert command in said


@pytest.mark.parametrize(("words", "build", "command"), [(CUBLAS_13_6, 12090, CUDA12), (CUBLAS_14_2, 13020, CUDA13)])
def test_cudas_matrix_library_is_missing(cupy: Any, words: str, build: int, command: str) -> None:
    class WithoutCublas(SimpleNamespace):
        @property
        def cublas(self) -> NoReturn:
            raise ImportError(words)

    parts = {name: part for name, part in vars(cupy.cuda).items() if name != "cublas"}
    cupy.cuda = WithoutCublas(**parts)
    cupy.cuda.driver.get_build_version = lambda: build
    uv = "uv sync --extra cuda13" if command == CUDA13 else "uv sync --extra cuda12"
    assert fault() == f"CUDA's libraries cannot be loaded ({words.strip()}); in the clone, {command}; with uv, {uv}"


@pytest.mark.parametrize(
    ("words", "build", "known", "state"),
    [
        (INSUFFICIENT_DRIVER, 12090, 0, "is missing for a CuPy of CUDA 12"),
        (INSUFFICIENT_DRIVER, 13020, 0, "is missing for a CuPy of CUDA 13"),
        (INSUFFICIENT_DRIVER, 13020, 12040, "knows CUDA 12.4, too old for a CuPy of CUDA 13"),
        (STUB, 13020, 0, "is missing for a CuPy of CUDA 13"),
    ],
    ids=["missing, 13.6", "missing, 14.2", "too old", "a stub"],
)
def test_the_driver_is_missing(cupy: Any, words: str, build: int, known: int, state: str) -> None:
    cupy.cuda.runtime.getDeviceCount = raising(RuntimeError(words))
    cupy.cuda.is_available = raising(RuntimeError(words))  # as 13.6; 14.2 says False
    cupy.cuda.driver.get_build_version = lambda: build
    cupy.cuda.runtime.driverGetVersion = lambda: known
    said = fault()
    assert said.startswith(f"the NVIDIA driver {state} ({words}); install driver ≥ ")
    assert "nvidia-smi" in said


def test_the_driver_does_not_start(cupy: Any) -> None:
    cupy.cuda.runtime.getDeviceCount = raising(RuntimeError("cudaErrorSystemNotReady: system not yet initialized"))
    assert fault().startswith("the CUDA driver does not start (cudaErrorSystemNotReady: system not yet initialized); ")


@pytest.mark.parametrize("count", [lambda: 0, raising(RuntimeError(NO_DEVICE))], ids=["none", "an error"])
def test_the_device_is_missing(cupy: Any, count: Callable[[], int]) -> None:
    cupy.cuda.runtime.getDeviceCount = count
    said = fault()
    assert said.startswith("the CUDA driver finds no device; ")
    assert "nvidia-smi" in said
    assert "CUDA_VISIBLE_DEVICES" in said


def test_the_device_number_is_too_high(cupy: Any) -> None:
    assert fault("cupy:2") == "there is no device 2: this machine has devices 0 to 1, as nvidia-smi shows"
    assert get_backend("cupy:1").name == "cupy:1"
    cupy.cuda.runtime.getDeviceCount = lambda: 1
    assert fault("cupy:1") == "there is no device 1: this machine has only device 0, as nvidia-smi shows"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ('x.cu(1): catastrophic error: cannot open source file "cuda_fp16.h"', "CUDA's headers cannot be found"),
        ("Failed to auto-detect CUDA root directory.", "CUDA's headers cannot be found"),
        ("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable", "device 0 is there, but"),
    ],
)
def test_everything_is_there_and_does_not_compute(cupy: Any, words: str, part: str) -> None:
    cupy.zeros = raising(RuntimeError(words))
    said = fault()
    assert said.startswith(part)
    assert words in said
    assert CUDA13 in said or "nvidia-smi" in said


def test_available_backends_names_every_device(cupy: Any) -> None:
    assert available_backends() == ["numpy", "cupy", "cupy:1"]
    assert unavailable_backends() == {}


# What is offered ------------------------------------------------------------------------------------------------


def test_nothing_that_leaves_memory_unwritten_is_offered() -> None:
    for kind in (Backend, NumpyBackend):
        assert [name for name in dir(kind) if "empty" in name.lower()] == []


def test_importing_convlstm_imports_neither_chainer_nor_cupy() -> None:
    program = """
import sys, convlstm, convlstm.backends
imported = {name.partition(".")[0] for name in sys.modules}
print(imported & {"chainer", "chainerx", "cupy", "cupyx", "cupy_backends"})
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")
