"""The selection stage: from the encoder's table of vectors to a finished folder `selections/<id>/`.

The ranking and its measurement are maths and live in `ranking` and `ladder`; the folder's files in `selections`.
"""

import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl

from wtl_core.embedding import vectors
from wtl_core.engines.engine import Engine, Needs
from wtl_core.engines.local import LocalEngine
from wtl_core.machine import Progress
from wtl_core.recipe.base import digest_of
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import columns, ladder, ranking
from wtl_core.selection.accuracy import Accuracy, measure
from wtl_core.selection.advice import nothing_left
from wtl_core.selection.by_regions.files import Files, passing_files
from wtl_core.selection.by_regions.ranking import rank_by_regions
from wtl_core.selection.ladder import Ladder
from wtl_core.selection.ranking import Steering
from wtl_core.selection.result import Ranking, empty_ranking
from wtl_core.selection.sorted_rows import Batches
from wtl_core.selection.stage_inputs import StageInputs
from wtl_core.selection.steering import column_weights
from wtl_core.selection.tables import ladder_table, ranking_table
from wtl_core.workspace import selections, storage
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selected:
    """A ranking and its ladder as the tables of the workspace, with what the receipt says beside the inputs.

    `scale` is the kernel's, which the encoder's first ranking fixes; None where nothing was ranked.
    """

    ranking: pl.DataFrame
    ladder: pl.DataFrame
    scale: float | None
    facts: dict[str, Any]


def run(
    store: Store,
    inputs: StageInputs,
    *,
    number: int,
    device: str,
    engine: Engine | None = None,
    needs: Needs | None = None,
    on_progress: Progress | None = None,
) -> SelectionRef:
    """Rank the candidates, measure the ladder, and write both with a receipt; a finished selection is read.

    Args:
        store: The workspace.
        inputs: As `read_inputs` gives them.
        number: The refresh that this is for; part of the selection's name.
        device: `cpu` or a CUDA device.
        engine: What ranks the regions of a pool that is ranked by them; None for this process.
        needs: What its workers take and compute on; None for `device`.
        on_progress: Called with how many samples of how many are compared with all, or done as `rank_by_regions` says.

    Raises:
        InputError: a column that steers the ranking is missing or is not of numbers.
        ConfigError: quotas that cannot hold at the budget.
        LostWorkersError, TransientError: the engine's.
    """
    described = inputs.as_receipt()
    # The scale is not part of the name: the first ranking fixes it, and may be killed after that.
    key = f"selections/{number:06d}-{digest_of(described)[:12]}"
    if not store.exists(f"{key}/receipt.json"):
        _delete_regions(store, number, but=key)
        made = make(
            store,
            inputs,
            scale=read_scale(store, inputs.encoder),
            device=device,
            regions=(Files(store, f"{key}/regions"), engine or LocalEngine(1), needs),
            on_progress=on_progress,
        )
        if made.scale is not None:
            _fix_scale(store, inputs.encoder, made.scale)
        _write(store, key, made, described)
    _delete_regions(store, number)
    return selections.reference(store, key, ledger_length=inputs.ledger_length)


def _delete_regions(store: Store, number: int, *, but: str = "") -> None:
    """Delete what regions have left of this refresh's selections, killed ones that had other inputs among them."""
    for name in store.names("selections"):
        if name.startswith(f"{number:06d}-") and f"selections/{name}" != but:
            store.delete_folder(f"selections/{name}/regions")


def make(
    store: Store,
    inputs: StageInputs,
    *,
    scale: float | None,
    device: str,
    regions: tuple[Files, Engine, Needs | None] | None = None,
    on_progress: Progress | None = None,
) -> Selected:
    """Ranking and ladder of the inputs. Reads vectors and writes no result, so a receipt's result can be made again.

    `scale` is the kernel's where the encoder has one already (a receipt's `scale`); None measures it. `regions` is
    where a pool that is ranked by regions has its files, who ranks them and what a worker takes; None for a folder that
    is deleted and this process.
    """
    samples, params = inputs.candidates, inputs.recipe.selection
    if samples.is_empty():
        advice = nothing_left(
            labelled=inputs.labelled_samples.height,
            skipped=inputs.skipped,
            held_out=inputs.held_out,
            filtered=inputs.filtered,
        )
        return _selected(empty_ranking(), ladder.empty_ladder(advice), samples, scale=scale)
    ids = samples["sample_id"]
    covering = [*inputs.labelled, *inputs.redundant]  # what is redundant covers, and teaches no class
    labelled = vectors.load(store, inputs.encoder, covering) if covering else None
    if params.near_duplicate_distance is None:
        params = params.model_copy(update={"near_duplicate_distance": inputs.near_copy_distance})
    groups, labelled_groups = _groups(samples, inputs.labelled_samples, params)
    steering = _steering(store, inputs, params, labelled, groups, labelled_groups)
    _logger.info("ranking %d samples on %s", len(ids), device)
    source: np.ndarray | Batches
    if len(ids) < params.regions_from:
        source, named = vectors.load(store, inputs.encoder, ids.to_list()), ids.to_list()
        ranked = ranking.rank(
            source, params, sample_ids=named, steering=steering, device=device, scale=scale, on_progress=on_progress
        )
    else:
        source = partial(vectors.stream, store, inputs.encoder, ids)
        ranked = _by_regions(
            source, params, ids, steering, regions, device=device, scale=scale, on_progress=on_progress
        )
    measured = ladder.measure(
        source,
        ranked,
        inputs.recipe.ladder,
        sample_ids=ids,
        scale=ranked.scale * params.scale_factor,
        kernel=params.kernel,
        labelled=labelled,
        groups=groups,
        device=device,
    )
    return _selected(ranked, measured, samples, scale=ranked.scale)


