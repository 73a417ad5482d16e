"""`forbid_uninitialised`: the user's lines are refused with their place, libraries pass, and nothing is left behind."""

from __future__ import annotations

import copy
import functools
import importlib
import io
import pickle
import random
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy import empty as empty_taken_before

import convlstm
from convlstm.backends.chainer_import import import_chainer
from convlstm.determinism.forbid import FORBIDDEN, UninitialisedAllocation, _GuardOnImport, forbid_uninitialised

UNINITIALISED = "what is tested begins and ends outside"

empty_like_taken_before = np.empty_like
xp: Any = np
changed_to = object()


@pytest.fixture(autouse=True)
def _all_is_found_as_it_was() -> Iterator[None]:
    modules = [np, *(sys.modules[name] for name in FORBIDDEN if name in sys.modules), sys.modules[__name__]]
    before = [(module, type(module), dict(vars(module))) for module in modules]
    yield
    assert not any(isinstance(finder, _GuardOnImport) for finder in sys.meta_path)
    for module, kind, names in before:
        assert type(module) is kind
        changed = [name for name, value in names.items() if vars(module).get(name, changed_to) is not value]
        assert not changed, f"{changed} of {module.__name__}"
    assert type(np) is ModuleType
    assert np.empty is empty_taken_before


def _refused(call: Callable[[], object], instead: str = "numpy.zeros") -> str:
    with forbid_uninitialised(), pytest.raises(UninitialisedAllocation) as caught:
        call()
    message = str(caught.value)
    assert message.endswith(f"; use {instead}")
    return message


# What is refused ----------------------------------------------------------------------------------------------------


def test_the_message_names_file_line_and_replacement() -> None:
    def ask() -> object:
        return np.empty((2, 3))

    line = ask.__code__.co_firstlineno + 1
    assert _refused(ask) == (f"{__file__}:{line}: numpy.empty returns memory that nobody has written; use numpy.zeros")


def _import_inside() -> object:
    from numpy import empty

    return empty(3)


def _import_as_inside() -> object:
    import numpy as other

    return other.ndarray((3,))


def _alias_inside() -> object:
    make = np.empty
    return make(3)


def _partial_inside() -> object:
    return functools.partial(np.empty, dtype=np.float32)((2, 2))


def _executed() -> object:
    return eval("np.empty(3)", {"np": np})


@pytest.mark.parametrize(
    "call",
    [
        lambda: np.empty(3),
        lambda: np.ndarray((2, 3)),
        lambda: np.ndarray(shape=(2, 3), dtype=np.float32),
        lambda: np.ndarray((max(2, 3), len([4])), dtype=np.dtype("f4")),
        lambda: xp.ndarray(*[(2, 3)], **{"dtype": float}),
        lambda: [np.sum(np.ndarray((2,)), axis=0)],
        lambda: xp.ndarray((2, 3)),
        lambda: xp.empty(3),
        lambda: empty_taken_before(3),
        lambda: [np.empty(n) for n in (1, 2)],
        lambda: next(np.empty(n) for n in (1, 2)),
        lambda: {n: np.empty(n) for n in (1, 2)},
        lambda: (lambda: np.empty(3))(),
        _import_inside,
        _import_as_inside,
        _alias_inside,
        _partial_inside,
        _executed,
    ],
)
def test_refused(call: Callable[[], object]) -> None:
    assert " returns memory that nobody has written; " in _refused(call)


@pytest.mark.parametrize("call", [lambda: np.empty_like(np.ones(3)), lambda: empty_like_taken_before(np.ones(3))])
def test_empty_like_is_refused(call: Callable[[], object]) -> None:
    assert f"{__file__}:" in _refused(call, "numpy.zeros_like")


def test_code_that_is_executed_has_its_own_place() -> None:
    code = compile("x = 1\ny = np.empty(3)\n", "<string>", "exec")
    assert "<string>:2: " in _refused(lambda: exec(code, {"np": np}))


def test_a_generator_begun_outside_is_refused_inside() -> None:
    def buffers() -> Iterator[object]:
        while True:
            yield np.empty(3)

    made = buffers()
    next(made)
    assert f"{__file__}:" in _refused(lambda: next(made))


def test_this_project_is_not_let_off(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("convlstm.sloppy")
    code = compile("import numpy as np\ndef buffer():\n    return np.empty(3)\n", convlstm.__file__, "exec")
    exec(code, vars(module))
    assert f"{convlstm.__file__}:3: " in _refused(module.buffer)


# What passes --------------------------------------------------------------------------------------------------------


class Bag:
    """Something of everything that is copied."""

    def __init__(self) -> None:
        self.arrays = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.ones((3, 4)))}


