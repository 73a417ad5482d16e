"""How cuBLAS multiplies matrices: always in the same way, and without TF32 unless that is asked for by name.

cuBLAS repeats its bits on one device model as long as a single stream works.  With several it may choose another
workspace, and with it another order of summation, unless CUBLAS_WORKSPACE_CONFIG is ":4096:8" or ":16:8" when its
handle is made (cuBLAS documentation, "Results reproducibility").  `fix_workspace` sees to that before CuPy makes one.

TF32 keeps 10 of the 23 binary digits behind the leading one of what is multiplied.  CuPy turns it on, without a word,
where CUPY_TF32 is set, NVIDIA's libraries where NVIDIA_TF32_OVERRIDE is.  Here it is on where CONVLSTM_TF32=1 says so,
which a run's record holds, and nowhere else.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
REPEATABLE = (":4096:8", ":16:8")  # the two that NVIDIA names; the first is faster and takes 24 MiB more
OTHER_SWITCHES = ("CUPY_TF32", "NVIDIA_TF32_OVERRIDE")
_CUBLAS = "cupy_backends.cuda.libs.cublas"  # CuPy imports it with the first product, Chainer with CuPy

_perhaps_late = False  # whether somebody may have multiplied before the workspace was fixed


def fix_workspace() -> None:
    """Set CUBLAS_WORKSPACE_CONFIG for this process, if it is not set; to be called before CuPy multiplies."""
    global _perhaps_late
    if WORKSPACE not in os.environ:
        _perhaps_late = _CUBLAS in sys.modules
        os.environ[WORKSPACE] = REPEATABLE[0]


def products_fault(capability: str) -> str | None:
    """Return None where products can be computed as the environment asks for, else one line: why not, what mends it.

    Args:
        capability: the device's compute capability, "80" for 8.0.
    """
    workspace, tf32 = os.environ.get(WORKSPACE), os.environ.get("CONVLSTM_TF32") or "0"
    if workspace not in (None, *REPEATABLE):
        return (
            f"{WORKSPACE}={workspace} does not give the same bits on every run; unset it, or set it to "
            f"{' or '.join(REPEATABLE)}"
        )
    if tf32 not in ("0", "1"):
        return f"CONVLSTM_TF32 must be 0 or 1; it is {tf32}"
    for name in OTHER_SWITCHES:
        if os.environ.get(name, tf32) != tf32:
            return f"{name}={os.environ[name]} contradicts CONVLSTM_TF32={tf32}, which alone decides here; unset {name}"
    if tf32 == "1" and int(capability) < 80:
        return f"CONVLSTM_TF32=1 needs compute capability 8.0 or more; this device has {int(capability) / 10}"
    return None


def choose_precision(cupy: ModuleType) -> bool:
    """Let CuPy multiply float32 matrices in this whole process as CONVLSTM_TF32 asks for; return whether with TF32."""
    types, tf32 = cupy._core._routines_linalg, os.environ.get("CONVLSTM_TF32") == "1"
    types.set_compute_type("float32", types.COMPUTE_TYPE_TF32 if tf32 else types.COMPUTE_TYPE_DEFAULT)
    return tf32


def described(*, tf32: bool) -> str:
    """Return how products are computed, for the record of a run."""
    late = " (unless CuPy had multiplied before)" if _perhaps_late else ""
    return f"{'TF32' if tf32 else 'no TF32'}, cuBLAS workspace {os.environ.get(WORKSPACE)}{late}"
