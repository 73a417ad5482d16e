"""The commands verify, diff, audit and replay: help, exit codes, JSON, and mistakes in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convlstm import cli
from tests.cupy_stand_in import forget_backends
from tests.runs import TINY, changed, trained

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def convlstm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process; return exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convlstm", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("other") / "run", changed(TINY, schedule="linear"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def assert_one_line(result: tuple[int, str, str], message: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("convlstm: ")
    assert message in err
    assert err.count("\n") == 1
    assert err.endswith("\n")


def read(path: Path) -> Any:
    text = path.read_text()
    assert text.endswith("}\n")
    return json.loads(text)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("verify", ["DIR", "--backend", "--json", "exit 0 if every bit comes again, 1 if not"]),
        ("diff", ["DIR_A", "DIR_B", "--json", "exit 0 if none"]),
        ("audit", ["PATH", "--format", "--explain", "exit 0 clean, 1 findings, 2 unreadable"]),
        (
            "replay",
            ["SCRIPT", "--json", "--cupy-as-numpy", "--timeout", "exit 0 if its numbers stay the same, 1 if not"],
        ),
    ],
)
def test_help(command: str, words: list[str], convlstm: Command) -> None:
    code, out, err = convlstm(command, "--help")
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    assert all(word in flat for word in words), flat


@pytest.mark.parametrize("arguments", [["verify"], ["diff", "a"], ["diff", "a", "b", "c"], ["verify", "a", "--bit"]])
def test_wrong_arguments(arguments: list[str], convlstm: Command) -> None:
    code, out, err = convlstm(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert "Usage: " in err


# verify ---------------------------------------------------------------------------------------------------------------


def test_verify_an_identical_run(finished: Path, tmp_path: Path, convlstm: Command) -> None:
    code, out, err = convlstm("verify", finished, "--json", tmp_path / "found.json")
    assert (code, err) == (0, "")
    *steps, verdict = out.splitlines()
    losses = [json.loads(line)["loss"] for line in (finished / "ledger.jsonl").read_text().splitlines()]
    assert steps == [f"step {done}/3  loss {loss:.4f}" for done, loss in enumerate(losses, start=1)]
    assert verdict == "identical: all 3 steps, every bit of loss, gradients and weights"
    assert read(tmp_path / "found.json") == {
        "identical": True, "steps": 3, "fault": "", "note": "", "first_difference": None, "changed_since": [],
    }  # fmt: skip


def test_verify_another_run(run: Path, tmp_path: Path, convlstm: Command) -> None:
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("seed = 5", "seed = 6"))
    code, out, err = convlstm("verify", run, "--json", tmp_path / "found.json")
    assert (code, err) == (1, "")
    verdict = out.splitlines()[-1]
    data = read(tmp_path / "found.json")
    assert verdict == f"not identical: {data['fault']}"
    assert data["fault"].startswith("step 0: the loss was 0.")
    assert data["identical"] is False
    assert data["first_difference"]["step"] == 0


def test_verify_says_what_has_changed_before_it_begins(run: Path, tmp_path: Path, convlstm: Command) -> None:
    """And blames it only where the run does not come again."""
    file = run / "environment.json"
    environment = json.loads(file.read_text())
    now = environment["packages"]["numpy"]
    environment["packages"]["numpy"] = "1.0"
    file.write_text(json.dumps(environment))
    line = f"numpy: 1.0 then, {now} now"
    code, out, _ = convlstm("verify", run, "--json", tmp_path / "found.json")
    assert code == 0
    assert out.startswith(f"changed since: {line}\nstep 1/3 ")
    assert out.splitlines()[-1].startswith("identical: ")
    assert read(tmp_path / "found.json")["changed_since"] == [line]
    (run / "weights.safetensors").unlink()
    code, out, _ = convlstm("verify", run)
    assert code == 1
    assert out.splitlines()[-1] == "the likely reason is what has changed since"


def test_verify_a_run_without_steps(run: Path, convlstm: Command) -> None:
    (run / "ledger.jsonl").write_text("")
    code, out, _ = convlstm("verify", run)
    assert code == 1
    first, second = out.splitlines()
    assert first.startswith("the ledger holds 0 of the ")
    assert second.startswith("not identical: every digest agrees, but ")


def test_verify_what_is_no_run(run: Path, tmp_path: Path, convlstm: Command) -> None:
    assert_one_line(convlstm("verify", tmp_path), f"{tmp_path} holds no config.toml, so it is no run")
    assert_one_line(convlstm("verify", tmp_path / "gone"), "gone holds no config.toml, so it is no run")
    lines = (run / "ledger.jsonl").read_text().splitlines(keepends=True)
    (run / "ledger.jsonl").write_text(lines[0] + lines[2])
    assert_one_line(convlstm("verify", run), "ledger.jsonl, line 2: this is not the line of step 1")
    (run / "environment.json").unlink()
    assert_one_line(convlstm("verify", run), "holds no environment.json")


def test_verify_on_a_backend_that_is_not_there(run: Path, convlstm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is asked for, or the one that the run was computed on."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    forget_backends()
    assert_one_line(convlstm("verify", run, "--backend", "cupy"), "backend 'cupy' is not available")
    assert_one_line(convlstm("verify", run, "--backend", "abacus"), 'backend must be "auto"')
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "backend": "cupy"}))
    assert_one_line(convlstm("verify", run), "backend 'cupy' is not available")
    code, out, _ = convlstm("verify", run, "--backend", "numpy")
    assert (code, out.splitlines()[0]) == (0, "changed since: backend: cupy then, numpy now")
    forget_backends()


# diff -----------------------------------------------------------------------------------------------------------------


def test_diff_of_identical_runs(finished: Path, run: Path, tmp_path: Path, convlstm: Command) -> None:
    code, out, err = convlstm("diff", finished, run, "--json", tmp_path / "found.json")
    assert (code, err) == (0, "")
    assert out == "the runs are identical in every bit of every step\n"
    data = read(tmp_path / "found.json")
    assert (data["identical"], data["step"], data["array"]) == (True, None, None)


def test_diff_of_different_runs(finished: Path, other: Path, tmp_path: Path, convlstm: Command) -> None:
    """Progress goes to standard error, so that a pipe gets the finding alone."""
    code, out, err = convlstm("diff", finished, other, "--json", tmp_path / "found.json")
    assert code == 1
    assert err == "taking 2 steps of the first run again\ntaking 2 steps of the second run again\n"
    data = read(tmp_path / "found.json")
    array = data["array"]
    assert (data["identical"], data["step"]) == (False, 1)
    assert out.splitlines() == [
        'setting [training] schedule: "constant" in the first, "linear" in the second',
        f"step 1: the first array that differs: {array['where']}: {array['plain']} became {array['changed']} "
        f"({array['plain_hex']}, {array['changed_hex']}; {array['ulp']} ulp)",
    ]


def test_diff_with_what_is_no_run(finished: Path, tmp_path: Path, convlstm: Command) -> None:
    for pair in ((finished, tmp_path), (tmp_path, finished)):
        assert_one_line(convlstm("diff", *pair), f"{tmp_path} holds no config.toml, so it is no run")


# audit ----------------------------------------------------------------------------------------------------------------


def test_audit(tmp_path: Path, convlstm: Command) -> None:
    clean, found, broken = (tmp_path / name for name in ("clean.py", "found.py", "broken.py"))
    clean.write_text("x = 1\n")
    found.write_text("import random\nr = random.Random()\n")
    broken.write_text("def f(:\n")
    assert convlstm("audit", clean) == (0, "", "")
    code, out, err = convlstm("audit", clean, found)
    assert (code, err) == (1, "")
    assert out.startswith(f"{found}:2:5: unseeded-generator: ")
    assert out.count("\n") == 1
    code, out, err = convlstm("audit", tmp_path)
    assert (code, out.count("\n")) == (2, 1)
    assert err == f"{broken}: line 1: is not Python: invalid syntax\n"
    code, out, _ = convlstm("audit", "--format", "json", found)
    assert code == 1
    assert json.loads(out)
    code, out, _ = convlstm("audit", "--explain", "unseeded-generator")
    assert code == 0
    assert "unseeded-generator" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "audit needs a file or a folder"),
        (["--format", "xml", "."], "--format is one of "),
        (["--select", "no-such-rule", "."], "no-such-rule"),
        (["--explain", "no-such-rule"], "no-such-rule"),
    ],
)
def test_audit_with_wrong_options(arguments: list[str], message: str, convlstm: Command) -> None:
    assert_one_line(convlstm("audit", *arguments), message)


# replay ---------------------------------------------------------------------------------------------------------------


def test_replay(tmp_path: Path, convlstm: Command) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sum(map(int, sys.argv[1:])), sys.argv[1])\n")
    code, out, err = convlstm("replay", "--json", tmp_path / "found.json", script, "2", "40")
    assert (code, bool(out), bool(err)) == (0, True, True)
    data = read(tmp_path / "found.json")
    assert data["stable"] is True
    assert set(data["axes"]) == {"memory", "threads", "hash", "simd", "alignment", "nothing"}
    assert not any(data["axes"].values())
    assert (data["first_difference"], data["culprits"]) == (None, [])


def test_replay_of_what_wanders(tmp_path: Path, convlstm: Command) -> None:
    script = tmp_path / "script.py"
    script.write_text("print(hash('a') % 1000)\n")
    code, out, _ = convlstm("replay", "--json", tmp_path / "found.json", script)
    data = read(tmp_path / "found.json")
    assert (code, data["stable"], data["axes"]["hash"]) == (1, False, True)
    assert "hash" in out
    assert data["first_difference"]["where"].startswith("line 1 of the output")


def test_replay_of_what_cannot_run(tmp_path: Path, convlstm: Command) -> None:
    code, _, err = convlstm("replay", tmp_path / "gone.py")
    assert code == 2
    assert err.splitlines()[-1].startswith("convlstm: ")
    assert "gone.py" in err
    script = tmp_path / "script.py"
    script.write_text("raise ValueError('as planned')\n")
    code, out, err = convlstm("replay", script)
    assert (code, out) == (2, "")
    assert "as planned" in err.splitlines()[-1]


# As a program ---------------------------------------------------------------------------------------------------------


def test_as_a_program(finished: Path, other: Path, tmp_path: Path) -> None:
    """From another folder, with no other output than the finding's."""
    (tmp_path / "a b").symlink_to(finished)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "convlstm", "diff", "a b", str(other)], cwd=tmp_path, check=False,
        capture_output=True, encoding="utf-8", timeout=120, env=None,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert result.stdout.splitlines()[1].startswith("step 1: the first array that differs: layers.0.W_x after the step")
