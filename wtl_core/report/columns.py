"""What the page knows of every image, as columns of bytes: place on the map, rank, quality, groups, preview, name.

Rows are the pool's images in the order of their names, which so compress to a sixth. Browsers read them as typed
arrays.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from wtl_core.selection import columns as steering

NONE = 0xFFFFFFFF
"""In a column of ranks: there is none."""
LABELLED, ARRIVED, FILTERED, REPEAT, SKIPPED, OUT = 1, 2, 4, 8, 16, 32
"""Bits of the column `flags`."""
MEASURES = ("sharpness", "brightness", "contrast")
_MOST_VALUES, _MOST_GROUPINGS, _MOST_RANGES = 40, 10, 5
"""Values of a grouping that are shown one by one (the others are summed up as the rest), groupings, and ranges of a
key with numbers of many values."""
_NO_VALUE = "(none)"
_EDGE = 0.02
"""Of the map's sides stays empty."""


@dataclass(frozen=True)
class Grouping:
    """One way to divide the pool: `codes` (N,) uint8 are places in `values`, the most frequent first."""

    name: str
    values: list[str]
    codes: np.ndarray

    def described(self) -> dict[str, Any]:
        """What the page needs to read it."""
        return {"name": self.name, "values": self.values}


def encoded(array: np.ndarray) -> str:
    """An array's bytes, little-endian, deflated, in base64."""
    plain = np.ascontiguousarray(array)
    return base64.b64encode(
        zlib.compress(plain.astype(plain.dtype.newbyteorder("<"), copy=False).tobytes(), 6)
    ).decode()


def encoded_text(lines: Sequence[str]) -> str:
    """Lines of text, deflated, in base64; a line break within one is shown as a space."""
    text = "\n".join(line.replace("\n", " ").replace("\r", " ") for line in lines)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 6)).decode()


