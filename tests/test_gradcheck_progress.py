"""A quick check stays silent, a long one says how far it has come."""

from __future__ import annotations

import sys

import pytest

from convlstm import check_gradients
from convlstm.backends import Array
from tests.gradient_problems import PARAMETERS, RIGHT, loss


class Clock:
    """A clock that every call of the loss advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, terminal: bool) -> None:
        self.now, self.seconds = 100.0, seconds
        monkeypatch.setattr("convlstm.gradcheck.progress.time.monotonic", lambda: self.now)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)

    def loss(self, parameters: dict[str, Array]) -> float:
        self.now += self.seconds
        return loss(parameters)


@pytest.mark.parametrize("terminal", [True, False])
def test_quick_check_says_nothing(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    clock = Clock(monkeypatch, 0.01, terminal)
    check_gradients(clock.loss, PARAMETERS, RIGHT)
    assert capsys.readouterr() == ("", "")


def test_slow_check_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch, 1.0, terminal=False)
    check_gradients(clock.loss, PARAMETERS, RIGHT)
    seconds = clock.now - 100
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "gradient check: W: 0 entries checked"
    assert 2 <= len(lines) <= seconds / 10 + 1  # a line each ten seconds, where nothing can be overwritten
    assert all(line.startswith("gradient check: ") for line in lines)
    assert "\x1b" not in err
    assert "\r" not in err


def test_slow_check_on_a_terminal_overwrites_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, 1.0, terminal=True)
    check_gradients(clock.loss, PARAMETERS, RIGHT)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\n" not in err
    shown = err.split("\r\x1b[K")
    assert shown[0] == ""
    assert shown[-1] == ""  # the line is taken off again
    assert "gradient check: W: 0 entries checked" in shown
    assert "gradient check: b: 3 entries checked" in shown


def test_line_is_taken_off_the_terminal_when_the_loss_raises(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, 1.0, terminal=True)

    def failing(parameters: dict[str, Array]) -> float:
        if clock.now > 140:
            raise ZeroDivisionError
        return clock.loss(parameters)

    with pytest.raises(ZeroDivisionError):
        check_gradients(failing, PARAMETERS, RIGHT)
    assert capsys.readouterr().err.endswith("\r\x1b[K")


def test_progress_may_go_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch, 10.0, terminal=True)
    said: list[str] = []
    check_gradients(clock.loss, PARAMETERS, RIGHT, progress=said.append)
    assert "W: 11 entries checked" in said
    assert capsys.readouterr() == ("", "")
