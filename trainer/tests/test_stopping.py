"""The session handles SIGTERM: a stopped run has not succeeded, whatever a library does."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest
from conftest import MakeRun

import session as sessions
from run import Terminated
from signals import Termination


def tell() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("installed", ["nothing", "a handler", "ignored", "an exit"])
def test_a_signal_is_noticed_whatever_handler_is_installed(installed: str) -> None:
    def leave(*_: Any) -> None:
        sys.exit(0)

    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination:
        assert not termination.received
        if installed == "a handler":
            signal.signal(signal.SIGTERM, lambda *_: None)
        if installed == "ignored":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            assert not termination.received
        if installed == "an exit":
            signal.signal(signal.SIGTERM, leave)
            with pytest.raises(SystemExit):
                tell()
        else:
            tell()
        assert termination.received
    assert termination.received
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_of_a_forked_worker_is_not_ours() -> None:
    with Termination() as termination:
        child = os.fork()
        if child == 0:
            tell()
            os._exit(0)
        os.waitpid(child, 0)
        assert not termination.received


@pytest.mark.parametrize("ending", ["returns", "exits"])
def test_a_runner_that_leaves_its_loop_for_a_signal_has_not_succeeded(
    make_run: MakeRun, ending: str
) -> None:
    with pytest.raises(Terminated), sessions.opened(make_run()):
        tell()
        if ending == "exits":
            sys.exit(0)
