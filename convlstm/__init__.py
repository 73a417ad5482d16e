"""ConvLSTM on NumPy or CuPy arrays, with backpropagation through time written by hand and proved by number."""

from convlstm import determinism
from convlstm._version import __version__
from convlstm.gradcheck import check_gradients, check_gradients_over_time
from convlstm.layer import ConvLSTM
from convlstm.model import NextFrame
from convlstm.parameter_files import assign_parameters, load_parameters, save_parameters

__all__ = [
    "ConvLSTM",
    "NextFrame",
    "__version__",
    "assign_parameters",
    "check_gradients",
    "check_gradients_over_time",
    "determinism",
    "load_parameters",
    "save_parameters",
]
