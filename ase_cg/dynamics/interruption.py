"""Ending cleanly when asked to: Ctrl-C, and the signal that batch systems and `kill` send."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A simulation was asked to end, has written a checkpoint, and can be continued.

    Parameters
    ----------
    message : str
        How to go on.
    signal_number : int
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopRequest:
    """Whether one was asked to end, and by which signal."""

    signal_number: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note the first SIGINT or SIGTERM instead of obeying it; a second one is obeyed.

    Signals reach the main thread only; in another one nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    found = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    before = {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}  # as after nohup

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal_number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
