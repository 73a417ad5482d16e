"""ConvLSTM on NumPy or CuPy arrays, with backpropagation through time written by hand and proved by number."""

from convlstm import determinism
from convlstm._version import __version__
from convlstm.dropout import Draws
from convlstm.encoder_forecaster import EncoderForecaster
from convlstm.foreign_weights import from_keras, from_openstl, from_pytorch, to_keras, to_pytorch
from convlstm.gradcheck import check_gradients, check_gradients_over_time
from convlstm.layer import ConvLSTM
from convlstm.layer_stack import ConvLSTMStack
from convlstm.masks import mask_of_lengths
from convlstm.next_frame import NextFrame
from convlstm.parameter_files import assign_parameters, load_parameters, save_parameters
from convlstm.stateful import Stateful

__all__ = [
    "ConvLSTM",
    "ConvLSTMStack",
    "Draws",
    "EncoderForecaster",
    "NextFrame",
    "Stateful",
    "__version__",
    "assign_parameters",
    "check_gradients",
    "check_gradients_over_time",
    "determinism",
    "from_keras",
    "from_openstl",
    "from_pytorch",
    "load_parameters",
    "mask_of_lengths",
    "save_parameters",
    "to_keras",
    "to_pytorch",
]
