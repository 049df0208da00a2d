"""The selection stage: from the encoder's table of vectors to a finished folder `selections/<id>/`.

The ranking and its measurement are maths and live in `ranking` and `ladder`; the folder's files in `selections`.
"""

import hashlib
import json
import logging
import platform
from collections.abc import Callable
from dataclasses import asdict, fields
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl

from wtl_core.embedding import vectors
from wtl_core.errors import InputError
from wtl_core.recipe.base import digest_of
from wtl_core.recipe.recipe import Recipe
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import columns, ladder, ranking, result
from wtl_core.selection.advice import nothing_left
from wtl_core.selection.ladder import Ladder
from wtl_core.selection.ranking import Ranking
from wtl_core.selection.steering import column_weights
from wtl_core.workspace import ledger, selections
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store

_logger = logging.getLogger(__name__)


def run(
    store: Store,
    samples: pl.DataFrame,
    recipe: Recipe,
    *,
    number: int,
    fingerprint: str,
    ledger_length: int,
    device: str,
    near_copy_distance: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SelectionRef:
    """Rank the samples, measure the ladder, and write both with their receipt.

    Args:
        store: The workspace.
        samples: Live samples that may be ranked, as `pool.Pool.samples`, sorted by `sample_id`.
        recipe: The whole recipe; the selection and ladder parts decide the result.
        number: The refresh that this is for; part of the selection's name.
        fingerprint: The encoder's; every sample must have a vector in its table.
        ledger_length: Entries of the ledger to respect.
        device: Where to multiply.
        near_copy_distance: The encoder's, see `encoders.near_copies`; stands in where the recipe has no
            `near_duplicate_distance`.
        on_progress: Told how many samples of how many are compared with all.

    Where every sample is labelled (or filtered out, beside some that are labelled) nothing is left to label: ranking
    and ladder are then empty tables, and the receipt says so.

    Raises:
        InputError: the filters leave no sample at all, or `similar_to` names ids that are not in the workspace.
    """
    entries = ledger.read(store, ledger_length)
    has_vector = vectors.existing_ids(store, fingerprint)
    given = {sample_id for like in recipe.selection.similar_to for sample_id in like.sample_ids}
    if unknown := sorted(given - has_vector):
        raise InputError(
            f"similar_to: expected ids of samples that this workspace has, found {len(unknown)} others, {unknown[0]!r} "
            "for one; take ids from `wtl cut`, and add images from elsewhere as a source first"
        )
    labelled = sorted(has_vector.intersection(ledger.sample_ids(entries, "labelled")))
    is_labelled = pl.col("sample_id").is_in(labelled)
    open_samples, marked = samples.filter(~pl.col("is_filtered") & ~is_labelled), samples.filter(is_labelled)
    is_open = set(open_samples["sample_id"])
    if not is_open and marked.is_empty():
        raise InputError(
            f"{store.root}: expected images to rank, found {samples.height} of which all are filtered out; "
            "relax the recipe's filters or add images"
        )
    exported = [sample_id for sample_id in ledger.sample_ids(entries, "exported") if sample_id in is_open]
    inputs = _inputs(open_samples, labelled, marked, exported, recipe, fingerprint=fingerprint)
    inputs["near_copy_distance"] = near_copy_distance
    key = f"selections/{number:06d}-{digest_of(inputs)[:12]}"  # the scale is left out: a killed run may have frozen it
    if not store.exists(f"{key}/receipt.json"):
        inputs["scale"] = _read_scale(store, fingerprint)
        _make(
            store,
            key,
            open_samples,
            labelled,
            marked,
            exported,
            recipe,
            inputs,
            filtered=samples.height - open_samples.height - marked.height,
            device=device,
            on_progress=on_progress,
        )
    return selections.reference(store, key)


def _make(
    store: Store,
    key: str,
    samples: pl.DataFrame,
    labelled: list[str],
    marked: pl.DataFrame,
    exported: list[str],
    recipe: Recipe,
    inputs: dict[str, Any],
    *,
    filtered: int,
    device: str,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    if samples.is_empty():
        advice = nothing_left(labelled=marked.height, filtered=filtered)
        _write(store, key, samples, result.empty_ranking(), ladder.empty_ladder(advice), inputs)
        return
    ids = samples["sample_id"].to_list()
    matrix = vectors.load(store, inputs["encoder"], ids)
    anchors = vectors.load(store, inputs["encoder"], labelled) if labelled else None
    position = {sample_id: row for row, sample_id in enumerate(ids)}
    params = recipe.selection
    if params.near_duplicate_distance is None:
        params = params.model_copy(update={"near_duplicate_distance": inputs["near_copy_distance"]})
    groups, labelled_groups = _groups(samples, marked, params)
    _logger.info("ranking %d samples by %d-d vectors on %s", len(ids), matrix.shape[1], device)
    ranked = ranking.rank(
        matrix,
        params,
        sample_ids=ids,
        duplicate_of=_twin_rows(samples),
        weights=_weights(samples, params),
        groups=groups,
        labelled=anchors,
        labelled_groups=labelled_groups,
        frozen=np.array([position[sample_id] for sample_id in exported], np.int64) if exported else None,
        similar=[
            (vectors.load(store, inputs["encoder"], sorted(set(given.sample_ids))), given.strength)
            for given in params.similar_to
        ],
        device=device,
        scale=inputs["scale"],
        on_progress=on_progress,
    )
    scale = _freeze_scale(store, inputs["encoder"], ranked.scale)
    measured = ladder.measure(
        matrix,
        ranked,
        recipe.ladder,
        sample_ids=ids,
        scale=scale * params.scale_factor,
        kernel=params.kernel,
        labelled=anchors,
        groups=groups,
        device=device,
    )
    _write(store, key, samples, ranked, measured, {**inputs, "scale": scale})


def _write(
    store: Store, key: str, samples: pl.DataFrame, ranked: Ranking, measured: Ladder, inputs: dict[str, Any]
) -> None:
    """The two tables, then the receipt that proves them."""
    ranking_bytes = selections.to_parquet(_ranking_frame(ranked, samples))
    ladder_bytes = selections.to_parquet(_ladder_frame(measured))
    store.write_bytes(f"{key}/ranking.parquet", ranking_bytes)
    store.write_bytes(f"{key}/ladder.parquet", ladder_bytes)
    receipt = {
        **inputs,
        "numeric_path": ranked.numeric_path,
        "exact_until": int(ranked.exact_until),
        "tail_from": int(ranked.tail_from),
        "near_duplicate_distance": ranked.near_duplicate_distance,
        "picks": int(ranked.picks),
        "stop": asdict(ranked.stop),
        "references": measured.references,
        "is_held_out": measured.is_held_out,
        "advice": " ".join(filter(None, [measured.advice, ranked.quota_advice])),
        "quotas_until": int(ranked.quotas_until),
        "quota_cost": ranked.quota_cost,
        "random_group_balance": measured.random_group_balance,
        "versions": _versions(),
        "sha256": {
            "ranking.parquet": hashlib.sha256(ranking_bytes).hexdigest(),
            "ladder.parquet": hashlib.sha256(ladder_bytes).hexdigest(),
        },
    }
    store.write_bytes(f"{key}/receipt.json", json.dumps(receipt, indent=1).encode() + b"\n")


def _inputs(
    samples: pl.DataFrame,
    labelled: list[str],
    marked: pl.DataFrame,
    exported: list[str],
    recipe: Recipe,
    *,
    fingerprint: str,
) -> dict[str, Any]:
    """Everything that the ranking is a function of, by digest; small enough to print.

    `marked` are the labelled samples that are in the pool: these have a group.
    """
    return {
        "stage": "selection",
        "version": selections.VERSION,
        "encoder": fingerprint,
        "samples": samples.height,
        "pool": digest_of([samples[name].to_list() for name in ("sample_id", "uri", "duplicate_of", "metadata")]),
        "labelled": digest_of([labelled, *(marked[name].to_list() for name in ("sample_id", "uri", "metadata"))]),
        "labelled_samples": len(labelled),
        "exported": digest_of(exported),
        "selection": recipe.selection.model_dump(mode="json"),
        "ladder": recipe.ladder.model_dump(mode="json"),
    }


def _groups(samples: pl.DataFrame, marked: pl.DataFrame, params: SelectionParams) -> tuple[list[str] | None, list[str]]:
    """The groups of the samples to rank and of the labelled ones, whose metadata alone may hold the column."""
    if params.group_by is None:
        return None, []
    groups = columns.groups_of(pl.concat([samples, marked]), params.group_by)
    return groups[: samples.height], groups[samples.height :]


def _weights(samples: pl.DataFrame, params: SelectionParams) -> np.ndarray | None:
    if not params.weights:
        return None
    values = {entry.column: columns.numbers_of(samples, entry.column) for entry in params.weights}
    return column_weights(params.weights, values, samples.height)


def _twin_rows(samples: pl.DataFrame) -> np.ndarray:
    """Per row, the row of the pixel-identical sample that it repeats, or -1."""
    rows = samples.select("sample_id", "duplicate_of").with_row_index("at")
    kept = rows.select(pl.col("sample_id").alias("duplicate_of"), pl.col("at").alias("kept"))
    joined = rows.join(kept, on="duplicate_of", how="left", maintain_order="left")
    return joined["kept"].cast(pl.Int64).fill_null(-1).to_numpy()


def _ranking_frame(ranked: Ranking, samples: pl.DataFrame) -> pl.DataFrame:
    ids = samples["sample_id"].to_numpy()
    ordered = samples[ranked.rows.tolist()]

    def id_at(rows: np.ndarray) -> pl.Series:
        return pl.Series([ids[row] if row >= 0 else None for row in rows], dtype=pl.String)

    return pl.DataFrame(
        {
            "rank": np.arange(len(ranked.rows), dtype=np.int64),
            "sample_id": ordered["sample_id"],
            "uri": ordered["uri"],
            "gain": ranked.gain,
            "coverage": ranked.coverage,
            "radius": pl.Series(ranked.radius).fill_nan(None),
            "duplicate_of": id_at(ranked.duplicate_of),
            "stands_for": ranked.stands_for,
            "nearest_earlier": id_at(ranked.nearest_earlier),
            "replaced_by": id_at(ranked.replaced_by),
        }
    )


def _ladder_frame(measured: Ladder) -> pl.DataFrame:
    """One row a per cent; what holds for the whole ladder is in the receipt."""
    columns_by_name = {field.name: getattr(measured, field.name) for field in fields(measured)}
    return pl.DataFrame({name: values for name, values in columns_by_name.items() if isinstance(values, np.ndarray)})


def _read_scale(store: Store, fingerprint: str) -> float | None:
    """The kernel scale that the encoder's first ranking fixed; None before it."""
    key = f"encoders/{fingerprint}/scale.json"
    return float(json.loads(store.read_bytes(key))["scale"]) if store.exists(key) else None


def _freeze_scale(store: Store, fingerprint: str, scale: float) -> float:
    store.create(f"encoders/{fingerprint}/scale.json", json.dumps({"scale": scale}).encode() + b"\n")
    frozen = _read_scale(store, fingerprint)
    assert frozen is not None
    return frozen


def _versions() -> dict[str, str]:
    names = ("wtl", "torch", "numpy", "numba", "polars")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in names},
    }
