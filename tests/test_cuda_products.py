"""How cuBLAS is told to multiply: a fixed workspace before its first product, TF32 by its own name alone."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import pytest

from convlstm.backends import BackendUnavailable, available_backends, cuda_products, cupy_faults, get_backend
from tests.cupy_stand_in import forget_backends

CUBLAS = "cupy_backends.cuda.libs.cublas"


@pytest.fixture
def stand_in(cupy: Any) -> Any:
    if hasattr(cupy, "__file__"):
        pytest.skip("a process on a device has made its choice")
    return cupy


def test_the_workspace_is_fixed_before_the_first_product(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    inner = stand_in.zeros

    def zeros(*arguments: Any) -> Any:
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        return inner(*arguments)

    monkeypatch.setattr(stand_in, "zeros", zeros)
    cupy_faults._try_out.cache_clear()
    assert "cuBLAS workspace :4096:8" in get_backend("cupy").description
    assert seen[0] == ":4096:8"


def test_the_first_product_goes_through_cublas(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy multiplies a row by a column with a kernel of its own, which would say nothing about cuBLAS."""
    shapes: list[tuple[int, ...]] = []
    inner = type(stand_in.zeros((1,), "float32")).__matmul__

    def matmul(a: Any, b: Any) -> Any:
        shapes.append((*a.shape, *b.shape))
        return inner(a, b)

    monkeypatch.setattr(stand_in.ndarray, "__matmul__", matmul)
    cupy_faults._try_out.cache_clear()
    assert available_backends()[1] == "cupy"
    assert shapes
    assert all(min(shape) > 1 for shape in shapes)


def test_a_workspace_that_repeats_its_bits_is_left(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert get_backend("cupy").description.endswith("no TF32, cuBLAS workspace :16:8")


@pytest.mark.parametrize("given", ["", ":0:0", ":4096:2", "4096"])
def test_another_workspace_is_refused(stand_in: Any, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
    with pytest.raises(BackendUnavailable) as caught:
        get_backend("cupy")
    assert str(caught.value) == (
        f"backend 'cupy' is not available: CUBLAS_WORKSPACE_CONFIG={given} does not give the same bits on every run; "
        "unset it, or set it to :4096:8 or :16:8"
    )


def test_a_workspace_that_may_come_too_late_is_said_to(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, CUBLAS, ModuleType(CUBLAS))
    assert "cuBLAS workspace :4096:8 (unless CuPy had multiplied before)" in get_backend("cupy").description
    forget_backends()
    assert "multiplied before" in get_backend("cupy").description  # the second look at the environment forgets nothing


def test_one_that_was_set_is_never_too_late(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, CUBLAS, ModuleType(CUBLAS))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert "multiplied before" not in get_backend("cupy").description


# TF32 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "kind", "words"), [(None, 1, "no TF32"), ("0", 1, "no TF32"), ("1", 7, ", TF32")])
def test_tf32_is_on_where_its_name_says_so(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, given: str | None, kind: int, words: str
) -> None:
    if given is not None:
        monkeypatch.setenv("CONVLSTM_TF32", given)
    stand_in.compute_types["float32"] = 8 - kind  # what somebody chose before
    assert words in get_backend("cupy").description
    assert stand_in.compute_types == {"float32": kind}  # float64 is left as it is


@pytest.mark.parametrize("name", cuda_products.OTHER_SWITCHES)
@pytest.mark.parametrize(("ours", "theirs"), [(None, "1"), ("0", "1"), ("1", "0")])
def test_another_switch_must_not_contradict(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, name: str, ours: str | None, theirs: str
) -> None:
    monkeypatch.setenv(name, theirs)
    if ours is not None:
        monkeypatch.setenv("CONVLSTM_TF32", ours)
    expected = f"{name}={theirs} contradicts CONVLSTM_TF32={ours or 0}, which alone decides here; unset {name}$"
    with pytest.raises(BackendUnavailable, match=expected):
        get_backend("cupy")


@pytest.mark.parametrize("value", ["0", "1"])
def test_another_switch_may_agree(stand_in: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in ("CONVLSTM_TF32", *cuda_products.OTHER_SWITCHES):
        monkeypatch.setenv(name, value)
    assert get_backend("cupy").name == "cupy"


def test_a_device_without_tf32_is_named(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in.cuda.Device, "compute_capability", "75")
    assert get_backend("cupy").name == "cupy"
    forget_backends()
    monkeypatch.setenv("CONVLSTM_TF32", "1")
    with pytest.raises(BackendUnavailable, match=r"needs compute capability 8\.0 or more; this device has 7\.5$"):
        get_backend("cupy")


def test_a_word_is_no_answer(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLSTM_TF32", "yes")
    with pytest.raises(BackendUnavailable, match=r"CONVLSTM_TF32 must be 0 or 1; it is yes$"):
        get_backend("cupy")
