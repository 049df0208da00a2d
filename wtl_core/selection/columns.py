"""Columns that steering names: a column of the pool itself, or a key of the samples' metadata.

`taken_on` is the day of `taken_at`; the time itself, to the second, would make a group of nearly every image.
"""

import difflib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.selection import SelectionParams


def check(samples: pl.DataFrame, params: SelectionParams, *, settled: Sequence[str]) -> None:
    """Refuse what the selection would refuse, before encoder and embedding take their minutes.

    Args:
        samples: `Pool.samples`.
        params: What names columns.
        settled: Ids of labelled and skipped samples; they need no weight.

    Raises:
        InputError: as `groups_of` and `numbers_of` do.
        ConfigError: as `check_regions` does.
    """
    if params.group_by is not None:
        groups_of(samples, params.group_by)
    to_rank = samples.filter(~pl.col("is_filtered") & ~pl.col("sample_id").is_in(list(settled)))
    for entry in params.weights if to_rank.height else ():
        numbers_of(to_rank, entry.column)
    check_regions(params, to_rank.height)


def check_regions(params: SelectionParams, samples: int) -> None:
    """Refuse what cannot be ranked by regions.

    Raises:
        ConfigError: another objective than coverage.
    """
    if samples < params.regions_from:
        return
    if not params.is_coverage:
        raise ConfigError(
            f"objective {params.objective!r}: expected coverage or probability-coverage for {samples:,} samples, which "
            "are ranked by regions; choose one of them, or raise `regions_from` if memory has room"
        )


def groups_of(samples: pl.DataFrame, name: str) -> list[str]:
    """Each sample's group, as text; a sample without a value is in the group ``(none)``.

    Raises:
        InputError: neither the pool nor its metadata has such a column.
    """
    return ["(none)" if value is None else str(value) for value in _values(samples, name)]


def numbers_of(samples: pl.DataFrame, name: str) -> np.ndarray:
    """Each sample's value, (N,) float64.

    Raises:
        InputError: no such column, or a value that is missing or no number.
    """
    values = _values(samples, name)
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(
                f"column {name}: expected a number for each sample, found {value!r} for {samples['uri'][row]!r}; "
                f"fill it, or filter those samples out, as `{_in_filters(samples, name)} >= 0` does"
            )
    return np.asarray(values, np.float64)


def _in_filters(samples: pl.DataFrame, name: str) -> str:
    return name if name in samples.columns else f"metadata.{name}"


def _values(samples: pl.DataFrame, name: str) -> list[Any]:
    if name in samples.columns:
        return samples[name].to_list()
    values: list[Any] = []
    found: set[str] = set()
    for text in samples["metadata"]:
        entry = json.loads(text) if text else {}
        values.append(entry.get(name))
        found.update(entry)
    keys = sorted(found)
    if name == "taken_on" and name not in keys and "taken_at" in samples.columns:
        return [None if time is None else time.partition("T")[0] for time in samples["taken_at"]]
    if name not in keys:
        known = [*samples.columns, "taken_on", *keys]
        nearest = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {nearest[0]}" if nearest else f"there are {', '.join(known)}"
        raise InputError(f"column {name}: expected a column of the pool or a key of its metadata, found none; {advice}")
    return values
