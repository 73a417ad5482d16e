"""`observe`: hands copies to recorders, costs nothing without one, keeps nothing whose bytes are not its value's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convlstm.determinism.observation import observe, observed, recorded


def _record(name: str, value: object) -> npt.NDArray[Any]:
    seen: list[tuple[str, npt.NDArray[Any]]] = []
    with recorded(lambda *pair: seen.append(pair)):
        observe(name, value)
    ((said, array),) = seen
    assert said == name
    return array


def test_without_a_recorder_nothing_happens() -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(name)

    assert not observed()
    observe("x", Untouchable())


def test_a_recorder_gets_a_copy() -> None:
    x = np.arange(6.0).reshape(2, 3).T
    array = _record("x", x)
    assert array.tolist() == x.tolist()
    assert array.flags.c_contiguous
    assert not np.shares_memory(array, x)


@pytest.mark.parametrize(("value", "dtype"), [(1.5, "<f8"), (True, "|b1"), (np.float32(2), "<f4"), (2 + 1j, "<c16")])
def test_numbers(value: object, dtype: str) -> None:
    array = _record("number", value)
    assert (array.shape, array.dtype.str) == ((), dtype)


def test_an_array_of_a_device_is_fetched() -> None:
    class OnDevice:
        def get(self) -> npt.NDArray[np.float64]:
            return np.ones(3)

    assert _record("device", OnDevice()).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "value",
    [
        np.array(["text", 1, None], dtype=object),
        np.ones(3, dtype=np.longdouble) / 3,
        np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    ],
    ids=["pointers", "longdouble", "record with a gap"],
)
def test_bytes_that_are_not_the_values_are_not_kept(value: npt.NDArray[Any]) -> None:
    array = _record("value", value)
    assert array.shape == value.shape
    assert array.dtype.kind == "U"
    assert array[0] == repr(value[0])


def test_recorders_leave_in_any_order_and_on_errors() -> None:
    outer, inner = recorded(lambda name, array: None), recorded(lambda name, array: None)
    with outer:
        with pytest.raises(ZeroDivisionError), inner:
            raise ZeroDivisionError
        assert observed()
    assert not observed()
