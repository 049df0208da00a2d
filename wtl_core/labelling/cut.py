"""An operating point of the latest ranking as a table of picks. Reads only, computes nothing, freezes nothing."""

import csv
import io
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.pool import live_pool
from wtl_core.recipe.operating_point import OperatingPoint
from wtl_core.workspace import commits, ledger, selections, snapshots
from wtl_core.workspace.storage import Store

_OF_RANKING = (
    "rank",
    "sample_id",
    "uri",
    "gain",
    "coverage",
    "radius",
    "duplicate_of",
    "stands_for",
    "nearest_earlier",
)
COLUMNS = (*_OF_RANKING, "replaces", "near_group")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def run(store: Store, at: str) -> tuple[list[dict[str, Any]], int]:
    """The picks of the latest ranking up to the operating point `at`, first to label first, and how many were left out.

    Left out are images that were labelled since the ranking was made; `at` counts the ranking without them, and where
    nothing is left to label there are no picks. `replaces` are the near-duplicates and twins that rank behind a pick
    because of it, as the encoder sees them. `near_group` is the smallest sample id among the images that look almost
    the same by their perceptual hashes, None for an image that is alone.

    Raises:
        ConfigError: `at` is no operating point, or the workspace has no ranking yet.
    """
    try:
        point = OperatingPoint.parse(at)
    except ValueError as error:
        raise ConfigError(f"{at!r}: {error}") from error
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a ranking, found none yet; `wtl run SOURCE` makes one")
    ranked = selections.read_ranking(store, last.selection)
    labelled = ledger.sample_ids(ledger.read(store), "labelled")
    ranking = ranked.filter(~pl.col("sample_id").is_in(labelled))
    if ranking.is_empty():  # everything is labelled, so that any operating point is empty
        return [], ranked.height
    picks = ranking.head(point.within(ranking.height))
    replaced = ranking.group_by(pick="replaced_by", maintain_order=True).agg(replaces="sample_id")
    hashes = live_pool.load_locations(
        store, snapshots.read_snapshot(store, last.listing), columns=["sample_id", "phash"]
    )
    table = picks.join(replaced, left_on="sample_id", right_on="pick", how="left", maintain_order="left").join(
        live_pool.near_groups(hashes), on="sample_id", how="left", maintain_order="left"
    )
    rows = table.with_columns(pl.col("replaces").fill_null([])).select(COLUMNS).to_dicts()
    return rows, ranked.height - ranking.height


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The picks as CSV, lists as words. Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
