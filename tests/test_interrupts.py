"""Ctrl-C and SIGTERM: the first is noted, the second ends at once, and afterwards all is as it was."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from threading import Thread

import pytest

from convlstm.interrupts import SIGNALS, interruptible


class Ended(BaseException):
    """What the handlers before ours do."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise Ended(number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is end  # given back, whatever happened
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_is_noted(number: signal.Signals) -> None:
    with interruptible() as interrupted:
        assert interrupted() is None
        signal.raise_signal(number)
        assert interrupted() is number
    assert interrupted() is number


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize("first", SIGNALS)
def test_the_second_ends_at_once(first: signal.Signals, second: signal.Signals) -> None:
    with interruptible() as interrupted:
        signal.raise_signal(first)
        with pytest.raises(Ended):
            signal.raise_signal(second)
        assert interrupted() is first


@pytest.mark.parametrize("number", SIGNALS)
def test_after_it_signals_do_what_they_did(number: signal.Signals) -> None:
    with interruptible():
        pass
    with pytest.raises(Ended):
        signal.raise_signal(number)


def test_an_error_inside_gives_them_back() -> None:
    with pytest.raises(KeyError), interruptible():
        raise KeyError


def test_a_signal_that_is_ignored_stays_so_and_the_other_is_noted() -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert interrupted() is None
        signal.raise_signal(signal.SIGTERM)
        assert interrupted() is signal.SIGTERM
    assert signal.signal(signal.SIGINT, handler) is signal.SIG_IGN


def test_off_the_main_thread_nothing_is_noted() -> None:
    found: list[object] = []

    def use() -> None:
        with interruptible() as interrupted:
            found.append(interrupted())

    thread = Thread(target=use)
    thread.start()
    thread.join()
    assert found == [None]
