"""What a replay changes, one thing at a time."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from convlstm.determinism.memory import numpys_core

Axis = Literal["nothing", "memory", "threads", "hash", "simd", "alignment"]
AXES: tuple[Axis, ...] = ("nothing", "memory", "threads", "hash", "simd", "alignment")

# The byte that new memory is filled with.  All bits set are a NaN in every float format.
PATTERNS = {"zeros": 0x00, "large numbers": 0x55, "NaN": 0xFF, "small numbers": 0x3C}
REPEATS = 2  # runs with nothing changed at all


@dataclass(frozen=True)
class Condition:
    """The surroundings of one run."""

    pattern: str = "zeros"  # in all new memory, libraries' included; of arrays see `sites`
    sites: frozenset[tuple[str, int]] | None = None  # lines whose new arrays hold it; None for all; others hold zeros
    threads: int = 2
    hash_seed: int = 0
    simd: str = ""  # "", the machine's own, or a level of `SIMD_LEVELS`
    offset: int = 0  # bytes from the start of a cache line to an array's memory

    def environment(self) -> dict[str, str]:
        """Return the environment variables that bring it about."""
        count = str(self.threads)
        names = ("CONVLSTM", "OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "VECLIB_MAXIMUM", "NUMBA")
        variables = {f"{name}_THREADS" if name == "CONVLSTM" else f"{name}_NUM_THREADS": count for name in names}
        variables["VECLIB_MAXIMUM_THREADS"] = variables.pop("VECLIB_MAXIMUM_NUM_THREADS")
        variables["PYTHONHASHSEED"] = str(self.hash_seed)
        # The C library of Linux fills what it hands out with this byte, all bits turned; 0 would turn that off, so all
        # bits set are nearly all.  It reaches what arrays' own handler does not: libraries' memory.
        library = PATTERNS[self.pattern] if self.sites is None else 0
        variables["MALLOC_PERTURB_"] = str((library ^ 0xFF) or 1)
        return variables | SIMD_LEVELS.get(self.simd, {})


def _simd_levels() -> dict[str, dict[str, str]]:
    """Return the levels below the machine's own: what OpenBLAS and NumPy are told."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return {}
    numpys = numpys_core()
    on = [name for name in numpys.__cpu_dispatch__ if numpys.__cpu_features__.get(name)]
    levels = {}
    for level, core in (("AVX2", "Haswell"), ("SSE4", "Nehalem")):
        if not numpys.__cpu_features__.get("AVX2" if level == "SSE4" else "AVX512F"):
            continue  # the machine's own is no higher
        off = [name for name in on if level == "SSE4" or name.startswith(("AVX512", "X86_V4"))]
        levels[level] = {"OPENBLAS_CORETYPE": core, "NPY_DISABLE_CPU_FEATURES": " ".join(off)}
    return levels


SIMD_LEVELS: Mapping[str, dict[str, str]] = _simd_levels()


@dataclass(frozen=True)
class Change:
    """One run beside the plain one: which axis it is on, and what is other there."""

    axis: Axis
    what: str
    condition: Condition = field(default_factory=Condition)


def changes(plain: Condition) -> Iterator[Change]:
    """Yield the runs that differ from the plain one in one thing, nothing at all first."""
    for k in range(REPEATS):
        yield Change("nothing", f"run {k + 2} of the same", plain)
    for pattern in list(PATTERNS)[1:]:
        yield Change("memory", f"new memory holds {pattern}", dataclasses.replace(plain, pattern=pattern))
    for threads in (1, 3):
        yield Change("threads", f"{threads} threads, not {plain.threads}", dataclasses.replace(plain, threads=threads))
    for seed in (1, 2):
        yield Change("hash", f"PYTHONHASHSEED={seed}", dataclasses.replace(plain, hash_seed=seed))
    for level in SIMD_LEVELS:
        yield Change("simd", f"{level} instructions at most", dataclasses.replace(plain, simd=level))
    for offset in (16, 32, 48):
        what = f"arrays begin {offset} bytes into a cache line"
        yield Change("alignment", what, dataclasses.replace(plain, offset=offset))
