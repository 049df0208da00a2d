"""Columns of the pool by name, as steering asks for them: a column of the pool itself, or a key of its metadata."""

import difflib
import json
from typing import Any

import numpy as np
import polars as pl

from wtl_core.errors import InputError


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
                "fill it, or filter those samples out"
            )
    return np.asarray(values, np.float64)


def _values(samples: pl.DataFrame, name: str) -> list[Any]:
    if name in samples.columns:
        return samples[name].to_list()
    metadata = [json.loads(text) if text else {} for text in samples["metadata"].to_list()]
    keys = sorted({key for entry in metadata for key in entry})
    if name not in keys:
        known = [*samples.columns, *keys]
        nearest = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {nearest[0]}" if nearest else f"there are {', '.join(known)}"
        raise InputError(f"column {name}: expected a column of the pool or a key of its metadata, found none; {advice}")
    return [entry.get(name) for entry in metadata]
