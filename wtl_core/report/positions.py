"""Where images lie on the map: positions in two dimensions, fitted once for an encoder and kept beside it.

UMAP is fitted to at most 10,000 images, and every other image lies between the three fitted ones that are most like it.
So the time of a fit has a bound, and an image that arrives later finds its place without moving any other. Positions
are for the eye alone: nothing else is computed from them.

A table is a few immutable files, `encoders/<fingerprint>/positions/<fit>-<digest>.parquet`: those of the highest fit
count, together.
"""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import polars as pl
import torch

from wtl_core.embedding import vectors
from wtl_core.selection.identity import Purpose, content_keys, shuffled
from wtl_core.selection.neighbours import BLOCK_ROWS, exact_graph, keep_smallest, level_distances, prepare
from wtl_core.workspace.storage import Store

MOST_FITTED = 10_000
"""Bounds the time of a fit whatever the pool's size; the places of others are cheap."""
LEAST_FITTED = 500
"""Fewer are shown by their two main axes (PCA), without the ten seconds that UMAP compiles in every process."""
_GROWTH = 4
"""A map of so many times fewer images than could be fitted now is fitted anew, beginning with its old positions."""
_NEIGHBOURS, _EPOCHS, _MIN_DIST = 15, 200, 0.05
_BETWEEN, _COLUMN_BITS, _THREAD_ROWS = 3, 20, 64
_NEAREST = 2.0**-14
"""Half a squared distance below which images are at one place, as in `neighbours`."""
_SCHEMA = {"sample_id": pl.String, "x": pl.Float32, "y": pl.Float32, "is_fitted": pl.Boolean}

_log = logging.getLogger(__name__)


def update(store: Store, fingerprint: str, sample_ids: Sequence[str]) -> pl.DataFrame:
    """The positions of samples, `sample_id`, `x` and `y`, in their order; new ones are placed and kept.

    Where every sample has a position already no vector is read. For the holder of the workspace's lease.

    Raises:
        InputError: a sample has no vector of this encoder.
    """
    fit, known = _read(store, fingerprint)
    wanted = pl.DataFrame({"sample_id": list(sample_ids)}, schema={"sample_id": pl.String})
    missing = wanted.join(known, on="sample_id", how="anti", maintain_order="left")["sample_id"].to_list()
    fitted = known.filter("is_fitted")
    if missing:
        present = vectors.existing_ids(store, fingerprint)
        fitted = fitted.filter(pl.col("sample_id").is_in(present.implode()))
    if missing and _GROWTH * fitted.height <= min(MOST_FITTED, len(sample_ids)):
        fit, known = fit + 1, _fitted_anew(store, fingerprint, wanted["sample_id"].to_list(), fitted)
        _write(store, fingerprint, fit, known)
    elif missing:
        matrix = vectors.load(store, fingerprint, missing)
        anchors = vectors.load(store, fingerprint, fitted["sample_id"].to_list())
        added = _frame(missing, place(matrix, anchors, fitted.select("x", "y").to_numpy()), is_fitted=False)
        _write(store, fingerprint, fit, added)
        known = pl.concat([known, added])
    return wanted.join(known, on="sample_id", how="left", maintain_order="left").select("sample_id", "x", "y")


def read(store: Store, fingerprint: str, sample_ids: Sequence[str]) -> pl.DataFrame:
    """The positions that refreshes kept, `sample_id`, `x` and `y`, in the order asked for; null where there are none.

    Reads only, so it may be called beside a running refresh.
    """
    _, known = _read(store, fingerprint)
    wanted = pl.DataFrame({"sample_id": list(sample_ids)}, schema={"sample_id": pl.String})
    return wanted.join(known, on="sample_id", how="left", maintain_order="left").select("sample_id", "x", "y")


