import os
import signal

import pytest

from endpoint_operator.local.stopping import stop_request

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_before_and_after_models_run_the_first_signal_interrupts(number):
    with stop_request() as stop:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert stop.event.is_set()
    with stop_request() as stop:
        with stop.graceful():
            """The models run, and end by themselves."""
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_while_models_run_the_first_signal_lets_them_finish_and_the_next_does_not(number):
    with stop_request() as stop, stop.graceful() as event:
        os.kill(os.getpid(), number)
        assert event.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_afterwards_signals_are_what_they_were():
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_request():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
