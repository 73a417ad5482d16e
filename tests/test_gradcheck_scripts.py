"""`convlstm gradcheck --script FILE.py:function`: what a script may hold, and what is said of one that fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from convlstm import cli
from convlstm.gradcheck.scripts import ScriptError, describe, load_function, takes_length

GOOD = """
import numpy as np

W = np.arange(1.0, 7.0).reshape(2, 3)

def loss(parameters):
    return (parameters["W"] ** 3).sum()

def right():
    return loss, {"W": W}, {"W": 3 * W**2}

def wrong():
    return loss, {"W": W}, {"W": -3 * W**2}

def called():
    return loss, {"W": W}, lambda parameters: {"W": 3 * parameters["W"] ** 2}

def over_time(T):
    return lambda p: sum(t * loss(p) for t in range(1, T + 1)), {"W": W}, {"W": 3 * W**2 * T * (T + 1) / 2}

def over_time_wrong(T, scale=1):
    return lambda p: T * loss(p), {"W": W}, {"W": 3 * W**2}

def with_default(unused=1):
    return right()

def junk():
    return 42

def only_two():
    return loss, {"W": W}

def too_many():
    return loss, {"W": W}, {"W": W}, 4

def no_arrays():
    return loss, {"W": [1.0]}, {"W": W}

def junk_over_time(T):
    return 42

def fails():
    raise RuntimeError("no data here")

def fails_over_time(T):
    raise KeyError(T)

def loss_fails():
    def failing(parameters):
        return parameters["V"].sum()
    return failing, {"W": W}, {"W": W}

def asserts():
    assert W.size == 7, "seven are needed"

def exits():
    raise SystemExit("bye")

def two_arguments(a, b):
    return right()

number = 3
if __name__ == "__main__":
    raise SystemExit("the main part was run")
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `convlstm gradcheck` in a folder with scripts, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "script_under_check", None)
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "notes.txt").write_text(GOOD)
    (tmp_path / "broken.py").write_text("def right(:\n    pass\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('not today')\n")
    (tmp_path / "raises.py").write_text("x = 1\ny = x / 0\n")
    (tmp_path / "unfound.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff'\n")

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["convlstm", "gradcheck", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out, err)

    return call


def assert_one_line(result: Result, *said: str) -> None:
    assert result.code == 2
    assert result.err.startswith("convlstm: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert "Traceback" not in result.err
    for words in said:
        assert words in result.err


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("good.py", "--script must be FILE.py:function; got 'good.py'"),
        ("", "--script must be FILE.py:function; got ''"),
        (":right", "--script must be FILE.py:function; got ':right'"),
        ("good.py:", "--script must be FILE.py:function; got 'good.py:'"),
        ("missing.py:right", "--script: missing.py is not there"),
        ("no/folder/x.py:right", "--script: no/folder/x.py is not there"),
        ("folder.py:right", "--script: folder.py is a directory"),
        ("notes.txt:right", "--script: notes.txt is no Python file; its name must end in .py"),
        ("broken.py:right", "--script: running broken.py failed: SyntaxError"),
        ("leaves.py:right", "--script: running leaves.py failed: SystemExit: not today"),
        (
            "raises.py:right",
            "--script: running raises.py failed: ZeroDivisionError: division by zero (raises.py, line 2)",
        ),
        ("unfound.py:right", "No module named 'no_such_module_anywhere'"),
        ("bytes.py:right", "--script: running bytes.py failed: SyntaxError"),
        ("empty.py:right", "--script: empty.py has no function 'right'; it has none"),
        ("good.py:Right", "--script: good.py has no function 'Right'; it has loss, right, wrong, "),
        ("good.py:number", "--script: good.py has no function 'number'"),
        ("good.py:two_arguments", "--script: the function must take nothing, or the length T; it takes (a, b)"),
    ],
)
def test_bad_reference_is_one_line(run: Run, reference: str, said: str) -> None:
    assert_one_line(run("--script", reference), said)


@pytest.mark.parametrize("name", ["junk", "only_two", "too_many"])
def test_function_that_returns_something_else_is_one_line(run: Run, name: str) -> None:
    assert_one_line(run("--script", f"good.py:{name}"), "(loss, parameters, gradients)")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_arrays", "parameters['W'] must be a NumPy or CuPy array; got list"),
        ("junk_over_time", "problem(1) must return (loss, parameters, gradients); got int"),
        ("fails", "no data here"),
        ("fails_over_time", "KeyError"),
        ("loss_fails", "KeyError: 'V'"),
        ("asserts", "seven are needed"),
        ("exits", "bye"),
    ],
)
def test_function_that_fails_is_one_line(run: Run, name: str, said: str) -> None:
    assert_one_line(run("--script", f"good.py:{name}"), said)