def fit_positions(unit_vectors: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Positions (N, 2) float32 that keep neighbours together, wider than high: by UMAP, or by PCA of a few vectors.

    The same vectors in the same order give the same positions on one machine.

    Args:
        unit_vectors: (N, D) float16 or float32, each of unit length.
        start: (N, 2) positions to begin with; PCA's if not given.
    """
    matrix = unit_vectors.astype(np.float32)
    axes = _main_axes(matrix)
    if len(matrix) < LEAST_FITTED:
        return axes
    graph = exact_graph(prepare(matrix), _NEIGHBOURS, near_level=0)
    distances = level_distances()[graph.levels].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap tells that tensorflow is missing, and that it cannot search
        import umap  # here: loading takes a second, and some ten on a machine's first time, when it is compiled

        found = umap.UMAP(
            n_neighbors=_NEIGHBOURS,
            min_dist=_MIN_DIST,
            n_epochs=_EPOCHS,
            init=_scaled(axes if start is None else start.astype(np.float32)),
            random_state=0,
            n_jobs=1,
            precomputed_knn=(graph.rows, distances),
            force_approximation_algorithm=True,
        ).fit_transform(matrix)
    return _main_axes(np.asarray(found, np.float32)) if start is None else np.asarray(found, np.float32)


def place(unit_vectors: np.ndarray, anchors: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Positions (M, 2) float32 of vectors between those of the three nearest anchors, by 1 / d^2.

    Args:
        unit_vectors: (M, D), each of unit length.
        anchors: (L, D) vectors that have a position.
        positions: (L, 2) of these.

    Cost: 2 M L (D + 6) FLOP.
    """
    points, around = prepare(unit_vectors, whole=BLOCK_ROWS), prepare(anchors)
    between = min(_BETWEEN, len(anchors))
    out = np.empty((len(unit_vectors), 2), np.float32)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for begin in range(0, len(unit_vectors), BLOCK_ROWS):
            bits = points.product_with(points.left_slice(begin, begin + BLOCK_ROWS), around.right).numpy()
            keys = np.full((BLOCK_ROWS, between), np.iinfo(np.int64).max)
            starts = range(0, BLOCK_ROWS, _THREAD_ROWS)
            list(threads.map(lambda start, b=bits, k=keys: _keep_nearest(b, len(anchors), k, start), starts))
            halves = (keys >> _COLUMN_BITS).astype(np.uint32) << 16
            weights = 1.0 / np.maximum(halves.view(np.float32).astype(np.float64), _NEAREST)
            weights /= weights.sum(1, keepdims=True)
            places = positions[keys & ((1 << _COLUMN_BITS) - 1)].astype(np.float64)
            stop = min(begin + BLOCK_ROWS, len(unit_vectors))
            out[begin:stop] = np.einsum("mk,mkc->mc", weights, places)[: stop - begin]
    return out


@numba.njit(cache=True, nogil=True)
def _keep_nearest(bits: np.ndarray, count: int, keys: np.ndarray, start: int) -> None:
    """Bring the first `count` columns of some rows to their heaps: the bits of h above, the column below."""
    for row in range(start, start + _THREAD_ROWS):
        line, heap = bits[row], keys[row]
        for column in range(count):
            value = np.int64(max(line[column], 0))
            if value <= heap[0] >> _COLUMN_BITS:
                keep_smallest(heap, (value << _COLUMN_BITS) + column)  # type: ignore[arg-type]


def _fitted_anew(store: Store, fingerprint: str, sample_ids: list[str], before: pl.DataFrame) -> pl.DataFrame:
    """The whole table: a part of the samples fitted, the others placed; a fit `before` says where to begin."""
    order = shuffled(content_keys(sample_ids), 0, Purpose.MAP)
    chosen, others = np.sort(order[:MOST_FITTED]), np.sort(order[MOST_FITTED:])
    matrix = vectors.load(store, fingerprint, sample_ids)
    start = None
    if before.height >= LEAST_FITTED:
        anchors = vectors.load(store, fingerprint, before["sample_id"].to_list())
        start = place(matrix[chosen], anchors, before.select("x", "y").to_numpy())
    positions = np.empty((len(sample_ids), 2), np.float32)
    positions[chosen] = fit_positions(matrix[chosen], start)
    if len(others):
        positions[others] = place(matrix[others], matrix[chosen], positions[chosen])
    _log.info("map of %d images, %d of them fitted", len(sample_ids), len(chosen))
    table = _frame(sample_ids, positions, is_fitted=False)
    return table.with_columns(is_fitted=pl.Series(np.isin(np.arange(len(sample_ids)), chosen)))


def _main_axes(matrix: np.ndarray) -> np.ndarray:
    """The two main axes of vectors, (N, 2) float32; zeros where there are not two."""
    centred = matrix - matrix.mean(0)
    _, vector = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes = vector[:, :-3:-1]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    out = np.zeros((len(matrix), 2), np.float32)
    out[:, : axes.shape[1]] = centred @ axes
    return out


def _scaled(positions: np.ndarray) -> np.ndarray:
    """As large as UMAP wants its beginning: 10 to each side of the middle."""
    centred = positions - positions.mean(0)
    return np.asarray(10.0 * centred / max(float(np.abs(centred).max()), 1e-9), np.float32)


def _frame(sample_ids: Sequence[str], positions: np.ndarray, *, is_fitted: bool) -> pl.DataFrame:
    columns = {"sample_id": list(sample_ids), "x": positions[:, 0], "y": positions[:, 1]}
    return pl.DataFrame(columns).with_columns(is_fitted=pl.lit(is_fitted)).cast(_SCHEMA)  # type: ignore[arg-type]


def _read(store: Store, fingerprint: str) -> tuple[int, pl.DataFrame]:
    """The number of the highest fit, 0 for none, and its table."""
    folder = f"encoders/{fingerprint}/positions"
    names = [name for name in store.names(folder) if name.endswith(".parquet")]
    fit = max((int(name.partition("-")[0]) for name in names), default=0)
    frames = [store.read_frame(f"{folder}/{name}") for name in names if int(name.partition("-")[0]) == fit]
    return fit, pl.concat([pl.DataFrame(schema=_SCHEMA), *frames]).unique(
        "sample_id", keep="first", maintain_order=True
    )


def _write(store: Store, fingerprint: str, fit: int, table: pl.DataFrame) -> None:
    digest = hashlib.sha256("".join(table["sample_id"]).encode()).hexdigest()[:12]
    store.write_frame(f"encoders/{fingerprint}/positions/{fit:04d}-{digest}.parquet", table)
