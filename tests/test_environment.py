"""What a run records of its machine."""

from __future__ import annotations

import json

import numpy as np

from convlstm import environment


def test_the_machine_is_plain_data_that_names_processor_and_blas() -> None:
    machine = environment.machine(("numpy", "no-such-package"))
    assert json.loads(json.dumps(machine)) == machine
    assert machine["packages"] == {"numpy": np.__version__}
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert machine["blas"]
    assert all(len(library.split()) >= 2 for library in machine["blas"])
