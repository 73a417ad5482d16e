"""The ledger: the form of its lines, and a digest that no difference slips through."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.backends import Array
from convlstm.ledger import BEGINNING, Chain, Ledger, LedgerError, Position, chain, open_locked, read_ledger
from tests.numerical import read_only

Step = tuple[float, dict[str, Array], dict[str, Array]]  # loss, gradients, weights


def step(number: int) -> Step:
    rng = np.random.default_rng(number)
    gradients = {"W": rng.normal(size=(2, 3)).astype(np.float32), "b": rng.normal(size=3).astype(np.float32)}
    weights = {"W": rng.normal(size=(2, 3)).astype(np.float32), "b": rng.normal(size=3).astype(np.float32)}
    return 0.7 / (number + 1), read_only(gradients), read_only(weights)


@contextmanager
def opened(file: Path, position: Position = BEGINNING) -> Iterator[Ledger]:
    with closing(open_locked(file)) as locked:
        yield Ledger(file, locked, position)


def written(file: Path, steps: list[Step]) -> list[dict[str, Any]]:
    with opened(file) as ledger:
        for arguments in steps:
            ledger.append(*arguments)
        assert ledger.steps == len(steps)
    return [json.loads(line) for line in file.read_text().splitlines()]


def digests(file: Path, steps: list[Step]) -> list[str]:
    return [line["digest"] for line in written(file, steps)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


# Its form -------------------------------------------------------------------------------------------------------------


def test_a_line_is_as_the_design_has_it(file: Path) -> None:
    lines = written(file, [step(0), step(1)])
    for number, line in enumerate(lines):
        assert list(line) == ["step", "loss", "loss_hex", "digest"]
        assert line["step"] == number
        assert line["loss"] == 0.7 / (number + 1)
        assert float.fromhex(line["loss_hex"]) == line["loss"]
        assert len(bytes.fromhex(line["digest"])) == 32
    data = file.read_bytes()
    assert data.startswith(b'{"step": 0, "loss": 0.7, "loss_hex": "0x1.6666666666666p-1", "digest": "')
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 2
    assert b"\r" not in data


class NearlyFull(io.FileIO):
    """A file on a disk with room for half a line more."""

    def write(self, line: Any) -> int:
        return super().write(line[: len(line) // 2])


def test_a_full_disk_leaves_whole_lines(file: Path) -> None:
    with opened(file) as ledger:
        ledger.append(*step(0))
        whole = file.read_bytes()
        ledger._file.close()
        ledger._file = NearlyFull(file, "ab")
        with pytest.raises(OSError, match="No space left on device") as raised:
            ledger.append(*step(1))
        assert raised.value.filename == str(file)
        assert ledger.steps == 1
        ledger._file.close()
    assert file.read_bytes() == whole


def test_a_line_is_on_disk_as_soon_as_its_step_is_done(file: Path) -> None:
    with opened(file) as ledger:
        assert file.read_bytes() == b""
        for number in range(3):
            ledger.append(*step(number))
            assert file.read_bytes().count(b"\n") == number + 1
            assert file.read_bytes().endswith(b"}\n")


def test_a_new_ledger_starts_empty_where_an_old_one_was(file: Path) -> None:
    written(file, [step(0), step(1)])
    assert len(written(file, [step(0)])) == 1


@settings(deadline=None)
@given(loss=st.floats(allow_nan=False, allow_infinity=False))
def test_the_loss_comes_back_bit_for_bit(loss: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    (line,) = written(tmp_path_factory.mktemp("ledger") / "l", [(loss, {}, {})])
    for back in (line["loss"], float.fromhex(line["loss_hex"])):
        assert back == loss
        assert math.copysign(1, back) == math.copysign(1, loss)


# Its digest -----------------------------------------------------------------------------------------------------------


def test_the_digest_is_the_documented_chain(file: Path) -> None:
    """SHA-256 over the tip before, the loss, gradients and weights: roles, names in order, dtypes, shapes, bytes."""
    steps = [step(0), step(1)]
    tip, expected = b"", []
    for loss, gradients, weights in steps:
        content = tip + np.float64(loss).tobytes()
        for role, named in (("gradient", gradients), ("weight", weights)):
            for name in ("W", "b"):
                content += f"{role} {name} <f4 {named[name].shape}\n".encode() + named[name].tobytes()
        tip = hashlib.sha256(content).digest()
        expected.append(tip.hex())
    assert digests(file, steps) == expected


def test_two_equal_runs_make_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name, [step(number) for number in range(3)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@settings(deadline=None)
@given(data=st.data())
def test_any_flipped_bit_changes_this_digest_and_all_after_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("ledger") / "l"
    steps = [step(number) for number in range(3)]
    before = digests(file, steps)
    number = data.draw(st.integers(0, 2))
    loss, *named = steps[number]
    which, name = data.draw(st.integers(0, 1)), data.draw(st.sampled_from(["W", "b"]))
    raw = bytearray(named[which][name].tobytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    flipped = np.frombuffer(bytes(raw), np.float32).reshape(named[which][name].shape)
    named[which] = {**named[which], name: flipped}
    steps[number] = (loss, named[0], named[1])
    after = digests(file, steps)
    assert after[:number] == before[:number]
    assert all(a != b for a, b in zip(after[number:], before[number:], strict=True))


def changed_steps() -> dict[str, Step]:
    """Step 0 as it is, and with one thing about it changed that an element's bits do not show."""
    loss, gradients, weights = step(0)
    zeros = np.zeros((2, 2), np.float32)
    return {
        "as it is": (loss, gradients, weights),
        "the last bit of the loss": (math.nextafter(loss, 1), gradients, weights),
        "gradients and weights exchanged": (loss, weights, gradients),
        "another name": (loss, {"W": gradients["W"], "c": gradients["b"]}, weights),
        "a tensor less": (loss, {"W": gradients["W"]}, weights),
        "another shape": (loss, {**gradients, "W": gradients["W"].reshape(3, 2)}, weights),
        "zeros": (loss, {"W": zeros}, {}),
        "zeros as weights": (loss, {}, {"W": zeros}),
        "zeros of another dtype, as many bytes": (loss, {"W": zeros.view(np.float64)}, {}),
        "zeros, negative": (loss, {"W": -zeros}, {}),
    }


