"""Ctrl-C and SIGTERM where they must not strike in the middle of something."""

import signal
import threading

import pytest

from minift.signals import block_termination, defer_ctrl_c, on_signal

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture(autouse=True)
def as_before():
    """No test may leave a handler behind."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@BOTH
def test_the_first_one_is_noticed_and_ends_nothing(number):
    noticed = []
    with on_signal(number, noticed.append):
        signal.raise_signal(number)
    assert noticed == [number]


def test_a_second_ctrl_c_acts_as_usual():
    noticed = []
    with pytest.raises(KeyboardInterrupt), on_signal(signal.SIGINT, noticed.append):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert noticed == [signal.SIGINT]


def test_a_handler_of_the_users_own_is_left_alone():
    """Of Ctrl-C: a program that handles it does not want KeyboardInterrupt."""
    noticed, own = [], []
    before = signal.signal(signal.SIGINT, lambda *_: own.append("own"))
    try:
        with on_signal(signal.SIGINT, noticed.append):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (noticed, own) == ([], ["own"])


def test_other_threads_change_nothing():
    def work():
        with on_signal(signal.SIGINT, print), defer_ctrl_c():
            found.append(signal.getsignal(signal.SIGINT))

    found = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_a_ctrl_c_waits_for_the_end_of_a_block_whoever_handles_it():
    order = []
    with pytest.raises(KeyboardInterrupt), defer_ctrl_c():
        signal.raise_signal(signal.SIGINT)
        order.append("the block ended")
    with on_signal(signal.SIGINT, lambda number: order.append("noticed")), defer_ctrl_c():
        signal.raise_signal(signal.SIGINT)
        order.append("the block ended")
    assert order == ["the block ended", "the block ended", "noticed"]


def test_two_in_a_block_are_two():
    noticed = []
    with pytest.raises(KeyboardInterrupt), on_signal(signal.SIGINT, noticed.append), defer_ctrl_c():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert noticed == [signal.SIGINT]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="not POSIX")
def test_what_is_forked_in_a_block_starts_with_both_blocked():
    with block_termination():
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert {signal.SIGINT, signal.SIGTERM} <= blocked
    assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