def places(positions: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Positions as two columns, (N,) uint16 each, with one scale for both; the middle where there is none."""
    points = positions.select("x", "y").to_numpy().astype(np.float64)
    is_known = np.isfinite(points).all(1)
    known = points[is_known]
    if not len(known):
        return (np.full(len(points), 32768, np.uint16),) * 2
    low, high = known.min(0), known.max(0)
    size = max(float((high - low).max()), 1e-9)
    scaled = 0.5 + (points - (low + high) / 2) / size * (1 - 2 * _EDGE)
    scaled[~is_known] = 0.5
    whole = np.clip(np.round(scaled * 65535), 0, 65535).astype(np.uint16)
    return whole[:, 0], whole[:, 1]


def ranks(samples: pl.DataFrame, ranking: pl.DataFrame) -> dict[str, np.ndarray]:
    """Of each sample its `rank`, that of its nearest earlier pick (`parent`), and what it `stands_for`.

    (N,) uint32 each; `NONE` where a sample is not ranked, or has no earlier pick.
    """
    rank_of = ranking.select(nearest_earlier="sample_id", parent="rank")
    known = ranking.join(rank_of, on="nearest_earlier", how="left", maintain_order="left")
    joined = samples.select("sample_id").join(
        known.select("sample_id", "rank", "parent", "stands_for", is_repeat=pl.col("replaced_by").is_not_null()),
        on="sample_id",
        how="left",
        maintain_order="left",
    )
    return {
        "rank": joined["rank"].fill_null(NONE).to_numpy().astype(np.uint32),
        "parent": joined["parent"].fill_null(NONE).to_numpy().astype(np.uint32),
        "stands": joined["stands_for"].fill_null(0).to_numpy().astype(np.uint32),
        "repeat": joined["is_repeat"].fill_null(value=False).to_numpy(),
    }


def levels(values: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """A measure as places among 255 quantile ranges, (N,) uint8, and the value in the middle of each."""
    if not len(values):
        return np.zeros(0, np.uint8), []
    table = np.quantile(values.astype(np.float64), np.linspace(0, 1, 511))
    codes = np.searchsorted(table[2:-1:2], values, side="right").astype(np.uint8)
    return codes, [float(f"{value:.4g}") for value in table[1::2]]


def near_codes(samples: pl.DataFrame, groups: pl.DataFrame) -> np.ndarray:
    """A number for each group of near-duplicates, from 1 on, (N,) uint32; 0 for samples that are alone."""
    joined = samples.select("sample_id").join(groups, on="sample_id", how="left", maintain_order="left")
    return joined["near_group"].rank("dense").fill_null(0).to_numpy().astype(np.uint32)


def groupings(samples: pl.DataFrame, *, group_by: str | None, classes: dict[str, str]) -> list[Grouping]:
    """The ways in which the pool can be divided: the recipe's groups first, then classes, sources, days and metadata.

    Columns with one value, or with a value of its own for most images, divide nothing and are left out.

    Args:
        samples: The pool.
        group_by: The recipe's column.
        classes: The class of labelled samples, and of others what it probably is, by id.
    """
    texts: dict[str, list[str]] = {}
    if group_by is not None:
        texts[group_by] = steering.groups_of(samples, group_by)
    if classes:
        texts["class, known or likely"] = [classes.get(sample_id, "(not known)") for sample_id in samples["sample_id"]]
    texts.setdefault("source", samples["source"].to_list())
    if samples["taken_at"].null_count() < samples.height:
        texts.setdefault("day", [time[:10] if time else _NO_VALUE for time in samples["taken_at"]])
    texts.setdefault("format", samples["format"].to_list())
    for name, values in _metadata(samples).items():
        texts.setdefault(name, values)
    found = [_grouping(name, values, is_kept=name == group_by) for name, values in texts.items()]
    return [grouping for grouping in found if grouping is not None][:_MOST_GROUPINGS]


def _metadata(samples: pl.DataFrame) -> dict[str, list[str]]:
    """The values of each key of the metadata as text, keys sorted; numbers of many values as ranges."""
    if samples["metadata"].null_count() == samples.height:
        return {}
    parsed = {text: json.loads(text) for text in samples["metadata"].drop_nulls().unique()}
    rows = [parsed[text] if text is not None else {} for text in samples["metadata"]]
    keys = sorted({key for row in rows for key in row})
    return {key: _texts([row.get(key) for row in rows]) for key in keys}


def _texts(values: list[Any]) -> list[str]:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    is_measure = len(numbers) == sum(value is not None for value in values) and len(set(numbers)) > _MOST_RANGES * 4
    if not is_measure:
        return [_NO_VALUE if value is None else str(value) for value in values]
    edges = np.unique(np.quantile(np.array(numbers, np.float64), np.linspace(0, 1, _MOST_RANGES + 1)))
    told = [f"{float(f'{edge:.4g}'):,.10g}" for edge in edges]
    names = [f"{low} to {high}" for low, high in pairwise(told)] or told
    return [
        _NO_VALUE
        if value is None
        else names[min(int(np.searchsorted(edges[1:-1], value, side="right")), len(names) - 1)]
        for value in values
    ]


def _grouping(name: str, values: list[str], *, is_kept: bool) -> Grouping | None:
    counts = pl.Series(values, dtype=pl.String).value_counts(name="count")
    named = counts.sort(["count", counts.columns[0]], descending=[True, False])
    names = named[counts.columns[0]].to_list()
    if not is_kept and (len(names) < 2 or (len(names) > _MOST_VALUES and named["count"][0] < len(values) / 100)):
        return None
    shown = names[:_MOST_VALUES]
    if len(names) > _MOST_VALUES:
        shown[-1] = f"{len(names) - _MOST_VALUES + 1:,} others"
    place = {value: min(at, _MOST_VALUES - 1) for at, value in enumerate(names)}
    return Grouping(name, shown, np.array([place[value] for value in values], np.uint8))
