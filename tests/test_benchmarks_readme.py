"""README's table and plot come from a file of results, go between the marks, and leave the rest as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import readme, speed_plot
from benchmarks.measure import Rows, environment, row
from benchmarks.readme import BEGIN, END, MarksMissing, rewrite
from benchmarks.results import ResultsError, write_results
from benchmarks.shapes import SHAPES

AROUND = f"# Title\n\n{BEGIN}\nold\n{END}\n\nthe end\n"


def rows(*names: str, factor: float = 1) -> Rows:
    """Every shape, everybody twice as fast as the one before."""
    return {
        label: row({name: [factor / 2**n] * 3 for n, name in enumerate(names)}, shape=shape._asdict())
        for label, shape in SHAPES.items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(AROUND, "utf-8")
    everybody = ("Keras 3", "PyTorch", "ours")
    held = {"train_step": rows(*everybody), "inference": rows(*everybody, factor=0.1), "threads": {}}
    write_results(tmp_path / "results.json", environment(), held)
    return tmp_path


def test_the_table_goes_between_the_marks(folder: Path) -> None:
    rewrite(folder / "results.json", folder / "README.md")
    text = (folder / "README.md").read_text("utf-8")
    assert text.startswith(f"# Title\n\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\n\nthe end\n")
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("| shape"))
    assert lines[at] == "| shape | T | N | Cin→C | H×W | K | Keras 3 | PyTorch | ours |"
    assert lines[at + 2 : at + 4] == [
        "| shi | 10 | 8 | 16→128 | 16×16 | 5 | 1000 (1000–1000) **0.50** | 500 (500–500) | 250 (250–250) **2.00** |",
        "| shi, forecast | 10 | 8 | 16→128 | 16×16 | 5 | 100 (100–100) **0.50** | 50.0 (50.0–50.0) "
        "| 25.0 (25.0–25.0) **2.00** |",
    ]
    assert "of 3 rounds" in text
    assert "[results.json](results.json)" in text
    assert all(len(line) <= readme.WIDTH for line in lines if not line.startswith("|"))
    assert (folder / readme.PLOT).read_bytes().startswith(b"\x89PNG")


def test_again_is_the_same_bytes(folder: Path) -> None:
    files = (folder / "README.md", folder / readme.PLOT)
    rewrite(folder / "results.json", folder / "README.md")
    once = [file.read_bytes() for file in files]
    rewrite(folder / "results.json", folder / "README.md")
    assert [file.read_bytes() for file in files] == once


@pytest.mark.parametrize(
    ("text", "lacking"),
    [("no marks", f"{BEGIN} and {END}"), (BEGIN, END), (END, f"{BEGIN} and {END}"), (END + BEGIN, END)],
)
def test_a_readme_without_the_marks_is_left_as_it_was(text: str, lacking: str, folder: Path) -> None:
    (folder / "README.md").write_text(text, "utf-8")
    with pytest.raises(MarksMissing, match=f"it lacks {lacking}$"):
        rewrite(folder / "results.json", folder / "README.md")
    assert (folder / "README.md").read_text("utf-8") == text
    assert not (folder / readme.PLOT).exists()


def test_results_that_lack_what_the_table_is_about_are_an_error(folder: Path) -> None:
    write_results(folder / "other.json", environment(), {"inference": rows("PyTorch", "ours")})
    with pytest.raises(ResultsError, match=r"other\.json holds no rows of train_step; make it with"):
        rewrite(folder / "other.json", folder / "README.md")
    write_results(folder / "other.json", environment(), {"train_step": rows("ours")})
    with pytest.raises(ResultsError, match=r"other\.json holds no times of PyTorch"):
        rewrite(folder / "other.json", folder / "README.md")


def test_one_benchmark_is_drawn_by_itself_if_pytorch_was_there(tmp_path: Path) -> None:
    draw = speed_plot.of("train_step")
    draw(rows("ours"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    draw(rows("PyTorch", "ours"), tmp_path)
    assert (tmp_path / "train_step.png").read_bytes().startswith(b"\x89PNG")