def _steering(
    store: Store,
    inputs: StageInputs,
    params: SelectionParams,
    labelled: np.ndarray | None,
    groups: list[str] | None,
    labelled_groups: list[str],
) -> Steering:
    samples = inputs.candidates
    return Steering(
        duplicate_of=_twin_rows(samples),
        weights=_weights(samples, params),
        groups=groups,
        labelled=labelled,
        labelled_classes=[*inputs.label_classes, *[None] * len(inputs.redundant)],
        accuracy=_accuracy(labelled, inputs),
        labelled_groups=labelled_groups,
        frozen=_rows_of(inputs.exported, samples["sample_id"]),
        similar=[
            (vectors.load(store, inputs.encoder, sorted(set(given.sample_ids))), given.strength)
            for given in params.similar_to
        ],
    )


def _by_regions(
    source: Batches,
    params: SelectionParams,
    ids: pl.Series,
    steering: Steering,
    regions: tuple[Files, Engine, Needs | None] | None,
    *,
    device: str,
    scale: float | None,
    on_progress: Progress | None,
) -> Ranking:
    with nullcontext(regions[0]) if regions else passing_files() as files:
        return rank_by_regions(
            source,
            params,
            sample_ids=ids,
            files=files,
            engine=regions[1] if regions else LocalEngine(1),
            needs=regions[2] if regions else None,
            steering=steering,
            device=device,
            scale=scale,
            on_progress=on_progress,
        )


def _rows_of(sample_ids: Sequence[str], ids: pl.Series) -> np.ndarray:
    """Where these stand among `ids`, (n,) int64."""
    given = pl.DataFrame({"sample_id": pl.Series(sample_ids, dtype=pl.String)})
    rows = given.join(
        ids.to_frame("sample_id").with_row_index("row"), on="sample_id", how="left", maintain_order="left"
    )
    return rows["row"].to_numpy().astype(np.int64)


def _selected(ranked: Ranking, measured: Ladder, samples: pl.DataFrame, *, scale: float | None) -> Selected:
    told = [said.sentence() for said in (ranked.labels, ranked.goal) if said is not None]
    facts = {
        "numeric_path": ranked.numeric_path,
        "exact_until": int(ranked.exact_until),
        "near_duplicate_distance": ranked.near_duplicate_distance,
        "picks": int(ranked.picks),
        "stop": asdict(ranked.stop),
        "references": measured.references,
        "is_held_out": measured.is_held_out,
        "advice": " ".join(filter(None, [measured.advice, ranked.quota_advice, *told])),
        "quotas_until": int(ranked.quotas_until),
        "quota_cost": ranked.quota_cost,
        "random_group_balance": measured.random_group_balance,
        "accuracy_goal": None if ranked.goal is None else ranked.goal.to_json(),
        "labels": None if ranked.labels is None else ranked.labels.facts(),
    }
    return Selected(ranking_table(ranked, samples), ladder_table(measured), scale, facts)


def _write(store: Store, key: str, made: Selected, inputs: dict[str, Any]) -> None:
    """The two tables, then the receipt that proves them."""
    tables = {
        "ranking.parquet": storage.to_parquet(made.ranking),
        "ladder.parquet": storage.to_parquet(made.ladder),
    }
    for name, data in tables.items():
        store.write_bytes(f"{key}/{name}", data)
    receipt = {
        **inputs,
        "scale": made.scale,
        **made.facts,
        "versions": _versions(),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
    }
    store.write_bytes(f"{key}/receipt.json", json.dumps(receipt, indent=1).encode() + b"\n")


def _accuracy(labelled: np.ndarray | None, inputs: StageInputs) -> Accuracy | None:
    """What the labels teach; None where no goal asks for it, or nothing is labelled."""
    if inputs.recipe.selection.accuracy_goal is None or labelled is None:
        return None
    drawn = set(inputs.drawn)
    is_drawn = np.array([sample_id in drawn for sample_id in inputs.labelled], bool)
    return measure(labelled[: len(is_drawn)], inputs.label_classes, is_drawn)  # behind them come the redundant ones


def _groups(
    samples: pl.DataFrame, labelled: pl.DataFrame, params: SelectionParams
) -> tuple[list[str] | None, list[str]]:
    """The groups of the samples to rank and of the labelled ones, whose metadata alone may hold the column."""
    if params.group_by is None:
        return None, []
    groups = columns.groups_of(pl.concat([samples, labelled]), params.group_by)
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


def read_scale(store: Store, fingerprint: str) -> float | None:
    """The kernel scale that the encoder's first ranking fixed; None before it."""
    key = f"encoders/{fingerprint}/scale.json"
    return float(json.loads(store.read_bytes(key))["scale"]) if store.exists(key) else None


def _fix_scale(store: Store, fingerprint: str, scale: float) -> None:
    """Keep the scale of the encoder's first ranking; a later one changes nothing."""
    store.create(f"encoders/{fingerprint}/scale.json", json.dumps({"scale": scale}).encode() + b"\n")


def _versions() -> dict[str, str]:
    names = ("wtl", "torch", "numpy", "numba", "polars")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in names},
    }
