"""Detects SIGTERM even if a library replaces the signal handler."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any


class Termination:
    """Whether this process has received SIGTERM since the context was entered.

    Python writes the number of each signal that has a handler to the wakeup descriptor before it
    runs the handler. A library that replaces the handler therefore cannot hide a signal.
    """

    def __init__(self) -> None:
        self._received = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Termination:
        self._handler: Any = signal.signal(signal.SIGTERM, self._on_signal)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # Forked data loader workers share the descriptor, but their signals must be ignored.
        os.register_at_fork(after_in_child=self._let_go)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        # Read pending signals, so that `received` stays correct after the context exits.
        _ = self.received
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGTERM, self._handler)
        self._reader.close()
        self._writer.close()

    def end_at_once(self) -> None:
        """Lets SIGTERM end this process until `take_note` is called."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def take_note(self) -> None:
        """Records SIGTERM from now on instead of ending the process."""
        signal.signal(signal.SIGTERM, self._on_signal)

    @property
    def received(self) -> bool:
        """Whether SIGTERM has arrived."""
        if self._received or self._reader.fileno() < 0:
            return self._received
        with suppress(BlockingIOError):
            self._received = signal.SIGTERM in self._reader.recv(4096)
        # Without a handler, Python does not write to the wakeup descriptor.
        if signal.getsignal(signal.SIGTERM) in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGTERM, self._on_signal)
        return self._received

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._received = True

    def _let_go(self) -> None:
        if self._writer.fileno() >= 0:
            signal.set_wakeup_fd(-1)
