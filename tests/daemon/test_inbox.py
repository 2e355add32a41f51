# SPDX-License-Identifier: MIT
import os
import signal
import threading
import time

from storewarden.daemon.inbox import News, inbox


def test_news_is_given_once() -> None:
    with inbox() as box:
        box.tell(["a", "b"])
        box.tell(["b"], changed=True)
        box.tell(closed=["c.lock"])
        assert box.take() == News(frozenset({"a", "b"}), frozenset({"c.lock"}), changed=True)
        assert box.take() == News()


def test_a_wait_ends_with_the_first_news_of_another_thread() -> None:
    with inbox() as box:
        teller = threading.Timer(0.05, box.tell, kwargs={"lost": True})
        began = time.monotonic()
        teller.start()
        box.wait(30)
        assert time.monotonic() - began < 10
        teller.join()
        assert box.take().lost


def test_a_wait_ends_when_its_time_is_over() -> None:
    with inbox() as box:
        box.wait(-1)
        box.wait(0.01)
        assert box.take() == News()


def test_signals_come_in_as_news_and_do_nothing_else() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with inbox(signal.SIGUSR1, signal.SIGHUP) as box:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGHUP)
        box.wait(30)
        assert box.take().signals == {signal.SIGUSR1, signal.SIGHUP}
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_flood_of_news_neither_blocks_nor_loses_any() -> None:
    with inbox() as box:
        for number in range(100_000):
            box.tell([str(number)])
            if number % 10 == 0:
                box.take()
        box.tell(["last"])
        assert "last" in box.take().names


def test_a_flood_of_signals_does_not_block() -> None:
    with inbox(signal.SIGUSR1) as box:
        for _ in range(70_000):  # more than a pipe holds
            signal.raise_signal(signal.SIGUSR1)
        box.tell(["a"])
        assert box.take() == News(frozenset({"a"}), signals=frozenset({signal.SIGUSR1}))
