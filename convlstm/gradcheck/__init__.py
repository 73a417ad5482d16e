"""Checks anybody's gradients against numerical ones, and says what the pattern of their errors means; NumPy only."""

from convlstm.gradcheck.check import check_gradients
from convlstm.gradcheck.over_time import check_gradients_over_time
from convlstm.gradcheck.report import LengthsReport, Report

__all__ = ["LengthsReport", "Report", "check_gradients", "check_gradients_over_time"]
