"""ConvLSTM on NumPy or CuPy arrays, with backpropagation through time written by hand and proved by number."""

from convlstm.layer import ConvLSTM
from convlstm.model import NextFrame

__all__ = ["ConvLSTM", "NextFrame"]
