"""Which failures of a task are worth another try."""

import pytest
from prefect.states import Failed

from tasks.prefect_side.retries import is_transient
from wtl_core.errors import BusyError, ConfigError, LostWorkersError, TransientError, WtlError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransientError("the store failed"), True),
        (LostWorkersError("three were lost over the same piece"), False),
        (BusyError("another run"), False),
        (ConfigError("a typo"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: WtlError, expected: bool) -> None:
    assert is_transient(None, None, Failed(data=error)) is expected
