"""The picture: the right frames in the right places, the same bytes every time, and clear errors."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm.page.pictures import Colours
from convlstm.report import BETWEEN, BETWEEN_SEQUENCES, HEADING, LABEL, MARGIN, PAPER, TITLE, forecast_figure

pytest.importorskip("matplotlib", reason="pictures need matplotlib, which is not installed")

ZOOM = 4  # of 5 + 5 frames 32 pixels wide


def frames(*shape: int) -> NDArray[np.float32]:
    """Every frame a different grey, darker from left to right and top to bottom, and all shades ones the file has."""
    greys = np.linspace(0, 63, int(np.prod(shape[:-2]))).round() / 63
    return np.broadcast_to(greys.reshape(*shape[:-2], 1, 1), shape).astype(np.float32)


def pixels(path: Path) -> NDArray[np.int64]:
    """Return the picture as 0 … 255, shape (height, width, 4)."""
    import matplotlib.image

    image = np.asarray(matplotlib.image.imread(io.BytesIO(path.read_bytes()), format="png"), np.float64)
    whole: NDArray[np.int64] = np.round(255 * image).astype(np.int64)
    return whole


def cell(picture: NDArray[np.int64], x: int, y: int) -> NDArray[np.int64]:
    return picture[y : y + 32 * ZOOM, x : x + 32 * ZOOM, :3]


@pytest.mark.parametrize("title", [None, "Costs $5 and $6_x"])
def test_every_frame_is_in_its_place_pixel_for_pixel(tmp_path: Path, title: str | None) -> None:
    N, T = 2, 5
    shown = np.random.default_rng(0).integers(0, 64, (3, N, T, 32, 32)) / 63
    forecast_figure(tmp_path / "f.png", *shown, title=title)
    picture = pixels(tmp_path / "f.png")

    step = 32 * ZOOM + BETWEEN
    top = HEADING + (TITLE if title else 0)
    block = (picture.shape[0] - top - MARGIN + BETWEEN_SEQUENCES) // N
    for n in range(N):
        for t in range(T):
            seen = cell(picture, MARGIN + t * step, top + n * block + step // 2)
            x = MARGIN + (T + t) * step - BETWEEN + LABEL
            forecast, truth = (cell(picture, x, top + n * block + row * step) for row in (0, 1))
            for got, expected in zip((seen, forecast, truth), shown[:, n, t], strict=True):
                enlarged = np.round(255 * expected).astype(int).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
                assert np.abs(got - enlarged[..., None]).max() <= 1


def test_one_sequence_needs_no_batch_axis(tmp_path: Path) -> None:
    forecast_figure(tmp_path / "a.png", frames(5, 32, 32), frames(4, 32, 32), frames(4, 32, 32))
    forecast_figure(tmp_path / "b.png", frames(1, 5, 32, 32), frames(1, 4, 32, 32), frames(1, 4, 32, 32))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_picture_is_opaque_paper_that_fits_readme(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((3, 3, 5, 32, 32)) * (np.indices((32, 32)).sum(0) % 4 == 0)
    forecast_figure(tmp_path / "f.png", *noise, title="Three sequences")
    picture = pixels(tmp_path / "f.png")
    assert (picture[..., 3] == 255).all()
    assert picture[0, 0, :3].tolist() == list(bytes.fromhex(PAPER[1:]))
    assert 1500 < picture.shape[1] <= 1800
    assert (tmp_path / "f.png").stat().st_size < 100_000


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 200, 50), (10, 8, 64), (20, 64, 64)])
def test_frames_of_other_shapes(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    forecast_figure(tmp_path / "f.png", frames(*shape), frames(*shape), frames(*shape))
    assert pixels(tmp_path / "f.png").shape[1] < 3200


def test_what_is_not_a_brightness_shows(tmp_path: Path) -> None:
    odd = np.full((1, 32, 32), 0.5, np.float32)
    odd[0, 0, :4] = (np.nan, np.inf, -np.inf, 7)
    forecast_figure(tmp_path / "f.png", *([odd.repeat(5, axis=0)] * 3))
    upper_left = cell(pixels(tmp_path / "f.png"), MARGIN, HEADING + (32 * ZOOM + BETWEEN) // 2)
    red, white, black, clipped = upper_left[0, : 4 * ZOOM : ZOOM].tolist()
    assert red[0] > 200
    assert max(red[1:]) < 50
    assert (white, black, clipped) == ([255] * 3, [0] * 3, [255] * 3)


def test_the_same_arrays_make_the_same_bytes_whatever_matplotlib_was_told(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    arrays = frames(5, 32, 32), frames(5, 32, 32), frames(5, 32, 32)
    forecast_figure(tmp_path / "a.png", *arrays, title="Title")
    assert dict(matplotlib.rcParams) == before
    told: Any = {"font.size": 30, "figure.facecolor": "red", "text.color": "blue", "image.origin": "lower"}
    with matplotlib.rc_context(told):
        forecast_figure(tmp_path / "b.png", *arrays, title="Title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_nothing_given_is_changed(tmp_path: Path) -> None:
    arrays = [frames(5, 32, 32) for _ in range(3)]
    for array in arrays:
        array.setflags(write=False)
    copies = [array.copy() for array in arrays]
    forecast_figure(tmp_path / "f.png", *arrays)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_pyplot_and_matplotlib_stay_unimported_until_needed() -> None:
    code = "import sys, convlstm.report; assert 'matplotlib' not in sys.modules"
    drawing = (
        "import numpy as np, tempfile; x = np.zeros((1, 4, 4))\n"
        "with tempfile.TemporaryDirectory() as d: convlstm.report.forecast_figure(d + '/f.png', x, x, x)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", f"{code}\n{drawing}"], check=True)


# What goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "forecast", "truth", "message"),
    [
        ((32, 32), (5, 32, 32), (5, 32, 32), r"context must have shape \(T_in, H, W\) or .*; got \(32, 32\)"),
        ((0, 8, 8), (5, 8, 8), (5, 8, 8), r"context must have shape .*none 0; got \(0, 8, 8\)"),
        ((5, 8, 8), (5, 8, 9), (5, 8, 9), r"forecast must have shape \(T_out, 8, 8\) .*; got \(5, 8, 9\)"),
        ((2, 5, 8, 8), (5, 8, 8), (5, 8, 8), r"forecast must have shape \(2, T_out, 8, 8\) .*; got \(5, 8, 8\)"),
        ((5, 8, 8), (0, 8, 8), (0, 8, 8), r"forecast must have shape .*; got \(0, 8, 8\)"),
        ((5, 8, 8), (5, 8, 8), (4, 8, 8), r"truth must have the shape of forecast, \(5, 8, 8\); got \(4, 8, 8\)"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, context: Any, forecast: Any, truth: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forecast_figure(tmp_path / "f.png", np.zeros(context), np.zeros(forecast), np.zeros(truth))
    assert os.listdir(tmp_path) == []


def test_missing_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r'^[^\n]*pip install "\.\[plots\]"$'):
        forecast_figure(tmp_path / "f.png", *(frames(2, 8, 8) for _ in range(3)))
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.png").write_bytes(b"old")

    def replace(source: Path, to: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="no"):
        forecast_figure(tmp_path / "f.png", *(frames(2, 8, 8) for _ in range(3)))
    assert (tmp_path / "f.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f.png"]


# Fields ---------------------------------------------------------------------------------------------------------------


def test_wide_frames_stand_one_below_the_other(tmp_path: Path) -> None:
    """The last frame shown, then forecast and truth of each lead time, each pixel a square of its own colour."""
    H, W, zoom = 4, 200, 7
    field = np.linspace(0, 1, 6 * H * W).reshape(6, H, W)
    field[:, 1, 3] = np.nan
    forecast_figure(tmp_path / "a.png", field[:2], field[2:4], field[4:], colours="viridis")
    drawn, left, palette = pixels(tmp_path / "a.png")[..., :3], MARGIN + LABEL, Colours("viridis", 0.0, 1.0).palette()

    def top_of(frame: NDArray[np.float64]) -> int:
        shades = palette[1 + np.rint(254 * np.nan_to_num(frame)).astype(np.int64)]
        wanted = np.where(np.isnan(frame)[..., None], (212, 209, 204), shades).repeat(zoom, axis=0).repeat(zoom, axis=1)
        places = range(len(drawn) - zoom * H)
        (found,) = [y for y in places if (drawn[y : y + zoom * H, left : left + zoom * W] == wanted).all()]
        return found

    tops = [top_of(field[t]) for t in (1, 2, 4, 3, 5)]  # shown, then forecast and truth of +1 and of +2
    assert tops == sorted(tops)
