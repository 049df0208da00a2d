"""A finished ranking and its ladder as tables, as a workspace keeps them and Python users get them."""

from dataclasses import fields

import numpy as np
import polars as pl

from wtl_core.selection.ladder import Ladder
from wtl_core.selection.result import Ranking


def ranking_table(ranked: Ranking, samples: pl.DataFrame) -> pl.DataFrame:
    """One row a rank, best first.

    Args:
        ranked: The ranking of these samples.
        samples: Column `sample_id`, and `uri` if the table is to have it; in the order of the ranking's rows.
    """
    ids = samples["sample_id"]
    ordered = samples.select(pl.col("sample_id", *(["uri"] if "uri" in samples.columns else [])))[ranked.rows]

    def id_at(rows: np.ndarray) -> pl.Series:
        return ids.gather(pl.Series(rows).set(pl.Series(rows < 0), None))

    return pl.DataFrame(
        {
            "rank": np.arange(len(ranked.rows), dtype=np.int64),
            **{column.name: column for column in ordered},
            "gain": ranked.gain,
            "coverage": ranked.coverage,
            "radius": pl.Series(ranked.radius).fill_nan(None),
            "duplicate_of": id_at(ranked.duplicate_of),
            "stands_for": ranked.stands_for,
            "nearest_earlier": id_at(ranked.nearest_earlier),
            "replaced_by": id_at(ranked.replaced_by),
            "why": _reasons(ranked),
        }
    )


def _reasons(ranked: Ranking) -> pl.Series:
    """What the labels say of each sample, null where they have no say."""
    say = ranked.labels
    if say is None or not say.is_heard:
        return pl.repeat(None, len(ranked.rows), dtype=pl.String, eager=True)
    return pl.Series([None if row < 0 else say.reason(row) for row in ranked.label_rows.tolist()], dtype=pl.String)


def ladder_table(measured: Ladder) -> pl.DataFrame:
    """One row a per cent, with the ladder's arrays as columns."""
    by_name = {field.name: getattr(measured, field.name) for field in fields(measured)}
    return pl.DataFrame({name: values for name, values in by_name.items() if isinstance(values, np.ndarray)})
