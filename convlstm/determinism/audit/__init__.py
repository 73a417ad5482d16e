"""Finds in source text what makes results wander: memory read before it is written, seeds, orders; executes nothing."""

from convlstm.determinism.audit.catalogue import RULES, choose
from convlstm.determinism.audit.check import Report, audit, audit_text, default_rules
from convlstm.determinism.audit.findings import Finding, Place, Problem

__all__ = ["RULES", "Finding", "Place", "Problem", "Report", "audit", "audit_text", "choose", "default_rules"]
