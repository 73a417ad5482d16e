"""Sequences of frames to train on, each a plain array (N, T, C, H, W)."""

from __future__ import annotations
