"""Small programs as people write them, each with one fault of the real world or none: all are named, none is made up.

`NAMED` says what must be found in each: which gradients are at fault, and words that the diagnosis of all of them must
hold unless others are given for one.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from convlstm.gradcheck import check_gradients, check_gradients_over_time

UNINITIALISED = "some of the programs fill arrays from np.empty, as people do"
ZOO = Path(__file__).parent / "programs" / "gradients"
GATES = "ifog"

NAMED: dict[str, tuple[str, dict[str, str]]] = {
    # the question this began with: three faults, and V right
    "question_lstm_backward": (
        "leaves out step t itself",
        {**{f"W{k}": "np.outer" for k in GATES}, **{f"U{k}": "" for k in GATES}},
    ),
    # the program of the second question
    "convlstm_unrotated_kernel": ("the carry of h.*not rotated by 180°", {"main_kernel": "", "bias": ""}),
    "convlstm_clipping_inside_time_loop": (
        "clipped inside the time loop",
        {"main_kernel": "clipping", "bias": "", "bias_y": "", "read_out": ""},
    ),
    # time
    "lstm_lost_cell_carry": (
        "from T = 2: the carry of c through time",
        {f"{kind}{k}": "" for kind in "Wb" for k in GATES},
    ),
    "lstm_cell_carry_without_forget_gate": (
        "from T = 2: the carry of c through time",
        dict.fromkeys(("kernel", "recurrent_kernel", "bias"), ""),
    ),
    "lstm_lost_hidden_carry": (
        "from T = 2: the carry of h through time",
        dict.fromkeys(("weight_ih", "weight_hh", "bias"), ""),
    ),
    "lstm_carry_dropped_after_one_step": (
        "from T = 3: the carry .* right over one step",
        {f"{kind}{k}": "" for kind in "WUb" for k in GATES},
    ),
    "rnn_carry_accumulated": ("from T = 3: .*accumulated", dict.fromkeys(("Wxh", "Whh", "bh"), "")),
    "rnn_only_last_step_kept": ("from T = 2: the carry through time is right.*only one step kept", {"W_x": ""}),
    "rnn_divided_by_T": ("1/T", dict.fromkeys(("Wxh", "Whh", "Why", "bh", "by"), "")),
    "lstm_h_index_off_by_one": ("the h that .* not that of step t-1", {"recurrent_kernel": ""}),
    "lstm_h_index_wraps": ("the h that .* not that of step t-1", dict.fromkeys(("Wi", "Wo", "Wg"), "")),
    "lstm_c_index_wraps": ("the c that .* not that of step t-1", dict.fromkeys(("kernel", "bias"), "")),
    "lstm_forget_gate_from_new_cell": (
        "gate f only, so the c that .* not that of step t-1",
        {f"{kind}{k}": "" for kind in "WUb" for k in GATES},
    ),
    # memory
    "lstm_stale_cache": ("a stale cache", dict.fromkeys(("W", "R", "b", "P"), "")),
    "lstm_aliased_cache": ("an aliased cache", dict.fromkeys(("Wh", "Wy"), "")),
    "gru_buffers_not_zeroed": (
        "accumulated over calls",
        dict.fromkeys(("kernel", "recurrent_kernel", "bias", "output_kernel"), ""),
    ),
    # one step
    "lstm_backward_of_zeros": ("W, b: zero: nothing was ever added", {"W": "zero", "b": "zero"}),
    "lstm_sigmoid_derivative_of_z": (
        "T = 1 .*only gate i: .*derivative of the activation is taken at the wrong point",
        {f"{kind}{k}": "" for kind in "Wb" for k in GATES},
    ),
    "rnn_tanh_derivative_of_tanh": (
        "T = 1 .*derivative of the activation is taken at the wrong point",
        dict.fromkeys(("Wxh", "Whh", "bh"), ""),
    ),
    "lstm_swapped_gates": ("gates swapped: blocks 2 and 4 of 4", dict.fromkeys(("W_x", "W_h", "b"), "gates swapped")),
    "convlstm_channels_swapped": ("input and output channels are swapped within each gate", {"weight_hh": ""}),
    "convlstm_bias_not_summed_over_pixels": ("not summed over the pixels", {"b": ""}),
    "lstm_bias_not_summed_over_batch": ("not summed over the batch", {"bias": ""}),
    "lstm_repeated_index": ("an index that occurs twice .* np.add.at", {"U": ""}),
    "lstm_clipped_before_compare": (
        "scaled by clipping before it was compared",
        dict.fromkeys(("weight_ih", "weight_hh", "bias", "weight_out"), "clipping"),
    ),
    "rnn_weight_decay_in_gradient_only": (
        "weight decay that the loss does not have",
        dict.fromkeys(("W_x", "W_h", "W_o"), "weight decay"),
    ),
}  # fmt: skip

# No gradient of these is wrong; the loss itself is such that none can be checked.
UNCHECKABLE = {
    "noisy_dropout": "not deterministic",
    "nan_loss": "the loss is nan",
    "loss_ignores_argument": "does not read its parameters",
}

RIGHT = {
    "correct_dense_lstm": "",
    "correct_lstm_per_gate": "",
    "correct_convlstm": "",
    "correct_gru": "",
    "correct_rnn": "",
    "correct_lstm_last_step_only": "",
    "correct_relu_rnn_at_the_kink": "not smooth at this point",
    "correct_value_clip_in_loss": "not smooth at this point",
    "correct_float32_lstm": "as float32 arithmetic does",
    "unread_parameter": "does not read 'bias_hh'",
}


def load(name: str) -> ModuleType:
    """Return the program, freshly run: some keep state from call to call."""
    spec = importlib.util.spec_from_file_location(name, ZOO / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_program_has_its_diagnosis() -> None:
    assert {file.stem for file in ZOO.glob("*.py")} == {*NAMED, *UNCHECKABLE, *RIGHT}


@pytest.mark.parametrize("name", NAMED)
def test_the_fault_is_named(name: str) -> None:
    words, at_fault = NAMED[name]
    report = check_gradients_over_time(load(name).problem)
    assert not report.ok
    assert set(report.faults) == set(at_fault)
    assert re.search(words, report.summary), report.summary
    for parameter, own in at_fault.items():
        assert re.search(own or words, report.faults[parameter]), report.faults[parameter]
    assert report.summary in str(report)


@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("lstm_stale_cache", "gru_buffers_not_zeroed")])
def test_one_length_is_enough_to_see_that_there_is_a_fault(name: str) -> None:
    report = check_gradients(*load(name).problem(3 if name.startswith("convlstm") else 5))
    assert set(report.faults) == set(NAMED[name][1])


@pytest.mark.parametrize("name", UNCHECKABLE)
def test_a_loss_that_allows_no_check_is_said_to_be_one(name: str) -> None:
    report = check_gradients_over_time(load(name).problem)
    assert not report.ok
    assert list(report.faults) == ["loss"]
    assert UNCHECKABLE[name] in report.faults["loss"]


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_not_accused(name: str) -> None:
    report = check_gradients_over_time(load(name).problem, lengths=(1, 3))
    assert report.ok, str(report)
    assert report.faults == {}
    assert RIGHT[name] in " ".join(report.remarks)