def _masked() -> object:
    return np.ma.masked_array([1.0, 2.0], mask=[True, False]).filled(0)


def _saved_and_loaded() -> object:
    file = io.BytesIO()
    np.savez(file, a=np.ones(3))
    return np.load(io.BytesIO(file.getvalue()))["a"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: np.zeros(3), lambda: np.full((2, 2), 7.0), lambda: np.ones_like(np.zeros(3)), lambda: np.array([1, 2]),
        lambda: np.linalg.svd(np.eye(4)), lambda: np.linalg.inv(np.eye(3)), lambda: np.linalg.norm(np.ones(3)),
        lambda: np.linalg.lstsq(np.eye(3), np.ones(3), rcond=None), lambda: np.polyfit(np.arange(5.0), np.ones(5), 1),
        lambda: np.random.default_rng(0).normal(size=(3, 4)), lambda: np.random.default_rng(0).permutation(10),
        lambda: np.random.default_rng(0).integers(0, 9, 5), lambda: np.random.default_rng(0).choice(9, 3),
        lambda: np.random.default_rng(0).multivariate_normal(np.zeros(2), np.eye(2), 3),
        lambda: np.random.RandomState(0).uniform(size=5), lambda: np.random.default_rng(0).shuffle(np.arange(5)),
        lambda: pickle.loads(pickle.dumps(Bag().arrays)), lambda: copy.deepcopy(Bag()), lambda: copy.copy(np.ones(3)),
        lambda: np.pad(np.ones((2, 2)), 1), lambda: np.tensordot(np.ones((2, 3)), np.ones((3, 2)), 1),
        lambda: np.concatenate([np.ones(2), np.ones(3)]), lambda: np.einsum("ij,jk->ik", np.eye(3), np.eye(3)),
        lambda: np.cov(np.eye(3)), lambda: np.fft.rfft(np.ones(8)), lambda: np.insert(np.ones(3), 1, 2.0),
        lambda: np.apply_along_axis(np.sum, 0, np.eye(3)), lambda: np.vectorize(float)(np.arange(3)),
        lambda: np.loadtxt(["1 2", "3 4"]), lambda: repr(np.arange(2000.0)), _masked, _saved_and_loaded,
        lambda: np.ndarray((3,), buffer=np.ones(3)), lambda: np.ndarray((2,), np.float32, bytearray(8)),
        lambda: xp.ma.masked_all(3), lambda: xp.rec.fromarrays([np.ones(2)], names="a"),
    ],
)  # fmt: skip
def test_passes(call: Callable[[], object]) -> None:
    outside = call()
    with forbid_uninitialised():
        inside = call()
    assert type(inside) is type(outside)
    if isinstance(outside, np.ndarray) and not isinstance(outside, np.ma.MaskedArray):
        assert inside.shape == outside.shape  # type: ignore[attr-defined]
        assert inside.dtype == outside.dtype  # type: ignore[attr-defined]


def test_scipy_sklearn_and_chainer_pass() -> None:
    chainer = import_chainer()
    signal, stats = importlib.import_module("scipy.signal"), importlib.import_module("scipy.stats")
    linear = importlib.import_module("sklearn.linear_model")

    def results() -> list[bytes]:
        functions = chainer.functions
        return [
            np.asarray(array).tobytes()
            for array in (
                signal.convolve2d(np.eye(5), np.ones((3, 3))),
                stats.spearmanr(np.arange(9.0), np.sqrt(np.arange(9.0))).statistic,
                linear.Ridge().fit(np.eye(4), np.ones(4)).predict(np.eye(4)),
                functions.convolution_2d(np.ones((1, 1, 5, 5), "f"), np.ones((2, 1, 3, 3), "f"), pad=1).array,
                functions.deconvolution_2d(np.ones((1, 1, 5, 5), "f"), np.ones((1, 2, 3, 3), "f")).array,
            )
        ]

    outside = results()
    with forbid_uninitialised():
        inside = results()
    assert inside == outside


def test_a_layer_passes_forward_and_backward() -> None:
    layer = convlstm.ConvLSTM(1, 2, 3, backend="numpy")

    def results() -> dict[str, bytes]:
        h, _, cache = layer.forward(np.ones((2, 3, 1, 4, 4), dtype=np.float32))
        _, _, gradients = layer.backward(cache, h)
        return {name: array.tobytes() for name, array in {**gradients, "h": h}.items()}

    outside = results()
    with forbid_uninitialised():
        inside = results()
    assert inside == outside


