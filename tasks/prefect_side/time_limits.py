"""How long a run may take: one that is still at work at its limit fails, and says where it stood.

The limit is an alarm in the main thread, where a run's stages are called, so it reaches Python code and system calls.
Code that hangs below Python, or in another thread, is not reached: then the whole process is ended, `GRACE_SECONDS`
later, with the stacks of all its threads in the worker's log. Either way the workspace is as sound as after a kill.
"""

import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from inspect import signature
from types import FrameType
from typing import ParamSpec, TypeVar

from wtl_core.errors import TimeLimitError

AGAIN_SECONDS = 20.0
"""The alarm comes again after that: what a stage does on its way out, such as waiting for its workers, may hang too."""
GRACE_SECONDS = 120.0
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class _Overtime(BaseException):
    """Raised by the alarm. No Exception, so that nobody takes it for a broken image or a store in trouble."""


def limited(work: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """A flow's function that runs for its argument `time_limit_hours` at most; 0 for as long as it takes.

    The function then raises TimeLimitError. In a thread other than the main one there is no limit.
    """

    @wraps(work)
    def _within_limit(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        bound = signature(work).bind(*args, **kwargs)
        bound.apply_defaults()
        hours = float(bound.arguments["time_limit_hours"])
        if not hours or threading.current_thread() is not threading.main_thread():
            return work(*args, **kwargs)
        previous = signal.signal(signal.SIGALRM, _interrupt)
        try:
            try:
                _arm(hours * 3600)
                result = work(*args, **kwargs)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _Overtime as overtime:  # the hard end stays armed: threads of the run may be what hangs
            raise _told(hours).with_traceback(overtime.__traceback__) from None
        except BaseException:
            faulthandler.cancel_dump_traceback_later()
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        faulthandler.cancel_dump_traceback_later()
        return result

    return _within_limit


def _arm(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    if sys.__stderr__ is not None:
        with suppress(OSError, ValueError):  # a stream without a file
            faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=sys.__stderr__)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _Overtime


def _told(hours: float) -> TimeLimitError:
    return TimeLimitError(
        f"expected the run to end within time_limit_hours = {hours:g}, found it still at work; see whether a store or "
        "a mount hangs, or raise the limit, then run again: it goes on from what is finished"
    )
