"""The CUDA source of the gates: every CUDA compiler that is here takes it; run on this machine it agrees with NumPy."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from convlstm.backends import Array, cuda_gates, gates
from convlstm.backends.contract import Peepholes
from tests.cuda_on_host import COMPILER, NO_COMPILER, host_kernel

REALS = {"float32": "float", "float64": "double"}
ARCHITECTURES = (70, 75, 80, 90, 100, 120)  # Volta to Blackwell; CUDA 13 has dropped the first
KINDS = (None, "channel", "pixel")


def source(dtype: str) -> str:
    return f"#define REAL {REALS[dtype]}\n{cuda_gates.SOURCE}"


# CUDA's compilers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nvcc() -> str:
    found = shutil.which("nvcc")
    if found is None:
        pytest.skip("no nvcc on the PATH to compile the CUDA source")
    if COMPILER is None:
        pytest.skip(f"nvcc needs a host compiler: {NO_COMPILER}")
    return found


def compile_with_nvcc(
    nvcc: str, folder: Path, dtype: str, *options: str, given: Sequence[str] = cuda_gates.OPTIONS, first: str = ""
) -> bytes:
    program, out = folder / "gates.cu", folder / "gates.out"
    lines = source(dtype).split("\n", 1)
    program.write_text(f"{lines[0]}\n{first}{lines[1]}", encoding="utf-8")
    strict = ["--Werror=all-warnings", "-Wno-deprecated-gpu-targets"]  # the second: some will be dropped one day
    command = [nvcc, *given, *strict, *options, "-o", str(out), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return out.read_bytes()


@pytest.mark.parametrize("dtype", REALS)
def test_nvcc_compiles_it_for_every_architecture(nvcc: str, tmp_path: Path, dtype: str) -> None:
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    chosen = [number for number in ARCHITECTURES if f"compute_{number}\n" in listed]
    assert {80, 90} <= set(chosen), f"this nvcc knows neither Ampere nor Hopper: {listed}"
    targets = [option for n in chosen for option in ("--generate-code", f"arch=compute_{n},code=sm_{n}")]
    binary = compile_with_nvcc(nvcc, tmp_path, dtype, "--fatbin", *targets)
    assert b"gates_forward" in binary
    assert b"gates_backward" in binary


def test_nvcc_computes_float32_in_float32(nvcc: str, tmp_path: Path) -> None:
    """A literal without REAL(…) would be a double and make each operation it touches one, 32 times slower."""
    assert_no_double(compile_with_nvcc(nvcc, tmp_path, "float32", "--ptx", "-arch=compute_80").decode())


# An operation of the source's own lines; `tanh` brings approximations of e^x and 1/x, which flush where it is harmless.
FLUSHED = re.compile(r"\b(add|sub|mul|neg|fma)(\.rn)?\.ftz\.f32\b")
FUSED_BY_THE_COMPILER = re.compile(r"\bfma\.rn(\.ftz)?\.f(32|64)\b")
WITHOUT_TANH = "__device__ inline REAL plain(REAL x) { return x; }\n#define tanh plain\n"


def test_nvcc_neither_flushes_nor_fuses(nvcc: str, tmp_path: Path) -> None:
    for option, flushed, fused in (("", False, False), ("--ftz=true", True, False), ("--fmad=true", False, True)):
        options = [given for given in cuda_gates.OPTIONS if not option or not given.startswith(option[:5])]
        ptx = compile_with_nvcc(
            nvcc,
            tmp_path,
            "float32",
            "--ptx",
            "-arch=compute_80",
            *filter(None, [option]),
            given=options,
            first=WITHOUT_TANH,
        ).decode()
        assert (bool(FLUSHED.search(ptx)), bool(FUSED_BY_THE_COMPILER.search(ptx))) == (flushed, fused), option


def assert_no_double(ptx: str) -> None:
    assert ".entry gates_forward(" in ptx
    doubles = [line for line in ptx.splitlines() if re.search(r"\.f64\b", line)]
    assert doubles == []


class Nvrtc:
    """CUDA's run-time compiler, which CuPy calls, through its C interface."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.version = tuple(self._integers("nvrtcVersion", 2))

    def _integers(self, function: str, count: int) -> list[int]:
        values = [ctypes.c_int() for _ in range(count)]
        assert self.library[function](*map(ctypes.byref, values)) == 0
        return [value.value for value in values]

    def architectures(self) -> list[int]:
        (count,) = self._integers("nvrtcGetNumSupportedArchs", 1)
        found = (ctypes.c_int * count)()
        assert self.library.nvrtcGetSupportedArchs(found) == 0
        return list(found)

    def compile(self, text: str, options: list[str]) -> tuple[str, str]:
        """Return (PTX, the compiler's log); the PTX is empty where it would not compile."""
        program = ctypes.c_void_p()
        assert self.library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"gates.cu", 0, None, None) == 0
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = self.library.nvrtcCompileProgram(program, len(options), given)
        log = self._text(program, "nvrtcGetProgramLog")
        ptx = "" if failed else self._text(program, "nvrtcGetPTX")
        assert self.library.nvrtcDestroyProgram(ctypes.byref(program)) == 0
        return ptx, log

    def _text(self, program: ctypes.c_void_p, function: str) -> str:
        size = ctypes.c_size_t()
        assert self.library[f"{function}Size"](program, ctypes.byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert self.library[function](program, text) == 0
        return text.value.decode()


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    """The NVRTC that pip installed or that the loader finds."""
    package = importlib.util.find_spec("nvidia")
    places = list(package.submodule_search_locations or []) if package else []
    files = [str(file) for place in places for file in sorted(Path(place).glob("*/lib/libnvrtc.so.*[0-9]"))]
    for name in [*files, "libnvrtc.so.13", "libnvrtc.so.12"]:
        try:
            return Nvrtc(ctypes.CDLL(name))
        except OSError:
            continue
    pytest.skip("no NVRTC to compile the CUDA source; pip install nvidia-cuda-nvrtc brings one")


# What CuPy's `compile_using_nvrtc` adds to the options that it is given, for CUDA 12 and 13; a `RawKernel` adds FTZ.
OPTIONS_OF_CUPY = ["--device-as-default-execution-space"]
FTZ = "-ftz=true"


@pytest.mark.parametrize("dtype", REALS)
def test_nvrtc_compiles_it_as_cupy_asks(nvrtc: Nvrtc, dtype: str) -> None:
    for number in set(ARCHITECTURES) & set(nvrtc.architectures()):
        options = [*cuda_gates.OPTIONS, *OPTIONS_OF_CUPY, f"-arch=compute_{number}"]
        ptx, log = nvrtc.compile(source(dtype), options)
        assert log == "" or re.fullmatch(r".*Architectures prior to .* are deprecated.*\n", log)
        assert ".entry gates_backward(" in ptx
        if dtype == "float32":
            assert_no_double(ptx)
            assert not FLUSHED.search(ptx)


def test_nvrtc_takes_the_last_of_two_options(nvrtc: Nvrtc) -> None:
    """Why cuda_kernels.py does not go through a `RawKernel`: what it appends would win."""
    ptx, log = nvrtc.compile(source("float32"), [*cuda_gates.OPTIONS, FTZ, "-arch=compute_80"])
    assert FLUSHED.search(ptx)
    assert "followed by" in log


# On this machine ------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    N: int = 2
    C: int = 3
    H: int = 5
    W: int = 7
    blocks: int = 4
    threads: int = 32


CASES = {
    "a thread each": Case(),
    "more elements than threads": Case(blocks=3, threads=8),
    "a single thread": Case(blocks=1, threads=1),
    "one channel": Case(C=1),
    "one sample, one pixel": Case(N=1, H=1, W=1),
    "one of everything": Case(1, 1, 1, 1),
    "as the backend launches it": Case(N=3, C=16, H=9, W=11, blocks=19, threads=cuda_gates.THREADS_PER_BLOCK),
}


class Operands(NamedTuple):
    z_x: Array
    z_h: Array | None
    bias: Array | None
    c_previous: Array
    peepholes: Peepholes | None
    dh: Array
    dc: Array


def random_operands(case: Case, dtype: str, bias: str | None, peephole: str | None, *, with_h: bool) -> Operands:
    """Return read-only operands with memory in order N, H, W, C, behind axes in the order that the contract says."""
    rng = np.random.default_rng(0)
    N, C, H, W = case[:4]

    def channels_last(*shape: int) -> Array:
        array = np.moveaxis(rng.standard_normal((*shape[:-3], *shape[-2:], shape[-3])).astype(dtype), -1, -3)
        array.flags.writeable = False
        return array

    def parameter(kind: str | None, channels: int) -> Array | None:
        if kind == "pixel":
            return channels_last(channels, H, W)
        return rng.standard_normal(channels).astype(dtype) if kind else None

    weights = [parameter(peephole, C) for _ in range(3)]
    return Operands(
        z_x=channels_last(N, 4 * C, H, W),
        z_h=channels_last(N, 4 * C, H, W) if with_h else None,
        bias=parameter(bias, 4 * C),
        c_previous=channels_last(N, C, H, W),
        peepholes=Peepholes(*weights) if peephole else None,  # type: ignore[arg-type]
        dh=channels_last(N, C, H, W),
        dc=channels_last(N, C, H, W),
    )


Results = dict[str, Array]


def by_numpy(given: Operands) -> Results:
    h, c, kept = gates.gates_forward(given.z_x, given.z_h, given.bias, given.c_previous, given.peepholes)
    dz, dc_previous = gates.gates_backward(given.dh, given.dc, kept)
    return {"h": h, "c": c, "dz": dz, "dc_previous": dc_previous}


def by_cuda_source(given: Operands, case: Case, text: str) -> Results:
    """Launch both kernels as the CuPy backend does; whatever they do not write stays NaN."""
    N, C, H, W = case[:4]
    grid, block = (case.blocks,), (case.threads,)

    def memory(array: Array | None) -> Array | np.uintp:
        """As it lies, maps channels last, parameters as they are held; nothing where nothing is given."""
        if array is None:
            return np.uintp(0)
        return np.ascontiguousarray(np.moveaxis(array, -3, -1) if array.ndim == 4 else array)

    def unwritten(*shape: int) -> Array:
        return np.full(shape, np.nan, given.z_x.dtype)

    def per_pixel(array: Array | None) -> np.int32:
        return np.int32(array is not None and array.ndim == 3)

    p_i, p_f, p_o = given.peepholes or (None, None, None)
    sizes = (np.int64(N * C * H * W), np.int64(H * W), np.int32(C))
    peepholes = (memory(p_i), memory(p_f), memory(p_o), per_pixel(p_i))
    activations = unwritten(N, H, W, 4, C)
    tanh_c, c, h, dc_previous = (unwritten(N, H, W, C) for _ in range(4))
    dz = unwritten(N, H, W, 4 * C)
    host_kernel(text, "gates_forward")(
        grid, block,
        (*sizes, memory(given.z_x), memory(given.z_h), memory(given.bias), per_pixel(given.bias), *peepholes,
         memory(given.c_previous), activations, tanh_c, c, h),
    )  # fmt: skip
    host_kernel(text, "gates_backward")(
        grid, block,
        (*sizes, *peepholes, activations, tanh_c, memory(given.c_previous), memory(given.dh), memory(given.dc),
         dz, dc_previous),
    )  # fmt: skip
    maps = {"h": h, "c": c, "dz": dz, "dc_previous": dc_previous}
    return {name: np.moveaxis(array, -1, 1) for name, array in maps.items()}


def assert_alike(found: Results, right: Results, ulps: float) -> None:
    """Numbers here are of size 1, so a few ulps of 1 are allowed for each, and of itself where it is larger."""
    for name, array in right.items():
        tolerance = ulps * np.finfo(array.dtype).eps
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


needs_compiler = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)


