"""The claim that a run's bits depend on its configuration alone: the same run in processes that differ in all else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
[data]
test_sequences = 2
validation_sequences = 1
[model]
hidden_channels = [8, 8]
[training]
steps = 3
batch_size = 5
"""

# Importing matplotlib takes as long as the run.
WITHOUT_PICTURE = """
import sys
sys.modules["matplotlib.backends.backend_agg"] = None
from convlstm.cli import main
main()
"""

# MALLOC_PERTURB_ fills what malloc hands out and what free takes back.  The reference has two worker threads.
PROCESSES = {
    "1 worker thread": {"CONVLSTM_THREADS": "1"},
    "4 worker threads, 1 BLAS thread": {"CONVLSTM_THREADS": "4", "OPENBLAS_NUM_THREADS": "1"},
    "memory filled with a pattern": {"CONVLSTM_THREADS": "2", "MALLOC_PERTURB_": "85"},
    "all at once": {
        "CONVLSTM_THREADS": "3", "MALLOC_PERTURB_": "255", "PYTHONHASHSEED": "77", "OPENBLAS_NUM_THREADS": "4",
    },
}  # fmt: skip


def ledger(directory: Path, variables: dict[str, str], *options: str) -> bytes:
    """Train in a process of its own and return the ledger's bytes."""
    config = directory / "run.toml"
    config.write_text(CONFIG)
    fixed = {"PYTHONHASHSEED": "0", "CONVLSTM_BACKEND": "numpy"}
    command = [sys.executable, "-c", WITHOUT_PICTURE, "train", str(config), "--out", str(directory / "run"), *options]
    subprocess.run(command, env={**os.environ, **fixed, **variables}, check=True, capture_output=True)
    return (directory / "run" / "ledger.jsonl").read_bytes()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return ledger(tmp_path_factory.mktemp("reference"), {"CONVLSTM_THREADS": "2"})


@pytest.mark.parametrize("variables", PROCESSES.values(), ids=PROCESSES.keys())
def test_the_ledger_is_the_same_byte_for_byte(reference: bytes, variables: dict[str, str], tmp_path: Path) -> None:
    assert reference.count(b"\n") == 3
    assert ledger(tmp_path, variables) == reference


def test_the_ledger_tells_runs_apart(reference: bytes, tmp_path: Path) -> None:
    assert ledger(tmp_path, {}, "--seed", "1") != reference


WINOGRAD = {"CONVLSTM_BACKEND": "numpy:winograd"}


def test_winograds_ledger_is_the_same_in_another_process_and_not_the_plain_one(
    reference: bytes, tmp_path: Path
) -> None:
    """Its bits are its own, and depend on the rest as little."""
    found = []
    for name in ("1 worker thread", "all at once"):
        (tmp_path / name).mkdir()
        found.append(ledger(tmp_path / name, {**PROCESSES[name], **WINOGRAD}))
    assert found[0] == found[1]
    assert found[0].count(b"\n") == 3
    assert found[0] != reference