def test_third_party_code_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("site-packages", "a_library"), ("mine", "a_module_of_mine")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(
            "import numpy as np\nfrom numpy import empty\n"
            "def buffers():\n    return np.empty(3), empty(2), np.ndarray((2,)), np.empty_like(np.ones(2))\n"
            "exec('def made():\\n    return np.empty(3)')\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    library, mine = importlib.import_module("a_library"), importlib.import_module("a_module_of_mine")
    with forbid_uninitialised():
        library.buffers()
        library.made()
    assert "<string>:2: numpy.empty " in _refused(mine.made)
    assert f"{mine.__file__}:4: numpy.empty " in _refused(mine.buffers)
    for name in ("a_library", "a_module_of_mine"):
        monkeypatch.delitem(sys.modules, name)


# The class `ndarray` stays a class ----------------------------------------------------------------------------------


def test_ndarray_is_asked_as_ever() -> None:
    real, x = np.ndarray, np.ones(3)
    with forbid_uninitialised():
        assert isinstance(x, np.ndarray)
        assert isinstance(x, (int, np.ndarray))
        assert not isinstance(1, np.ndarray)
        assert issubclass(np.memmap, np.ndarray)
        assert not issubclass(int, (np.ndarray, str))
        assert type(x) is np.ndarray
        assert type(x) == np.ndarray  # noqa: E721
        assert real == np.ndarray
        assert {np.ndarray: 1}[real] == 1
        assert {real: 1}[np.ndarray] == 1
        assert type(x) in (np.ndarray, int)
        assert real in {np.ndarray}
        assert np.ndarray.__name__ == "ndarray"
        assert np.ndarray.sum(x) == 3
        assert repr(np.ndarray) == repr(real)


def test_ndarray_as_a_type_and_a_base() -> None:
    real: Any = np.ndarray
    with forbid_uninitialised():
        optional = np.ndarray | None
        assert optional == real | None
        assert isinstance(np.ones(1), optional)
        assert None | np.ndarray == None | real
        assert np.ndarray[Any, Any] == real[Any, Any]

        class Tagged(np.ndarray):
            tag = "x"

        class Annotated:
            x: np.ndarray | None = None

        assert Tagged.__mro__[1] is real
        assert np.ones(3).view(Tagged).tag == "x"
        assert type(np.ones(3).view(np.ndarray)) is real
        assert real.__new__(Tagged, (2,), buffer=np.ones(2)).sum() == 2
    assert Annotated.x is None


def test_match_and_dispatch_on_ndarray() -> None:
    with forbid_uninitialised():

        @functools.singledispatch
        def kind(x: object) -> str:
            return "other"

        kind.register(np.ndarray)(lambda x: "array")
        array: object = np.ones(2)
        match array:
            case np.ndarray():
                matched = True
            case _:
                matched = False
    assert matched
    assert kind(np.ones(2)) == "array"


# Nesting, errors, threads -------------------------------------------------------------------------------------------


def test_nested() -> None:
    with forbid_uninitialised():
        with forbid_uninitialised(), pytest.raises(UninitialisedAllocation):
            np.empty(3)
        with pytest.raises(UninitialisedAllocation):
            np.empty(3)
    np.empty(3)


def test_as_a_decorator() -> None:
    @forbid_uninitialised()
    def train() -> None:
        np.empty(3)

    for _ in range(2):
        with pytest.raises(UninitialisedAllocation):
            train()


def test_an_error_inside_leaves() -> None:
    with pytest.raises(KeyError), forbid_uninitialised():
        raise KeyError
    np.empty(3)


def test_a_guard_that_is_kept_lets_pass_afterwards() -> None:
    with forbid_uninitialised():
        kept, array = np.empty, np.ndarray
    assert kept(3).shape == array((3,)).shape == (3,)


def test_what_is_assigned_inside_stays() -> None:
    with forbid_uninitialised():
        np.something_new = 1  # type: ignore[attr-defined]
    assert vars(np).pop("something_new") == 1


def test_a_patch_made_and_taken_back_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    with forbid_uninitialised(), monkeypatch.context() as patch:
        patch.setattr(np, "empty", lambda shape: "patched")
    assert np.empty(3).shape == (3,)


@pytest.mark.parametrize("seed", range(5))
def test_threads_enter_and_leave_in_any_order(seed: int) -> None:
    pauses = random.Random(seed)
    missed: list[str] = []

    def work(times: list[float]) -> None:
        for seconds in times:
            with forbid_uninitialised():
                threading.Event().wait(seconds)
                try:
                    np.empty(3)
                    missed.append("np.empty passed")
                except UninitialisedAllocation:
                    pass
                if np.linalg.inv(np.eye(2)).sum() != 2:
                    missed.append("np.linalg.inv is broken")

    threads = [threading.Thread(target=work, args=([pauses.random() / 500 for _ in range(6)],)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missed


def test_two_that_overlap_without_nesting() -> None:
    first, second = forbid_uninitialised(), forbid_uninitialised()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(UninitialisedAllocation):
        np.empty(3)
    second.__exit__(None, None, None)
    np.empty(3)


# CuPy ---------------------------------------------------------------------------------------------------------------

CUPY = {
    "cupy/__init__.py": """
        from numpy import empty as _empty, zeros
        from cupy import cuda
        class ndarray:
            def __init__(self, shape, dtype=float, memptr=None): self.shape = shape
        def empty(shape): return ndarray(shape)
        def empty_like(a): return ndarray(a.shape)
        def sum(a): return empty(()), cuda.alloc(8)
    """,
    "cupy/cuda/__init__.py": """
        def alloc(size): return bytearray(size)
        def alloc_pinned_memory(size): return bytearray(size)
        def malloc_managed(size): return bytearray(size)
    """,
    "cupyx/__init__.py": """
        import cupy
        def empty_pinned(shape): return cupy.empty(shape)
    """,
}


@pytest.fixture
def cupy_in_site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in CUPY.items():
        path = tmp_path / "site-packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    names = ("cupy", "cupy.cuda", "cupyx")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    assert all(type(sys.modules[name]) is ModuleType for name in names if name in sys.modules)
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("cupy_in_site_packages")
@pytest.mark.parametrize("imported", ["before", "inside"])
def test_cupy(imported: str) -> None:
    if imported == "before":
        importlib.import_module("cupyx")
    with forbid_uninitialised():
        importlib.import_module("cupyx")
        import cupy as cp
        import cupyx

        for call, instead in (
            (lambda: cp.empty(3), "cupy.zeros"),
            (lambda: cp.empty_like(np.ones(3)), "cupy.zeros_like"),
            (lambda: cp.ndarray((2,)), "cupy.zeros"),
            (lambda: cp.cuda.alloc(8), "cupy.zeros(…).data"),
            (lambda: cp.cuda.alloc_pinned_memory(8), "cupyx.zeros_pinned"),
            (lambda: cp.cuda.malloc_managed(8), "cupy.zeros(…).data"),
            (lambda: cupyx.empty_pinned(3), "cupyx.zeros_pinned"),
        ):
            assert f"{__file__}:" in _refused(call, instead)
        cp.sum(np.ones(3))
        cp.ndarray((2,), memptr=bytearray(16))
        cp.zeros(3)
    assert cp.empty(3).shape == 3


@pytest.mark.usefixtures("cupy_in_site_packages")
def test_a_cupy_that_fails_to_import_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "site-packages" / "cupy" / "__init__.py").write_text("raise ImportError('no driver')")
    with forbid_uninitialised():
        for _ in range(2):
            with pytest.raises(ImportError, match="no driver"):
                importlib.import_module("cupy")
        assert "cupy" not in sys.modules


def test_no_cupy_is_no_matter() -> None:
    with forbid_uninitialised():
        assert importlib.util.find_spec("cupy.does_not_exist" if "cupy" in sys.modules else "cupyx_not_there") is None


class _OfZeros(np.ndarray):
    """A subclass in the usual form."""

    def __new__(cls, n: int) -> _OfZeros:
        return np.ndarray.__new__(cls, shape=(n,), dtype=float, buffer=bytes(8 * n))

    def __reduce__(self) -> tuple[object, ...]:
        return np.ndarray.__reduce__(self)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return np.ndarray.__repr__(self)


def test_a_subclass_works_inside_and_what_is_kept_is_the_class_itself() -> None:
    with forbid_uninitialised():
        from numpy import ndarray as kept

        held = np.ndarray
        made = _OfZeros(2)
        assert isinstance(made, kept)
        assert repr(made).startswith("_OfZeros")
        assert made.__reduce__()
        assert made.view(kept).sum() == 0
        assert type(made.view(held)) is kept
        assert pickle.loads(pickle.dumps(kept)) is kept
    assert kept is held is np.ndarray


def test_a_name_that_was_given_away_meanwhile_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with forbid_uninitialised():
        monkeypatch.setattr(np, "empty", lambda shape: "mine")
        assert np.empty(3) == "mine"
        monkeypatch.undo()
        with pytest.raises(UninitialisedAllocation):
            np.empty(3)
