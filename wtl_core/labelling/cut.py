"""An operating point of the latest ranking as a table of picks. Reads only, computes nothing, freezes nothing."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.pool import live_pool
from wtl_core.recipe.operating_point import OperatingPoint
from wtl_core.selection.control_draw import random_order
from wtl_core.workspace import commits, ledger, selections, sides, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.sides import SIDES, TRAIN
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
    "why",
)
COLUMNS = (*_OF_RANKING, "replaces", "split", "near_group")


@dataclass(frozen=True)
class Picks:
    """The picks at an operating point.

    Attributes:
        table: Columns `COLUMNS`, first to label first. `replaces` are the near-duplicates and twins that rank behind a
            pick because of it, as the encoder sees them. `near_group` is the smallest sample id among the images that
            look almost the same by their perceptual hashes, null for an image that is alone. `split` is the side of
            each, null where the pool is not split.
        left_out: Images that were labelled or skipped since the ranking was made, and are not in the table for that.
        selection: Key of the selection that they are from.
        held_out: Images that were held out from training since, by a split, and are not in the table for that.
        ranks: How many first ranks the picks, and the images left out among them, take up.
    """

    table: pl.DataFrame
    left_out: int
    held_out: int = 0
    selection: str = ""
    ranks: int = 0

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table as dictionaries."""
        return self.table.to_dicts()


def run(store: Store, at: str, *, split: str = TRAIN) -> Picks:
    """The picks of the latest ranking up to the operating point `at`, or as many images of another side of the split.

    `at` counts the ranking without the images that were labelled or skipped since; where nothing is left to label there
    are no picks.

    Raises:
        ConfigError: `at` is no operating point, or the workspace has no ranking yet, or no split.

    Cost: of the ranking the picks are read, and one or two columns of the rest; of the pool, ids and hashes.
    """
    point = parsed(at)
    last, ranked = latest_ranking(store, split=split)
    settled = pl.Series(ledger.settled_ids(ledger.read(store)), dtype=pl.String)
    is_settled = pl.col("sample_id").is_in(settled.implode())
    total, left_out = (int(rows.select(pl.len()).collect().item()) for rows in (ranked, ranked.filter(is_settled)))
    count = point.within(total - left_out) if total > left_out else 0  # all settled: no point fits
    # The first of the open ones are among as many first rows and as many more as are settled: only these are read.
    picks = ranked.head(count + len(settled)).filter(~is_settled).head(count).collect()
    table = described(store, last, ranked.filter(~is_settled), picks)
    ranks = int(table["rank"][-1]) + 1 if table.height else 0
    held_out = last.counts.ranked - total if split == TRAIN else 0
    return Picks(table, left_out=left_out, held_out=held_out, selection=last.selection, ranks=ranks)


def parsed(at: str) -> OperatingPoint:
    """The operating point that a text means. Raises ConfigError if it means none."""
    try:
        return OperatingPoint.parse(at)
    except ValueError as error:
        raise ConfigError(f"{at!r}: {error}") from error


def latest_ranking(store: Store, *, split: str = TRAIN) -> tuple[Commit, pl.LazyFrame]:
    """The last refresh and its ranking, rank 0 first, unread; without what the split holds out from training.

    Images of another side of the split are not ranked: they come in a random order that depends on their ids alone, so
    that any first ones of them are a uniform random draw of the side. Only `rank`, `sample_id` and `uri` are not null.

    Raises:
        ConfigError: the workspace has no ranking yet, or another side than training is asked for and there is no split.
    """
    if split not in SIDES:
        raise ConfigError(f"expected a side of the split out of {', '.join(SIDES)}, found {split!r}")
    last, entries = latest_refresh(store), ledger.read(store)
    ranked = selections.scan_ranking(store, last.selection)
    if split == TRAIN:
        is_held_out = pl.col("sample_id").is_in(sides.held_out(store, entries).implode())
        has_any = bool(ranked.filter(is_held_out).select(pl.len()).collect().item())  # until the next refresh
        return last, ranked.filter(~is_held_out) if has_any else ranked
    if sides.request(entries) is None:
        told = f"expected a split to take {split} images from, found none; `wtl split` makes it"
        raise ConfigError(f"{store.root}: {told}")
    own, snapshot = sides.read(store, entries).filter(split=split), snapshots.read_snapshot(store, last.listing)
    pixels = live_pool.load_locations(store, snapshot, columns=["sample_id", "pixel_digest"])
    offered = own.filter(~pl.col("sample_id").is_in(ledger.skipped_in(pixels, entries)))["sample_id"]
    first = live_pool.first_uris(store, snapshot, offered)
    order = pl.DataFrame({"sample_id": random_order(first["sample_id"].to_list())}, schema={"sample_id": pl.String})
    listed = order.join(first.rename({"first_uri": "uri"}), on="sample_id", how="left", maintain_order="left")
    listed = listed.with_row_index("rank").cast({"rank": pl.Int64})
    return last, pl.concat([ranked.head(0), listed.lazy()], how="diagonal")


def latest_refresh(store: Store) -> Commit:
    """The last refresh. Raises ConfigError if there is none yet."""
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a ranking, found none yet; `wtl run SOURCE` makes one")
    return last


def described(store: Store, last: Commit, ranking: pl.LazyFrame, picks: pl.DataFrame) -> pl.DataFrame:
    """Rows of a ranking in `COLUMNS`, in their order, with the near-duplicates that they stand for, and their side."""
    is_behind = pl.col("replaced_by").is_in(picks["sample_id"].implode())
    behind = ranking.filter(is_behind).select("sample_id", "replaced_by").collect()
    replaced = behind.group_by(pick="replaced_by", maintain_order=True).agg(replaces="sample_id")
    snapshot, count = snapshots.read_snapshot(store, last.listing), last.counts.samples + last.counts.duplicates
    hashes = live_pool.load_locations(store, snapshot, columns=["sample_id", "phash"], count=count)
    table = picks.join(replaced, left_on="sample_id", right_on="pick", how="left", maintain_order="left").join(
        live_pool.near_groups(hashes), on="sample_id", how="left", maintain_order="left"
    )
    table = table.join(sides.read(store, ledger.read(store)), on="sample_id", how="left", maintain_order="left")
    return table.with_columns(pl.col("replaces").fill_null(pl.lit([], pl.List(pl.String)))).select(COLUMNS)
