"""What numbers and times may depend on: processor, cores, BLAS, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from typing import Any

import threadpoolctl


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """Return the machine and the versions of those `packages` that are installed, as plain data."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "blas": blas(),
        "packages": {name: version for name in packages if (version := _version(name))},
    }


def processor() -> str:
    """Return the processor's name and, on Linux, those of its vector instructions that decide how sums are rounded."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info)}
    except OSError:
        return platform.processor() or platform.machine()
    simd = [name for name in ("avx2", "avx512f", "asimd", "sve") if name in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine())} ({' '.join(simd) or platform.machine()})"


def blas() -> list[str]:
    """Return the BLAS libraries that are loaded, each with version and the kernels it chose for this processor."""
    found = (library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas")
    return sorted({f"{lib['internal_api']} {lib['version']} {lib.get('architecture', '')}".strip() for lib in found})


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
