"""A layer's gradients while they are summed over time steps."""

from __future__ import annotations

from collections.abc import Mapping

from convlstm.backends.contract import Array, Backend, Kernel, KernelGradient
from convlstm.backends.geometry import Geometry


class LayerGradients:
    """The sum of each parameter's gradient over the steps so far."""

    def __init__(self, backend: Backend, zeros: Mapping[str, Array]) -> None:
        """Begin with `zeros` in the shape of each parameter; they are added to in place."""
        self._backend = backend
        self._sums = dict(zeros)
        self._kernels: dict[str, KernelGradient] = {}

    def __contains__(self, name: object) -> bool:
        """Say whether the layer learns a parameter of this name."""
        return name in self._sums

    def add(self, name: str, share: Array) -> None:
        """Add a step's share of a parameter's gradient."""
        self._sums[name] += share

    def add_kernel(self, name: str, W: Kernel, x: Array, dz: Array, geometry: Geometry) -> None:
        """Add a step's share of the gradient to a kernel: from what it was laid on and the gradient to what came out.

        Args:
            name: the kernel's, "W_x", "W_h" or, of both side by side, "W_xh".
            W: the kernel, as `prepare` made it.
            x: (N, C, H, W).
            dz: (N, D, H', W').
            geometry: of the convolution.
        """
        if name not in self._kernels:
            self._kernels[name] = self._backend.kernel_gradient(W, geometry)
        self._kernels[name].add(x, dz)

    def total(self) -> dict[str, Array]:
        """Return each parameter's gradient; nothing may be added after."""
        found = {name: kernel.total() for name, kernel in self._kernels.items()}
        both = found.pop("W_xh", None)
        if both is not None:
            Cin = self._sums["W_x"].shape[1]
            for name, share in (("W_x", both[:, :Cin]), ("W_h", both[:, Cin:])):
                single = found.get(name)  # of steps without an h₋
                found[name] = share if single is None else single + share
        return self._sums | {name: gradient for name, gradient in found.items() if gradient is not None}
