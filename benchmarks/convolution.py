"""Ways to call a convolution, one sample on one thread: GFLOP/s forward, to the input and to the kernel.

The convolution is that over h, C to 4C channels, and every way is held against the plain call of `F.convolution_2d`
before it is timed.  Maps come in the order of memory that the gates leave them in, channels last; PyTorch gets them in
its own.  A kernel is brought into the order that a way needs once, as it would be for all samples and steps; maps are
in every call.  The whole batch in one call counts for one of its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

from benchmarks import convolution_to_weights
from benchmarks.contest import largest_difference, made, usable_backend
from benchmarks.convolution_to_weights import TO_WEIGHTS, pytorch_backward
from benchmarks.convolution_ways import CORRELATIONS, PLAIN, Way, by_chainer, by_pytorch, rotated
from benchmarks.measure import Row, Rows, Skipped, interleaved, package, row
from benchmarks.options import Options
from benchmarks.shapes import Shape, recurrent_geometry
from benchmarks.tables import ABSENT, contenders, markdown
from convlstm.backends import Array
from convlstm.backends.convolution import (
    gradient_input_by_convolution,
    gradient_input_by_transposed_convolution,
    without_graph,
)
from convlstm.randomness import generator

BATCH = "the whole batch in one call"
TRANSPOSED = "F.deconvolution_2d"
PYTORCH = "PyTorch"
WINOGRAD = "numpy:winograd"

Call = Callable[[], Array]
Makers = dict[str, Callable[[], Call]]  # a maker raises Skipped where what its way needs is missing


class Operands(NamedTuple):
    """What is convolved: x (N, C, H, W), W (4C, C, K, K) and dz (N, 4C, H, W)."""

    shape: Shape
    x: Array
    W: Array
    dz: Array

    def one(self, sample: int = 0) -> Operands:
        """Return the same of one sample alone."""
        return self._replace(x=self.x[sample : sample + 1], dz=self.dz[sample : sample + 1])


def operands(shape: Shape) -> Operands:
    """Return random operands of the convolution over h, float32; maps lie in memory channels last."""
    numbers = generator(0, "benchmark/convolution")
    sizes = (
        (shape.N, shape.C, shape.H, shape.W),
        (4 * shape.C, shape.C, shape.K, shape.K),
        (shape.N, 4 * shape.C, shape.H, shape.W),
    )
    x, W, dz = (numbers.standard_normal(size, np.float32) for size in sizes)
    channels_last = usable_backend("numpy").channels_last
    return Operands(shape, channels_last(x), W, channels_last(dz))


def prepared(way: Way, W: Array, x: Array) -> Callable[[], Call]:
    """Return a maker of the call that convolves x with W in some way."""
    return lambda: partial(way(W), x)


def forward(given: Operands) -> Makers:
    """Return every way from x and W to z."""
    one = given.one()

    def winograd() -> Call:
        backend, geometry = usable_backend(WINOGRAD), recurrent_geometry(given.shape)
        kernel = backend.prepare(given.W, geometry, given.shape.H, given.shape.W)
        return lambda: backend.convolve(one.x, kernel, geometry)

    return {
        **{name: prepared(way, given.W, one.x) for name, way in CORRELATIONS.items()},
        BATCH: prepared(by_chainer, given.W, given.x),
        PYTORCH: prepared(by_pytorch, given.W, np.ascontiguousarray(one.x)),
        WINOGRAD: winograd,
    }


def to_input(given: Operands) -> Makers:
    """Return every way from dz and W to dx."""
    one, size, geometry = given.one(), (given.shape.H, given.shape.W), recurrent_geometry(given.shape)

    def winograd() -> Call:
        backend = usable_backend(WINOGRAD)
        kernel = backend.prepare(given.W, geometry, *size)
        return lambda: backend.gradient_input(one.dz, kernel, geometry, *size)

    return {
        **{name: prepared(way, rotated(given.W), one.dz) for name, way in CORRELATIONS.items()},
        PLAIN: lambda: partial(gradient_input_by_convolution, one.dz, given.W, geometry, *size),
        TRANSPOSED: lambda: partial(gradient_input_by_transposed_convolution, one.dz, given.W, geometry, *size),
        BATCH: lambda: partial(gradient_input_by_transposed_convolution, given.dz, given.W, geometry, *size),
        PYTORCH: lambda: pytorch_backward(given.W, one.x, one.dz, 0),
        WINOGRAD: winograd,
    }


def to_weights(given: Operands) -> Makers:
    """Return every way from x and dz to dW."""
    one, K = given.one(), given.shape.K

    def winograd() -> Call:
        backend, geometry = usable_backend(WINOGRAD), recurrent_geometry(given.shape)
        kernel = backend.prepare(given.W, geometry, given.shape.H, given.shape.W)

        def call() -> Array:
            gradient = backend.kernel_gradient(kernel, geometry)
            gradient.add(one.x, one.dz)
            found: Array = gradient.total()
            return found

        return call

    plain: Makers = {name: partial(partial, way, K, one.x, one.dz) for name, way in TO_WEIGHTS.items()}
    return {
        **plain,
        BATCH: lambda: partial(convolution_to_weights.by_columns, K, given.x, given.dz),
        PYTORCH: lambda: pytorch_backward(given.W, one.x, one.dz, 1),
        WINOGRAD: winograd,
    }


class Work(NamedTuple):
    """A direction."""

    ways: Callable[[Operands], Makers]
    together: Callable[[list[Array]], Array]  # what single samples make to what their batch makes


WORK = {
    "forward": Work(forward, np.concatenate),
    "to the input": Work(to_input, np.concatenate),
    "to the kernel": Work(to_weights, lambda shares: np.sum(shares, axis=0)),
}


def plainly(work: Work, given: Operands) -> Array:
    """Return what the plain way makes of the whole batch, sample by sample."""
    samples = (given.one(n) for n in range(given.shape.N))
    return work.together([work.ways(sample)[PLAIN]()() for sample in samples])


def time_ways(makers: Makers, of_batch: Array, samples: int, rounds: int, **facts: Any) -> Row:
    """Return a row of ways, each held against the plain one first.

    Args:
        makers: by name, the plain one among them.
        of_batch: what the plain way makes of the whole batch.
        samples: N of the batch.
        rounds: turns of each.
        facts: of the row.

    Raises:
        RuntimeError: a way computes something else.
    """
    ways, skipped = made(makers)
    with one_thread():
        plain = ways[PLAIN]()
        differences = {
            name: largest_difference(name, {"it": of_batch if name == BATCH else plain}, {"it": way()})
            for name, way in ways.items()
        }
        seconds = interleaved(ways, rounds)
    seconds[BATCH] = [value / samples for value in seconds[BATCH]]
    return row(seconds, **facts, skipped=skipped, largest_relative_difference=differences)


@contextmanager
def one_thread() -> Iterator[None]:
    """Give one thread to every BLAS and OpenMP that is loaded, Chainer no graph, and PyTorch one thread."""
    try:
        torch = package("torch")
    except Skipped:
        torch = None
    before = 1 if torch is None else torch.get_num_threads()
    with threadpoolctl.threadpool_limits(1), without_graph():
        try:
            if torch is not None:
                torch.set_num_threads(1)
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)


def measure(options: Options) -> Rows:
    """Return a row for each shape and direction.

    Raises:
        RuntimeError: a way computes something else.
    """
    rows = {}
    for name, shape in options.shapes.items():
        given = operands(shape)
        flop = 2 * given.W.size * shape.H * shape.W
        for direction, work in WORK.items():
            rows[f"{name}, {direction}"] = time_ways(
                work.ways(given), plainly(work, given), shape.N, options.rounds, shape=shape._asdict(), flop=flop
            )
    return rows


def gflops(found: Row, name: str) -> float | None:
    """Return a way's GFLOP/s, counted as direct convolution, from its median; None where it did not take part."""
    times: Mapping[str, Any] = found["times"]
    return found["flop"] / times[name]["median_ms"] / 1e6 if name in times else None


def table(rows: Rows) -> str:
    """Return GFLOP/s, a line for each way and a column for each row."""
    lines = []
    for name in contenders(rows):
        speeds = [gflops(found, name) for found in rows.values()]
        lines.append([name, *(ABSENT if speed is None else f"{speed:.1f}" for speed in speeds)])
    note = "\n\nGFLOP/s of one sample on one thread, counted as direct convolution, from medians"
    return markdown(["way", *rows], lines) + note