def test_no_two_different_steps_share_a_digest(file: Path) -> None:
    found = {name: digests(file, [arguments])[0] for name, arguments in changed_steps().items()}
    assert len(set(found.values())) == len(found)


def test_order_of_names_and_of_memory_do_not_matter(file: Path) -> None:
    loss, gradients, weights = step(0)
    turned = {name: np.asfortranarray(gradients[name]) for name in ("b", "W")}
    assert digests(file, [(loss, turned, weights)]) == digests(file, [(loss, gradients, weights)])
    spread = {name: np.repeat(w, 2, axis=-1)[..., ::2] for name, w in weights.items()}  # not contiguous at all
    assert digests(file, [(loss, gradients, spread)]) == digests(file, [(loss, gradients, weights)])


# Going on -------------------------------------------------------------------------------------------------------------


def position_after(file: Path, steps: int) -> Position:
    with opened(file) as ledger:
        for number in range(steps):
            ledger.append(*step(number))
        return ledger.position


@pytest.mark.parametrize("more", [b"", b'{"step": 2, "lo', b"\xff\n\n", b'{"step": 2}\n' * 3])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_it_goes_on_from_where_it_stood(steps: int, more: bytes, tmp_path: Path) -> None:
    """Whatever stands behind that is cut off, and the file ends as one that was written at a stretch."""
    whole, file = tmp_path / "whole", tmp_path / "file"
    written(whole, [step(number) for number in range(4)])
    position = position_after(file, steps)
    assert position.steps == steps
    assert (position == BEGINNING) == (steps == 0)
    file.write_bytes(file.read_bytes() + more)
    with opened(file, position) as ledger:
        assert file.read_bytes().count(b"\n") == ledger.steps == steps
        assert ledger.position == position
        for number in range(steps, 4):
            ledger.append(*step(number))
    assert file.read_bytes() == whole.read_bytes()


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_ledger_that_is_another_is_left_as_it_is(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One bit before that place is enough."""
    file = tmp_path_factory.mktemp("ledger") / "l"
    position = position_after(file, 2)
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with (
        closing(open_locked(file)) as locked,
        pytest.raises(LedgerError, match=r"l \(\d lines\) does not begin with the 2 lines that it held"),
    ):
        Ledger(file, locked, position)
    assert file.read_bytes() == content


def test_a_ledger_that_lacks_lines_is_left_as_it_is(file: Path) -> None:
    position = position_after(file, 3)
    content = b"".join(file.read_bytes().splitlines(keepends=True)[:2])
    file.write_bytes(content)
    with (
        closing(open_locked(file)) as locked,
        pytest.raises(LedgerError, match=r"ledger\.jsonl \(2 lines\) does not begin with the 3 lines that it held"),
    ):
        Ledger(file, locked, position)
    assert file.read_bytes() == content


def test_two_never_write_one_ledger(file: Path) -> None:
    with opened(file) as ledger:
        ledger.append(*step(0))
        content = file.read_bytes()
        with pytest.raises(LedgerError, match=r"ledger\.jsonl is being written by another process: the run in it goes"):
            open_locked(file)
        assert file.read_bytes() == content
    open_locked(file).close()


@pytest.mark.parametrize("call", ["truncate", "fsync"])
def test_a_disk_that_refuses_is_said_with_the_ledgers_name(
    call: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(io.FileIO):
        def truncate(self, size: int | None = None) -> int:
            raise OSError(errno.EIO, "Input/output error")

    def refuse(number: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with (
        opened(file) as ledger,
        closing(Refusing(file, "r+")) as other,
        pytest.raises(OSError, match="Input/output error") as raised,
    ):
        ledger.bring_down() if call == "fsync" else Ledger(file, other)
    assert raised.value.filename == str(file)


def test_a_file_system_without_locks_is_no_reason_to_fail(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert len(written(file, [step(0)])) == 1


def test_a_line_that_was_not_written_is_no_part_of_the_chain(file: Path, tmp_path: Path) -> None:
    """The next try of the same step writes what the first would have."""
    written(tmp_path / "whole", [step(0), step(1)])
    with opened(file) as ledger:
        ledger.append(*step(0))
        real, position = ledger._file, ledger.position
        ledger._file = NearlyFull(file, "ab")
        with pytest.raises(OSError, match="No space left on device"):
            ledger.append(*step(1))
        ledger._file.close()
        ledger._file = real
        assert ledger.position == position
        ledger.append(*step(1))
    assert file.read_bytes() == (tmp_path / "whole").read_bytes()


# Reading it back ------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read(file: Path) -> None:
    steps = [step(number) for number in range(3)]
    lines = written(file, steps)
    entries = read_ledger(file)
    assert [entry.loss for entry in entries] == [loss for loss, _, _ in steps]
    assert [entry.digest for entry in entries] == [line["digest"] for line in lines]
    tip, taken_again = b"", Chain()
    assert taken_again.digest == ""
    for entry, arguments in zip(entries, steps, strict=True):
        tip = chain(tip, *arguments)
        taken_again.append(*arguments)
        assert entry.digest == tip.hex() == taken_again.digest


def test_an_empty_ledger_has_no_steps(file: Path) -> None:
    written(file, [])
    assert read_ledger(file) == []


def test_there_is_no_ledger(file: Path) -> None:
    with pytest.raises(LedgerError, match=r"cannot read .*ledger\.jsonl: .*No such file"):
        read_ledger(file)
    file.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(LedgerError, match=r"cannot read .*ledger\.jsonl: .*utf-8"):
        read_ledger(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", 2),
        ("step", "1"),
        ("step", None),
        ("loss", 0.25),
        ("loss", 1),
        ("loss", "0.35"),
        ("loss", None),
        ("loss_hex", "0x1.0p+0"),
        ("loss_hex", None),
        ("digest", "0" * 63),
        ("digest", "0" * 65),
        ("digest", 0),
        ("digest", None),
    ],
)
def test_a_changed_line_is_named(file: Path, name: str, value: object) -> None:
    """Whatever in it contradicts the rest of it, or is not there (None); a digest is what `verify` is for."""
    lines = written(file, [step(number) for number in range(3)])
    lines[1][name] = value
    if value is None:
        del lines[1][name]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(LedgerError, match=r"ledger\.jsonl, line 2: this is not the line of step 1: '\{"):
        read_ledger(file)


@pytest.mark.parametrize("line", ["", "{", '{"step": 1', "[]", "[1, 2]", "1", '"step"', "null", "[" * 100_000])
def test_a_line_that_is_no_entry_is_named(file: Path, line: str) -> None:
    written(file, [step(0)])
    with file.open("a") as end:
        end.write(line + "\n")
    with pytest.raises(LedgerError, match=r"ledger\.jsonl, line 2: this is not the line of step 1: ") as raised:
        read_ledger(file)
    assert len(str(raised.value)) < len(str(file)) + 130


@pytest.mark.parametrize("missing", [0, 1])
def test_a_line_that_was_taken_out_is_missed(file: Path, missing: int) -> None:
    written(file, [step(number) for number in range(3)])
    lines = file.read_text().splitlines(keepends=True)
    del lines[missing]
    file.write_text("".join(lines))
    with pytest.raises(LedgerError, match=rf"line {missing + 1}: this is not the line of step {missing}"):
        read_ledger(file)