@needs_compiler
@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_numpys_gates(case: Case, dtype: str) -> None:
    """float64 agrees to 16 ulps, 4e-15; float32 to 16 ulps, 2e-6: the two libraries' tanh differ by an ulp or two."""
    for bias, peephole, with_h in itertools.product(KINDS, KINDS, (False, True)):
        given = random_operands(case, dtype, bias, peephole, with_h=with_h)
        assert_alike(by_cuda_source(given, case, source(dtype)), by_numpy(given), ulps=16)


# Each fault is planted in one place of the source: what is there, and what stands there instead.
FAULTS = {
    "i's peephole dropped": ("z[0] = z[0] + p_i[p] * before", "z[0] = z[0]"),
    "o's peephole looks back": ("p_o[p] * now", "p_o[p] * before"),
    "input and forget gate swapped": ("f * before + i * g", "i * before + f * g"),
    "recurrent share dropped": ("if (z_h) z[gate] = z[gate] + z_h[first + gate * C];", "(void)z_h;"),
    "bias of another gate": ("long long b = gate * C + channel", "long long b = channel"),
    "bias of another pixel": ("b * pixels + pixel : b", "b * pixels : b"),
    "peephole of another pixel": ("channel * pixels + pixel : channel", "channel * pixels : channel"),
    "peephole of another pixel backward": ("channel * pixels + row % pixels : channel", "channel * pixels : channel"),
    "dc from later steps dropped": (" + dc[k];", "; (void)dc;"),
    "o's peephole dropped backward": ("if (p_o) d_c = d_c + p_o[p] * dz_o;", "(void)p_o;"),
    "f's peephole dropped backward": ("if (p_f) d_c = d_c + p_f[p] * dz_f;", "(void)p_f;"),
    "sigmoid's derivative for tanh's": ("(1 - g * g)", "(g * (1 - g))"),
    "gradients of two gates swapped": ("dz[first + C] = dz_f;\n        dz[first + 2 * C] = dz_g;",
                                       "dz[first + C] = dz_g;\n        dz[first + 2 * C] = dz_f;"),
    "only one round of the threads": ("k += step", "k += size + 0 * step"),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_seen(fault: tuple[str, str]) -> None:
    right = source("float64")
    assert fault[0] in right
    case = CASES["more elements than threads"]
    given = random_operands(case, "float64", "pixel", "pixel", with_h=True)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_alike(by_cuda_source(given, case, right.replace(*fault)), by_numpy(given), ulps=1e6)


@needs_compiler
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda given: given[:-1], "takes arguments of kinds"),
        (lambda given: (np.int32(1), *given[1:]), "takes arguments of kinds"),
        (lambda given: (*given[:-1], np.zeros((2, 3)).T), "not in C order"),
    ],
    ids=["one missing", "32 bits for 64", "transposed"],
)
def test_the_launch_here_is_strict(change: object, error: str) -> None:
    """CUDA would read whatever lies there; the CuPy backend's tests rely on this to see such a call."""
    assert callable(change)
    one = np.zeros((1, 1))
    null = np.uintp(0)
    arguments = (
        np.int64(1), np.int64(1), np.int32(1), null, null, null, np.int32(0), np.zeros((1, 4)), one, one, one, one,
        np.zeros((1, 4)), np.zeros((2, 3)),
    )  # fmt: skip
    launch = host_kernel(source("float64"), "gates_backward")
    launch((1,), (1,), arguments)
    with pytest.raises((TypeError, ValueError), match=error):
        launch((1,), (1,), change(arguments))
