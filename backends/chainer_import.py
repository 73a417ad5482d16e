"""Chainer 7.8.1 on today's Python, NumPy and CuPy.

Chainer's last release asks at import for three things that are gone:

- ``numpy.distutils`` (no longer on Python 3.12) and ``pkg_resources`` (no longer in setuptools 82). Only its module
  ``chainer._environment_check`` imports them, to look for old versions of CuPy and iDeep, so an empty check takes the
  place of that one module and nobody's ``pkg_resources`` is touched.
- ``np.sctypes`` (no longer in NumPy 2), for a table of integer sizes. Only the gradient of ``F.as_strided`` asks for it
  again when it runs, and stays broken on NumPy 2.

It also warns about a missing cuDNN, which CuPy 14 no longer has, unless ``CHAINER_CUDNN=0`` stands in the environment
while it is imported.

All of this is lent to Chainer for the duration of its import and taken back.
"""

import contextlib
import importlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

# Chainer's setup.py imports pkg_resources; the usual isolated build would bring the newest setuptools, without it.
_INSTALL = "pip install 'setuptools<82' wheel && pip install --no-build-isolation chainer==7.8.1"

# One import at a time: two threads that lend and take back the same names would take them from each other.
_lock = threading.RLock()


def import_chainer() -> ModuleType:
    """Return Chainer, imported if it was not, with nothing else changed; one that is imported already is used as it is.

    Raises ImportError, saying what to do, where Chainer is not installed or does not import. What had been imported of
    it by then is forgotten, so that a second attempt starts afresh.
    """
    with _lock:
        if sys.modules.get("chainer") is None:
            try:
                with _silence(), _all_or_nothing(), _no_environment_check(), _numpy_sctypes(), _cudnn_off():
                    importlib.import_module("chainer")
            except ModuleNotFoundError as error:
                if error.name != "chainer":
                    raise _unusable(error) from error
                raise ImportError(f"Chainer is not installed; this installs it: {_INSTALL}") from error
            except Exception as error:
                raise _unusable(error) from error
    # Another thread of the user's may be half way through an import of its own; this waits for it.
    return importlib.import_module("chainer")


def _unusable(error: Exception) -> ImportError:
    python = ".".join(map(str, sys.version_info[:3]))
    return ImportError(
        f"Chainer is installed but does not import on Python {python} with NumPy {numpy.__version__}: "
        f"{type(error).__name__}: {error}"
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # "ignore" keeps no memory of a warning either: one that comes again later is heard.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _no_environment_check() -> Iterator[None]:
    name = "chainer._environment_check"
    stub: Any = ModuleType(name)
    stub.check = lambda: None
    sys.modules[name] = stub
    try:
        yield
    finally:
        if sys.modules.get(name) is stub:
            del sys.modules[name]
        # The import also bound the stub in the package.
        package = sys.modules.get("chainer")
        if package is not None:
            vars(package).pop("_environment_check", None)


@contextlib.contextmanager
def _numpy_sctypes() -> Iterator[None]:
    names = vars(numpy)
    if "sctypes" in names:
        yield
        return
    names["sctypes"] = {
        "int": [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
        "uint": [numpy.uint8, numpy.uint16, numpy.uint32, numpy.uint64],
        "float": [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
        "complex": [numpy.complex64, numpy.complex128, numpy.clongdouble],
        "others": [bool, object, bytes, str, numpy.void],
    }
    try:
        yield
    finally:
        names.pop("sctypes", None)


@contextlib.contextmanager
def _cudnn_off() -> Iterator[None]:
    if "CHAINER_CUDNN" in os.environ:  # somebody decided
        yield
        return
    os.environ["CHAINER_CUDNN"] = "0"
    try:
        yield
    finally:
        os.environ.pop("CHAINER_CUDNN", None)


@contextlib.contextmanager
def _all_or_nothing() -> Iterator[None]:
    # Of an import that failed, Python forgets the package alone. Its modules stay behind, tied to a package object that
    # is gone, and spoil the next attempt; so away with those of an earlier attempt, and with ours if this one fails.
    for name in [name for name in sys.modules if name.startswith("chainer.")]:
        del sys.modules[name]
    before = set(sys.modules)
    try:
        yield
    except BaseException:  # Ctrl-C stops an import half way too
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("chainer", "chainerx"):
                del sys.modules[name]
        raise
