"""`import_chainer` borrows names from NumPy, `sys.modules` and the environment; every one must come back.

What a process has imported cannot be undone, so each case runs in a process of its own, where warnings are errors.
"""

import os
import subprocess
import sys

import pytest

# Remembers how things are, plants faults, and compares: the beginning of every case.
PRELUDE = '''
import importlib.abc, os, random, sys, types, warnings
import numpy as np
import threadpoolctl  # SciPy, where there is one, imports it; it sets a variable of its own in the environment
from convlstm.backends.chainer_import import import_chainer

class Watch(importlib.abc.MetaPathFinder):
    """Calls `seen` with every module that is looked for; what it raises comes out of that import."""
    def __init__(self, seen):
        self.seen = seen
    def find_spec(self, name, path=None, target=None):
        self.seen(name)

def watch(seen):
    sys.meta_path.insert(0, Watch(seen))

def forbid(*names, error):
    def seen(name):
        if name in names:
            raise error
    watch(seen)

def chainer_modules():
    return sorted(name for name in sys.modules if name.partition(".")[0] in ("chainer", "chainerx"))

def state():
    return {
        # Submodules of NumPy that something imports for the first time stay, as they should.
        "numpy": {k: id(v) for k, v in vars(np).items() if not isinstance(v, types.ModuleType)},
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "numpy's generator": repr(np.random.get_state(legacy=False)),
        "Python's generator": random.getstate(),
        "error handling": np.geterr(),
        "stubs": [m for m in ("chainer._environment_check", "pkg_resources", "numpy.distutils") if m in sys.modules],
    }

def assert_unchanged():
    now = state()
    for key, value in before.items():
        assert now[key] == value, f"{key}: {value} became {now[key]}"

def assert_convolves():
    F = import_chainer().functions
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    ones = np.ones((1, 1, 3, 3), np.float32)
    sums = [[8, 15, 12], [21, 36, 27], [20, 33, 24]]  # of each pixel's 3x3 neighbourhood
    assert F.convolution_2d(x, ones, pad=1).array[0, 0].tolist() == sums
    assert F.deconvolution_2d(x, ones, pad=1).array[0, 0].tolist() == sums  # ones are symmetric

np.random.get_state()
before = state()
'''


def run(case: str, **environment: str) -> None:
    """Run `case` after the prelude; it must end well and print nothing."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CHAINER_", "PYTHONWARNINGS"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + case],
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


def test_importing_leaves_no_trace_and_convolutions_run() -> None:
    run("""
import_chainer()
assert_unchanged()
assert_convolves()
import chainer
assert chainer is import_chainer() and not hasattr(chainer, "_environment_check")
assert_unchanged()
""")


def test_warnings_during_the_import_are_silenced_without_trace() -> None:
    run("""
planted = []
def seen(name):
    if name == "chainer.training":
        planted.append(name)
        warnings.warn("planted")
watch(seen)
import_chainer()
assert planted
assert_unchanged()
try:
    seen("chainer.training")  # the same warning at the same place, which Python may have been told to remember
except UserWarning:
    pass
else:
    raise AssertionError("a warning after the import was silenced too")
""")


def test_modules_that_are_gone_today_are_not_asked_for() -> None:
    run("""
gone = ModuleNotFoundError("gone")
forbid("pkg_resources", "numpy.distutils", "imp", "distutils", error=gone)
assert_convolves()
assert_unchanged()
""")


def test_a_pkg_resources_of_the_user_is_left_alone() -> None:
    run("""
mine = sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
attributes = dict(vars(mine))
import_chainer()
assert sys.modules["pkg_resources"] is mine and vars(mine) == attributes
""")


def test_a_chainer_that_the_user_imported_is_used_as_it_is() -> None:
    run("""
mine = sys.modules["chainer"] = types.ModuleType("chainer")
part = sys.modules["chainer._environment_check"] = mine._environment_check = types.ModuleType("part")
attributes = dict(vars(mine))
assert import_chainer() is mine and vars(mine) == attributes
assert sys.modules["chainer._environment_check"] is part
assert chainer_modules() == ["chainer", "chainer._environment_check"]
""")


@pytest.mark.parametrize(
    ("where", "error"),
    [("chainer.training", "RuntimeError"), ("chainerx", "KeyboardInterrupt"), ("six", "ModuleNotFoundError")],
)
def test_an_import_that_fails_half_way_is_undone_and_can_be_tried_again(where: str, error: str) -> None:
    run(f"""
forbid({where!r}, error={error}("planted"))
raised = None
try:
    import_chainer()
except ({error}, ImportError) as caught:
    raised = caught
if {error} is KeyboardInterrupt:
    assert type(raised) is KeyboardInterrupt
else:
    assert type(raised) is ImportError and "does not import" in str(raised) and "planted" in str(raised)
    assert type(raised.__cause__) is {error}
assert chainer_modules() == [], chainer_modules()
assert_unchanged()
sys.meta_path.pop(0)
assert_convolves()
assert_unchanged()
""")


def test_what_a_failed_import_of_the_users_left_behind_does_no_harm() -> None:
    run("""
os.environ["CHAINER_CUDNN"] = "0"  # else Chainer's own warning about a CuPy without cuDNN comes first
forbid("chainer._environment_check", error=RuntimeError("planted"))
try:
    import chainer
except (RuntimeError, AttributeError):  # on NumPy 2 it fails before it comes to the planted fault
    sys.meta_path.pop(0)
assert any(name.startswith("chainer.") for name in sys.modules)
stale = sys.modules["chainer.backends"]
assert_convolves()
import chainer
assert chainer.backends is sys.modules["chainer.backends"] is not stale
""")


def test_a_missing_chainer_is_reported_with_a_remedy_on_one_line() -> None:
    run("""
forbid("chainer", error=ModuleNotFoundError("No module named 'chainer'", name="chainer"))
try:
    import_chainer()
except ImportError as error:
    message = str(error)
assert "not installed" in message and "pip install" in message and "chainer==7.8.1" in message
assert "\\n" not in message
assert_unchanged()
""")


SEEN = """
seen = []
watch(lambda name: seen.append(os.environ.get("CHAINER_CUDNN")) if name == "chainer.backends.cuda" else None)
"""


def test_cudnn_is_off_during_the_import_alone() -> None:
    run(SEEN + "import_chainer(); assert seen == ['0'] and 'CHAINER_CUDNN' not in os.environ")


def test_a_users_choice_about_cudnn_stands() -> None:
    case = "import_chainer(); assert seen == ['1'] and os.environ['CHAINER_CUDNN'] == '1'"
    run(SEEN + case, CHAINER_CUDNN="1")


def test_threads_that_ask_at_once_get_one_chainer() -> None:
    # The first look for chainer takes long enough for every thread to come that far, were there no lock.
    run("""
import threading, time
watch(lambda name: time.sleep(0.2) if name == "chainer" else None)
barrier, got = threading.Barrier(8), []

def ask():
    barrier.wait()
    got.append(import_chainer())

threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(got) == 8 and len(set(map(id, got))) == 1
assert_unchanged()
assert_convolves()
""")
