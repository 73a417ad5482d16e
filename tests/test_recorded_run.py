"""What a run directory says of its run, and what is no run directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from convlstm.config import ConfigError
from convlstm.ledger import LedgerError, read_ledger
from convlstm.recorded_run import NoRun, changes_since, differing_environments, read_run
from tests.runs import TINY, trained

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def with_environment(run: Path, **changes: Any) -> None:
    """Rewrite entries of environment.json; None takes one out."""
    file = run / "environment.json"
    changed = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


# Reading --------------------------------------------------------------------------------------------------------------


def test_a_run_is_read(finished: Path) -> None:
    run = read_run(finished)
    assert (run.directory, run.config, run.backend) == (finished, TINY, "numpy")
    assert run.ledger == read_ledger(finished / "ledger.jsonl")
    assert run.environment == json.loads((finished / "environment.json").read_text())


@pytest.mark.parametrize("name", ["config.toml", "ledger.jsonl", "environment.json"])
def test_a_missing_file_is_named(name: str, run: Path) -> None:
    (run / name).unlink()
    with pytest.raises(NoRun, match=f"{run} holds no {name}, so it is no run"):
        read_run(run)
    (run / name).mkdir()
    with pytest.raises(NoRun, match=f"holds no {name}"):
        read_run(run)


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(NoRun, match=f"{path} holds no config.toml, so it is no run"):
            read_run(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "null", '"text"', '{"packages": []}', '{"packages": 1}', '{"variables": "x"}', '{"blas": 1}',
     "[" * 100_000],
)  # fmt: skip
def test_an_environment_that_is_none_is_named(text: str, run: Path) -> None:
    (run / "environment.json").write_text(text)
    with pytest.raises(NoRun, match=r"cannot read .*environment\.json: "):
        read_run(run)


def test_an_environment_in_another_encoding_is_named(run: Path) -> None:
    (run / "environment.json").write_bytes(b'{"backend": "\xff"}')
    with pytest.raises(NoRun, match=r"cannot read .*environment\.json: .*utf-8"):
        read_run(run)


def test_a_bad_config_and_a_bad_ledger_are_named(run: Path) -> None:
    (run / "ledger.jsonl").write_text("x\n")
    with pytest.raises(LedgerError, match=r"ledger\.jsonl, line 1"):
        read_run(run)
    (run / "config.toml").write_text("[training]\nstep = 3\n")
    with pytest.raises(ConfigError, match=r"config\.toml: unknown setting 'step' in \[training\]"):
        read_run(run)


def test_without_a_backend_it_was_numpy(run: Path) -> None:
    with_environment(run, backend=None)
    assert read_run(run).backend == "numpy"


# What has changed since -----------------------------------------------------------------------------------------------


def test_nothing_has_changed_since(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are no change: the bits do not depend on them."""
    for name in ("CONVLSTM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "CONVLSTM_BACKEND"):
        monkeypatch.setenv(name, "numpy" if name == "CONVLSTM_BACKEND" else "7")
    assert changes_since(read_run(finished), "numpy") == []


def test_each_change_is_a_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_run(run).environment
    packages = {**before["packages"], "numpy": "1.0", "safetensors": None, "cupy-cuda12x": "13.6.0"}
    packages = {name: version for name, version in packages.items() if version is not None}
    with_environment(
        run, backend="cupy:1", processor="8086", python="3.9.0", blas=["mkl 1"], packages=packages, cores=99,
        variables={"CONVLSTM_THREADS": "9", "OPENBLAS_CORETYPE": "Haswell"}, backend_description="GPU of then",
    )  # fmt: skip
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setenv("OMP_DYNAMIC", "true")
    now = before["packages"]
    assert changes_since(read_run(run), "numpy") == [
        f"BLAS: mkl 1 then, {', '.join(before['blas'])} now",
        "OMP_DYNAMIC: none then, true now",
        "OPENBLAS_CORETYPE: Haswell then, none now",
        "backend: cupy:1 then, numpy now",
        "cupy-cuda12x: 13.6.0 then, none now",
        "device: GPU of then then, none now",
        f"numpy: 1.0 then, {now['numpy']} now",
        f"processor: 8086 then, {before['processor']} now",
        f"python: 3.9.0 then, {before['python']} now",
        f"safetensors: none then, {now['safetensors']} now",
    ]


def test_another_device_is_a_change_only_of_cupy() -> None:
    """NumPy's description names the number of threads."""
    one, other = ({"backend": "numpy", "backend_description": f"x86, {n} worker thread(s)"} for n in (1, 2))
    assert differing_environments(one, other) == []
    one, other = ({"backend": "cupy", "backend_description": name} for name in ("H100", "H200"))
    assert differing_environments(one, other, ("here", "there")) == ["device: H100 here, H200 there"]
