"""A scheduler's notice is the run's while it trains, and then again whose it was."""

import os
import signal

import pytest

from glscl_jax.runtime.preemption import Preemption


def own(number, frame):
    """The handler of a notebook around a run."""


@pytest.fixture(autouse=True)
def _around():
    before = signal.signal(signal.SIGTERM, own)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_signal_is_the_run_s_and_then_again_whose_it_was():
    with Preemption() as preemption:
        assert not preemption.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached(2)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # A second one ends it.
    assert signal.getsignal(signal.SIGTERM) is own


def test_it_is_given_back_by_a_run_that_fails():
    with pytest.raises(RuntimeError), Preemption():
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is own
