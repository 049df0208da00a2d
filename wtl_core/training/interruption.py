"""Ctrl-C between two steps of a training and not within one, so that the weights as they are can be kept."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C while the block lasts; a second one raises KeyboardInterrupt as usual.

    Yields a function that says whether Ctrl-C was pressed; whoever asks raises KeyboardInterrupt. Nothing is held back
    outside the main thread, which alone gets signals, and where another handler than Python's own is set.
    """
    pressed = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
