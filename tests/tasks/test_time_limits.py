"""A run that hangs ends at its limit, by whatever it hangs."""

import faulthandler
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator

import pytest

from tasks.prefect_side import time_limits
from tasks.prefect_side.time_limits import limited
from wtl_core.errors import TimeLimitError

HOURS = 0.3 / 3600
HANGING_THREAD = """
import threading, time
from tasks.prefect_side import time_limits
time_limits.GRACE_SECONDS = 1.0

@time_limits.limited
def work(time_limit_hours):
    threading.Thread(target=time.sleep, args=(60,)).start()
    time.sleep(60)

work(time_limit_hours=0.3 / 3600)
"""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faulthandler.cancel_dump_traceback_later()


@limited
def work(seconds: float, time_limit_hours: float = HOURS) -> str:
    stand(seconds)
    return "done"


def stand(seconds: float) -> None:
    try:
        time.sleep(seconds)
    except Exception:  # noqa: BLE001, as what takes every fault for a broken image
        return


def test_a_run_at_work_at_its_limit_fails_and_says_where_it_stood() -> None:
    with pytest.raises(TimeLimitError, match=r"time_limit_hours = 8\.33333e-05") as failed:
        work(30)
    assert "stand" in [frame.name for frame in traceback.extract_tb(failed.value.__traceback__)]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_stage_that_hangs_on_its_way_out_is_interrupted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @limited
    def waits_for_its_workers(time_limit_hours: float = HOURS) -> None:
        try:
            time.sleep(30)
        finally:
            time.sleep(30)

    monkeypatch.setattr(time_limits, "AGAIN_SECONDS", 0.2)
    with pytest.raises(TimeLimitError):
        waits_for_its_workers()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_run_that_ends_in_time_is_left_alone() -> None:
    assert work(0) == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert work(0.5, time_limit_hours=0) == "done"


def test_what_no_alarm_reaches_is_ended_with_its_process() -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGING_THREAD], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "TimeLimitError" in done.stderr
    assert "Timeout" in done.stderr
    assert time.monotonic() - started < 30
