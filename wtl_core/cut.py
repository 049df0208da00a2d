"""An operating point of the latest ranking as a table of picks. Reads only, computes nothing, freezes nothing."""

import csv
import io
from typing import Any

from wtl_core import commits, operating_point, selections
from wtl_core.errors import ConfigError
from wtl_core.storage import Store

COLUMNS = ("rank", "sample_id", "uri", "gain", "coverage", "radius", "duplicate_of", "stands_for", "nearest_earlier")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def run(store: Store, at: str) -> list[dict[str, Any]]:
    """The picks of the latest ranking up to the operating point `at`, first to label first.

    Raises:
        ConfigError: `at` is no operating point, or the workspace has no ranking yet.
    """
    operating_point.check_point(at)
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a ranking, found none yet; `wtl run SOURCE` makes one")
    ranking = selections.read_ranking(store, last.selection)
    return ranking.head(operating_point.count_at(at, ranking.height)).select(COLUMNS).to_dicts()


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The picks as CSV. Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
