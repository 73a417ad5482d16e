"""Frames as small PNG pictures: values to colours, missing ones see-through."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSING = 0  # the index that is see-through; values have 1 … 255
# viridis of matplotlib (public domain), even steps of which look even; red, green and blue of each in hex digits.
_VIRIDIS = (
    "44015444025645045745055946075a46085c460a5d460b5e470d60470e6147106347116447136548146748166848176948186a481a6c"
    "481b6d481c6e481d6f481f70482071482173482374482475482576482677482878482979472a7a472c7a472d7b472e7c472f7d46307e"
    "46327e46337f463480453581453781453882443983443a83443b84433d84433e85423f85424086424186414287414487404588404688"
    "3f47883f48893e49893e4a893e4c8a3d4d8a3d4e8a3c4f8a3c508b3b518b3b528b3a538b3a548c39558c39568c38588c38598c375a8c"
    "375b8d365c8d365d8d355e8d355f8d34608d34618d33628d33638d32648e32658e31668e31678e31688e30698e306a8e2f6b8e2f6c8e"
    "2e6d8e2e6e8e2e6f8e2d708e2d718e2c718e2c728e2c738e2b748e2b758e2a768e2a778e2a788e29798e297a8e297b8e287c8e287d8e"
    "277e8e277f8e27808e26818e26828e26828e25838e25848e25858e24868e24878e23888e23898e238a8d228b8d228c8d228d8d218e8d"
    "218f8d21908d21918c20928c20928c20938c1f948c1f958b1f968b1f978b1f988b1f998a1f9a8a1e9b8a1e9c891e9d891f9e891f9f88"
    "1fa0881fa1881fa1871fa28720a38620a48621a58521a68522a78522a88423a98324aa8325ab8225ac8226ad8127ad8128ae8029af7f"
    "2ab07f2cb17e2db27d2eb37c2fb47c31b57b32b67a34b67935b77937b87838b9773aba763bbb753dbc743fbc7340bd7242be7144bf70"
    "46c06f48c16e4ac16d4cc26c4ec36b50c46a52c56954c56856c66758c7655ac8645cc8635ec96260ca6063cb5f65cb5e67cc5c69cd5b"
    "6ccd5a6ece5870cf5773d05675d05477d1537ad1517cd2507fd34e81d34d84d44b86d54989d5488bd6468ed64590d74393d74195d840"
    "98d83e9bd93c9dd93ba0da39a2da37a5db36a8db34aadc32addc30b0dd2fb2dd2db5de2bb8de29bade28bddf26c0df25c2df23c5e021"
    "c8e020cae11fcde11dd0e11cd2e21bd5e21ad8e219dae319dde318dfe318e2e418e5e419e7e419eae51aece51befe51cf1e51df4e61e"
    "f6e620f8e621fbe723fde725"
)
# From blue over white to red: the eleven colours of RdBu, ColorBrewer (Apache 2.0); colour-blind eyes tell them apart.
_BLUE_TO_RED = "0530612166ac4393c392c5ded1e5f0f7f7f7fddbc7f4a582d6604db2182b67001f"
_BLACK_TO_WHITE = "000000ffffff"
_STOPS = {"viridis": _VIRIDIS, "grey": _BLACK_TO_WHITE, "difference": _BLUE_TO_RED}


@dataclass(frozen=True)
class Colours:
    """Which colour a value gets: the first of a map at `low` and below, the last at `high` and above.

    Attributes:
        name: of the map: "viridis", "grey" or "difference".
        low: the smallest value that is told apart.
        high: the largest.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: no map has this name, or low is not below high.
        """
        if self.name not in _STOPS:
            raise ValueError(f"colours must be one of {', '.join(_STOPS)}; got {self.name!r}")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"colours must go from a number to a larger one; got {self.low} and {self.high}")

    def palette(self) -> NDArray[np.uint8]:
        """Return red, green and blue of each index, (256, 3)."""
        stops = np.frombuffer(bytes.fromhex(_STOPS[self.name]), np.uint8).reshape(-1, 3)
        at = np.linspace(0, len(stops) - 1, 255)
        colours = np.stack([np.interp(at, np.arange(len(stops)), stop) for stop in stops.T], axis=-1)
        return np.concatenate([np.zeros((1, 3)), colours]).round().astype(np.uint8)

    def indices(self, frame: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return which colour each pixel of a frame (H, W) gets; NaN is `MISSING`, infinity an end of the map."""
        share = (np.clip(frame.astype(np.float64), self.low, self.high) - self.low) / (self.high - self.low)
        missing = np.isnan(share)
        return np.where(missing, MISSING, 1 + np.rint(254 * np.where(missing, 0, share))).astype(np.uint8)


def png(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Return a PNG of indices (H, W) into a palette (256, 3); `MISSING` is see-through.

    Raises:
        ModuleNotFoundError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'pictures need Pillow, and {error.name} is missing; in the clone, pip install ".[plots]"', name=error.name
        ) from error
    image, file = Image.fromarray(indices), io.BytesIO()
    image.putpalette(palette.tobytes())
    image.save(file, "PNG", transparency=MISSING, optimize=True)
    return file.getvalue()


def data_address(frame: NDArray[np.floating], colours: Colours) -> str:
    """Return a frame (H, W) as the address of a picture that is its own content."""
    return _address(png(colours.indices(frame), colours.palette()))


def scale_address(colours: Colours) -> str:
    """Return the map's colours from low to high, a picture one pixel high, as its own address."""
    return _address(png(np.arange(1, 256, dtype=np.uint8)[None], colours.palette()))


def _address(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def coarser(frames: NDArray[np.floating], factor: int) -> NDArray[np.float64]:
    """Return frames (T, H, W) with each factor × factor pixels as their mean over those that are not missing.

    The shape is (T, ⌈H / factor⌉, ⌈W / factor⌉); a pixel is NaN where all that it stands for are.
    """
    large = float(np.finfo(np.float32).max)  # in place of infinity: a sum of both signs would be NaN
    values = np.nan_to_num(frames.astype(np.float64), nan=np.nan, posinf=large, neginf=-large)
    T, H, W = values.shape
    below, beside = -H % factor, -W % factor
    padded = np.pad(values, ((0, 0), (0, below), (0, beside)), constant_values=np.nan)
    blocks = padded.reshape(T, (H + below) // factor, factor, (W + beside) // factor, factor)
    there = ~np.isnan(blocks)
    count = there.sum(axis=(2, 4))
    total = np.where(there, blocks, 0).sum(axis=(2, 4))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
