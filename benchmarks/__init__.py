"""Backends and peers side by side; each module is a command: python -m benchmarks.train_step --help."""
