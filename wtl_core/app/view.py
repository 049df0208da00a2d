"""One refresh as the app holds it in memory: its samples as rows, sorted by sample id, and its ranking as rows.

Some 600 bytes a sample. Nothing here changes once it is loaded: another refresh is another view. Reads only.
"""

import hashlib
import json
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from wtl_core.errors import InputError
from wtl_core.pool import live_pool
from wtl_core.recipe.filters import parse_filter
from wtl_core.report import columns, positions
from wtl_core.workspace import commits, selections, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

NONE = columns.NONE
_READ = (
    "sample_id", "uri", "row", "byte_length", "format", "width", "height", "is_first_of_several", "taken_at", "phash",
    "sharpness", "brightness", "contrast", "entropy", "metadata",
)  # fmt: skip
_REPEATED = ("source", "part", "format")
"""Columns of few values, kept once each."""
_SAMPLES_FOR_KEYS = 200
"""Of which the keys of the metadata are read: the samples of a source bring the same ones."""


@dataclass(frozen=True)
class Column:
    """What the page reads as a typed array: `kind` is its JavaScript name, `digest` that of its bytes."""

    kind: str
    array: np.ndarray
    digest: str


class View:
    """A refresh.

    Attributes:
        commit: Its record.
        former: The record of the refresh before; None with the first one, or where it is gone.
        samples: One row a sample, sorted by `sample_id`, with the columns that are asked for.
        ranked: (R,) int64, the row of the sample of each rank.
        receipt: What the ranking was made from.
    """

    def __init__(self, store: Store, commit: Commit) -> None:
        self.store, self.commit = store, commit
        newest = commits.readable(store, 2)
        self.former = next((old for old in newest if old.number < commit.number), None)
        self.samples = _samples(store, commit)
        self._keys = _keys_of(self.samples["sample_id"])
        ranking = selections.read_ranking(store, commit.selection)
        self.ranked = self._rows_of(ranking["sample_id"])
        parents = self._rows_of(ranking["nearest_earlier"])
        self._parents = parents
        self.replaced_by = self._rows_of(ranking["replaced_by"])
        self.ranking = ranking.select("gain", "radius", "stands_for", "why")
        self.rank = np.full(self.samples.height, NONE, np.uint32)
        self.rank[self.ranked[self.ranked >= 0]] = np.flatnonzero(self.ranked >= 0)
        self.receipt = selections.read_receipt(store, commit.selection)
        self._lock = threading.Lock()
        self._columns: dict[str, Column] | None = None

    @property
    def picks(self) -> int:
        """How many first ranks the recipe's budget picks."""
        return self.commit.counts.picks

    def row_of(self, sample_id: str) -> int:
        """The row of a sample; -1 if it is not in the pool."""
        key = int(sample_id[:15], 16)
        start, stop = np.searchsorted(self._keys, [key, key + 1]).tolist()
        return next((row for row in range(start, stop) if self.samples["sample_id"][row] == sample_id), -1)

    def rows_of(self, ids: "pl.Series | list[str]") -> np.ndarray:
        """The rows of samples, (n,) int64, those that are in the pool alone."""
        found = self._rows_of(pl.Series(ids, dtype=pl.String))
        return found[found >= 0]

    def ids(self, rows: np.ndarray) -> list[str]:
        """The sample ids of rows."""
        return self.samples["sample_id"].gather(rows).to_list()

    def parent(self, row: int) -> int:
        """The row of the nearest earlier pick of a row; -1 if there is none."""
        return -1 if self.rank[row] == NONE else int(self._parents[self.rank[row]])

    def covered_by(self, row: int) -> np.ndarray:
        """Rows whose nearest earlier pick is this one, those first that the ranking wants last."""
        order, parents = self._children
        start, stop = np.searchsorted(parents, [row, row + 1])
        return np.asarray(self.ranked[order[start:stop]][::-1])

    @cached_property
    def _children(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self._parents, kind="stable")
        return order, self._parents[order]

    @cached_property
    def near_group(self) -> np.ndarray:
        """(N,) int64: of each row the first row of its group of near-duplicates; -1 for one that is alone."""
        groups = live_pool.near_groups(self.samples.select("sample_id", "phash"))
        found = np.full(self.samples.height, -1, np.int64)
        found[self._rows_of(groups["sample_id"])] = self._rows_of(groups["near_group"])
        return found

    @cached_property
    def near_order(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The groups of near-duplicates, the largest first: rows group by group, and where each starts and stops."""
        rows = np.flatnonzero(self.near_group >= 0)
        rows = rows[np.argsort(self.near_group[rows], kind="stable")]
        _, starts, sizes = np.unique(self.near_group[rows], return_index=True, return_counts=True)
        order = np.argsort(-sizes, kind="stable")
        return rows, starts[order], (starts + sizes)[order]

    def near_of(self, row: int) -> np.ndarray:
        """The other rows of its group of near-duplicates."""
        if self.near_group[row] < 0:
            return np.zeros(0, np.int64)
        found = np.flatnonzero(self.near_group == self.near_group[row])
        return np.asarray(found[found != row])

    @cached_property
    def arrived(self) -> np.ndarray:
        """(N,) bool: what the pool of the refresh before had not; nothing with the first one, where all is new."""
        if self.former is None or not self.store.exists(self.former.listing):
            return np.zeros(self.samples.height, bool)
        known = live_pool.sample_ids(self.store, snapshots.read_snapshot(self.store, self.former.listing))
        is_new = np.ones(self.samples.height, bool)
        is_new[self.rows_of(known)] = False
        return is_new

    @cached_property
    def groupings(self) -> list[columns.Grouping]:
        """Ways to divide the pool, as the report has them; labels aside, which change."""
        told = self.samples.with_columns(pl.col(_REPEATED).cast(pl.String))
        return columns.groupings(told, group_by=self.commit.recipe.selection.group_by, classes={})

    @cached_property
    def metadata_keys(self) -> list[str]:
        """The keys of the metadata of the first `_SAMPLES_FOR_KEYS` samples that have any, sorted."""
        texts = self.samples["metadata"].drop_nulls().head(_SAMPLES_FOR_KEYS)
        return sorted({key for text in texts for key in json.loads(text)})

    def holds(self, condition: str) -> np.ndarray:
        """(N,) bool: whether a condition holds, as the recipe's filters are written.

        Raises:
            InputError: it is no condition, or names a column that the app does not hold.
        """
        try:
            parsed = parse_filter(condition, keys=self.metadata_keys)
        except ValueError as error:
            raise InputError(str(error)) from error
        needed = {name if "." not in name else "metadata" for name, _ in parsed.columns}
        if missing := needed - {*self.samples.columns}:
            raise InputError(f"filter {condition!r}: {', '.join(missing)} cannot be asked for here; uri can")
        chosen = self.samples.select(
            pl.col(name).cast(pl.String) if name in _REPEATED else pl.col(name) for name in needed
        )
        return parsed.holds_for(chosen).to_numpy()

    def columns(self) -> dict[str, Column]:
        """The columns of the map, made once: places, ranks, near-duplicates, measures as levels, groups, ids."""
        with self._lock:
            if self._columns is None:
                self._columns = {name: _column(array) for name, array in self._arrays().items()}
            return self._columns

    @cached_property
    def levels(self) -> dict[str, list[float]]:
        """Of each measure the values that its levels stand for."""
        return {name: columns.levels(self.samples[name].to_numpy())[1] for name in columns.MEASURES}

    @cached_property
    def has_places(self) -> bool:
        """Whether a refresh has placed the images on the map."""
        return bool(self._places["x"].is_not_null().any())

    @cached_property
    def _places(self) -> pl.DataFrame:
        return positions.read(self.store, self.commit.encoder, self.samples["sample_id"].to_list())

    def _arrays(self) -> dict[str, np.ndarray]:
        x, y = columns.places(self._places)
        stands = np.zeros(self.samples.height, np.uint32)
        stands[self.ranked] = self.ranking["stands_for"].to_numpy()
        arrays = {
            "x": x,
            "y": y,
            "rank": self.rank,
            "stands": stands,
            "near": (self.near_group + 1).astype(np.uint32),
            "arrived": self.arrived.astype(np.uint8),
            "id": np.frombuffer(bytes.fromhex("".join(self.samples["sample_id"])), np.uint8),
        }
        for name in columns.MEASURES:
            arrays[name] = columns.levels(self.samples[name].to_numpy())[0]
        arrays |= {f"group{place}": group.codes for place, group in enumerate(self.groupings)}
        return arrays

    def _rows_of(self, ids: pl.Series) -> np.ndarray:
        """(n,) int64: the row of each id, -1 where it is null or not in the pool.

        Cost: a search for each id; a join would read all ids of the pool each time.
        """
        if not len(ids) or not len(self._keys):
            return np.full(len(ids), -1, np.int64)
        keys = _keys_of(ids.fill_null(""))
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        is_same = (self.samples["sample_id"].gather(places) == ids.fill_null("")).to_numpy()
        rows = np.where(is_same, places, -1)
        for place in np.flatnonzero(~is_same & (self._keys[places] == keys)):  # another id with the same beginning
            rows[place] = self.row_of(ids[int(place)])
        return rows


def _samples(store: Store, commit: Commit) -> pl.DataFrame:
    snapshot = snapshots.read_snapshot(store, commit.listing)
    places = live_pool.load_locations(store, snapshot, columns=_READ).drop("object_uri")
    places = places.with_columns(pl.col(_REPEATED).cast(pl.Categorical)).sort("sample_id", "uri")
    repeated = places["sample_id"].n_unique() < places.height
    if repeated:  # as in `live_pool.load`: the smallest location, and the metadata of the smallest that has any
        places = places.with_columns(pl.col("metadata").drop_nulls().first().over("sample_id"))
        places = places.unique("sample_id", keep="first", maintain_order=True)
    return places


def _keys_of(ids: pl.Series) -> np.ndarray:
    """(n,) int64: the first 60 bits of each id, which are in the order of the ids; -1 for what is no id."""
    return ids.str.slice(0, 15).str.to_integer(base=16, strict=False).fill_null(-1).to_numpy()


def _column(array: np.ndarray) -> Column:
    kinds: dict[Any, str] = {np.uint8: "Uint8Array", np.uint16: "Uint16Array", np.uint32: "Uint32Array"}
    plain = np.ascontiguousarray(array)
    return Column(kinds[plain.dtype.type], plain, hashlib.sha256(plain.data).hexdigest()[:32])