@pytest.mark.parametrize("lengths", ["", "1,,2", "1,x", "1;2", "0,1", "3,2", "2,2", "-1"])
def test_bad_lengths_are_one_line(run: Run, lengths: str) -> None:
    assert_one_line(run("--script", "good.py:over_time", f"--lengths={lengths}"), "lengths must")


def test_script_and_model_at_once_are_one_line(run: Run) -> None:
    assert_one_line(run("digits", "--script", "good.py:right"), "checks a model or a script; got both")


@pytest.mark.parametrize("name", ["right", "called", "with_default"])
def test_right_gradients_are_exit_code_0(run: Run, name: str) -> None:
    result = run("--script", f"good.py:{name}")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == "all gradients are right"


def test_wrong_gradients_are_exit_code_1(run: Run) -> None:
    result = run("--script", "good.py:wrong")
    assert (result.code, result.err) == (1, "")
    assert "W: wrong sign" in result.out
    assert result.out.splitlines()[-1] == "1 found at fault"


def test_function_of_the_length_is_checked_over_time(run: Run) -> None:
    result = run("--script", "good.py:over_time")
    assert (result.code, result.err) == (0, "")
    header, *_, last = result.out.splitlines()
    assert [column.strip() for column in header.split("  ") if column] == [
        "parameter",
        "T = 1",
        "T = 2",
        "T = 3",
        "T = 5",
    ]
    assert last == "all gradients are right at every length"


def test_lengths_are_those_asked_for(run: Run) -> None:
    result = run("--script", "good.py:over_time_wrong", "--lengths", "1, 4")
    assert result.code == 1
    assert "T = 4" in result.out
    assert "T = 2" not in result.out


def test_absolute_and_nested_paths(run: Run, tmp_path: Path) -> None:
    assert run("--script", f"{tmp_path / 'good.py'}:right").code == 0
    nested = tmp_path / "a:b" / "c d"
    nested.mkdir(parents=True)
    (nested / "good.py").write_text(GOOD)
    assert run("--script", "a:b/c d/good.py:right").code == 0


def test_script_imports_its_neighbours(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "neighbour_of_the_script.py").write_text(GOOD)
    (tmp_path / "sub" / "main.py").write_text("from neighbour_of_the_script import right\n")
    monkeypatch.delitem(sys.modules, "neighbour_of_the_script", raising=False)
    assert run("--script", "sub/main.py:right").code == 0
    sys.modules.pop("neighbour_of_the_script")


def test_script_with_dataclasses(run: Run, tmp_path: Path) -> None:
    """Annotations as texts make dataclasses look their module up in sys.modules."""
    lines = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\n"
    (tmp_path / "data.py").write_text(lines + GOOD)
    assert run("--script", "data.py:right").code == 0


def test_as_a_process(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    command = [sys.executable, "-c", "from convlstm.cli import main; main()", "gradcheck", "--script"]
    results = [
        subprocess.run(
            [*command, f"good.py:{name}"], cwd=tmp_path, capture_output=True, check=False, encoding="utf-8", timeout=60,
            env={"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "PYTHONWARNINGS": "error"},
        )
        for name in ("wrong", "Right")
    ]  # fmt: skip
    assert [result.returncode for result in results] == [1, 2]
    assert results[0].stderr == ""
    assert_one_line(Result(2, results[1].stdout, results[1].stderr), "has no function 'Right'")


# The functions by themselves ------------------------------------------------------------------------------------------


def test_main_part_is_not_run_and_the_function_is_returned(run: Run, tmp_path: Path) -> None:
    assert load_function(str(tmp_path / "good.py") + ":right").__name__ == "right"


def test_length_is_the_one_argument_without_default() -> None:
    assert not takes_length(lambda: 0)
    assert not takes_length(lambda T=1: 0)
    assert not takes_length(lambda *lengths: 0)
    assert takes_length(lambda T: 0)
    assert takes_length(lambda T, seed=0: 0)
    with pytest.raises(ScriptError, match=r"it takes \(\*, T\)"):
        takes_length(lambda *, T: 0)


def test_error_is_described_with_the_place_it_was_raised() -> None:
    assert describe(ValueError("never raised")) == "ValueError: never raised"
    with pytest.raises(ScriptError) as raised:
        load_function("nothing")
    assert describe(raised.value).startswith(
        "ScriptError: --script must be FILE.py:function; got 'nothing' (scripts.py, "
    )
