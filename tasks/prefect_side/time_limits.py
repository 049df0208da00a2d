"""The time limit of a flow run: one that is still at work then fails, and says in which stage it was.

The limit is an alarm in the main thread, where the stages are called: it interrupts Python code and system calls. Where
code hangs in an extension or in another thread, the process is ended `GRACE_SECONDS` later, with the stacks of all its
threads in the worker's log. Either way the workspace is as sound as after a kill.

Not Prefect's `timeout_seconds`: that is fixed where a flow is defined, while this limit is a deployment's parameter,
and its alarm comes once, so that a stage which hangs while it ends, or below Python, would hang for ever.
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
"""Time until the alarm is repeated: a stage may also hang while it ends, for example while it waits for its workers."""
GRACE_SECONDS = 120.0
"""Time for a stage to end by itself, which six alarms fall into, before the process is ended."""
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class _Overtime(BaseException):
    """Raised by the alarm. Not an Exception, so that no handler takes it for a broken image or a failing store."""


def limited(work: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Decorate a flow's function so that it runs for at most the hours of its argument `time_limit_hours`.

    It raises TimeLimitError then. 0 is no limit, nor is there one in a thread other than the main one.
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
        except _Overtime as overtime:  # the end of the process stays armed: a thread of the run may be what hangs
            raise _limit_error(hours).with_traceback(overtime.__traceback__) from None
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


def _limit_error(hours: float) -> TimeLimitError:
    return TimeLimitError(
        f"expected the run to end within time_limit_hours = {hours:g}, found it still at work; see whether a store or "
        "a mount hangs, or raise the limit, then run again: it goes on from what is finished"
    )
