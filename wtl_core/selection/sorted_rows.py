"""The vectors that are ranked: checked once, and sorted so that their order depends on content alone. No picking."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

from wtl_core.errors import InputError

if TYPE_CHECKING:
    import polars as pl

_UNIT_TOLERANCE = 0.01  # of a length: more than rounding to float16 or bfloat16 changes it


Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Gives rows (n,) int64 of the caller's and their vectors (n, D) of unit length: each row once, in any order."""


@dataclass(frozen=True)
class SortedRows:
    """N samples sorted by `sample_id`.

    Attributes:
        vectors: (N, D) of unit length.
        sample_ids: N distinct ids, ascending.
        caller_rows: (N,) int64, each sample's row in the caller's arrays.
        twin_of: (N,) int64, the sorted row that a sample is pixel- or vector-identical to and ranks behind, or -1.
    """

    vectors: np.ndarray
    sample_ids: list[str]
    caller_rows: np.ndarray
    twin_of: np.ndarray


def sort_rows(vectors: np.ndarray, sample_ids: Sequence[str], duplicate_of: np.ndarray | None) -> SortedRows:
    """Check and sort.

    Raises:
        InputError: a wrong shape or type, no rows, a value that is not finite, a zero vector, or ids that repeat.
    """
    vectors = unit_vectors(vectors, sample_ids, what="vectors")
    if len(vectors) == 0:
        raise InputError("vectors: expected at least one row, found none; add images")
    ids = [str(sample_id) for sample_id in sample_ids]
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    is_sorted = bool((order == np.arange(len(order))).all())
    ids = ids if is_sorted else [ids[row] for row in order]
    for earlier, later in itertools.pairwise(ids):
        if earlier == later:
            raise InputError(f"sample {later}: expected each sample_id once, found it twice; keep one of its rows")
    vectors = vectors if is_sorted else vectors[order]
    twins = _resolve_twins(vectors, order, duplicate_of)
    return SortedRows(vectors, ids, order, twins)


def unit_vectors(
    vectors: np.ndarray, names: "Sequence[str] | pl.Series | None", *, what: str, width: int | None = None
) -> np.ndarray:
    """Finite rows of unit length, float16 or float32; scaled to it where they are not within 1 %.

    Raises:
        InputError: a wrong shape, type or width, a value that is not finite, or a zero vector.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind != "f":
        raise InputError(
            f"{what}: expected floating-point rows of shape (N, D) with D > 0, found {vectors.shape} {vectors.dtype}; "
            "pass one vector per sample"
        )
    if width is not None and vectors.shape[1] != width:
        raise InputError(
            f"{what}: expected vectors of {width} dimensions like the pool's, found {vectors.shape[1]}; use one encoder"
        )
    if names is not None and len(names) != len(vectors):
        raise InputError(f"{what}: expected one sample_id per row, found {len(names)} ids for {len(vectors)} rows")
    if vectors.dtype not in (np.float16, np.float32):
        vectors = vectors.astype(np.float32)
    lengths = np.empty(len(vectors))
    for start in range(0, len(vectors), 65_536):
        block = vectors[start : start + 65_536].astype(np.float32)
        lengths[start : start + 65_536] = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
    is_bad = ~np.isfinite(lengths) | (lengths == 0.0)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        found = "a vector of zeros" if lengths[row] == 0.0 else "a value that is not finite"
        raise InputError(
            f"{what}, {f'sample {names[row]}' if names is not None else f'row {row}'}: expected a finite vector that "
            f"is not zero, found {found} ({int(is_bad.sum())} such rows); embed these samples again or leave them out"
        )
    if np.abs(lengths - 1.0).max(initial=0.0) <= _UNIT_TOLERANCE:
        return vectors
    return np.asarray((vectors / lengths[:, None]).astype(np.float32))


def gather(batches: Batches, wanted: np.ndarray, sample_ids: "pl.Series") -> np.ndarray:
    """The vectors of the rows `wanted`, in their order, (n, D); all that come by are checked.

    Raises:
        InputError: a vector that is not finite or not of unit length, or another number of them than `sample_ids`.
    """
    count = len(sample_ids)
    slot = np.full(count, -1, np.int32)
    slot[wanted] = np.arange(len(wanted))
    gathered, seen = None, 0
    for rows, vectors in batches():
        unit = unit_vectors(vectors, sample_ids.gather(rows), what="vectors")
        if unit is not vectors:
            raise InputError("vectors: expected rows of unit length, found others; scale them, or embed again")
        gathered = np.empty((len(wanted), unit.shape[1]), unit.dtype) if gathered is None else gathered
        slots = slot[rows]
        gathered[slots[slots >= 0]] = unit[slots >= 0]
        seen += len(rows)
    if gathered is None or seen != count:
        raise InputError(f"vectors: expected one for each of {count:,} samples, found {seen:,}; embed the pool first")
    return gathered


def _resolve_twins(vectors: np.ndarray, order: np.ndarray, duplicate_of: np.ndarray | None) -> np.ndarray:
    """The sorted row that each row is a copy of, -1 for a row that is no copy; chains end at the first row."""
    return join_equal(vectors, given_copies(order, duplicate_of))


def given_copies(order: np.ndarray, duplicate_of: np.ndarray | None) -> np.ndarray:
    """The sorted row that each sorted row is marked as a copy of, itself for one that is not marked, (N,) int64.

    Args:
        order: (N,) the caller's row of each sorted row.
        duplicate_of: (N,) in the caller's rows.

    Raises:
        InputError: a wrong shape, rows that do not exist, or rows that lead back to each other.
    """
    count = len(order)
    parent = np.arange(count)
    if duplicate_of is not None:
        given = np.asarray(duplicate_of, np.int64)
        if given.shape != (count,) or (given >= count).any():
            raise InputError(f"duplicate_of: expected (N,) rows below {count} or -1, found shape {given.shape}")
        place = np.empty(count, np.int64)
        place[order] = np.arange(count)
        marked = np.flatnonzero(given[order] >= 0)
        parent[marked] = place[given[order][marked]]
        _refuse_circles(parent, order)
    return parent


def join_equal(vectors: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """The row that each row is a copy of, given or by an equal vector, -1 for a row that is no copy, (N,) int64."""
    count = len(parent)
    hashes = hash_rows(np.ascontiguousarray(vectors).view(np.uint16))
    by_hash = np.lexsort((np.arange(count), hashes))
    for place_in_hashes in np.flatnonzero(hashes[by_hash][1:] == hashes[by_hash][:-1]):
        earlier, later = int(by_hash[place_in_hashes]), int(by_hash[place_in_hashes + 1])
        if np.array_equal(vectors[earlier], vectors[later]):
            _join(parent, earlier, later)
    twins = np.full(count, -1, np.int64)
    for row in np.flatnonzero(parent != np.arange(count)):
        twins[row] = _root(parent, int(row))
    return twins


def _refuse_circles(parent: np.ndarray, order: np.ndarray) -> None:
    """Refuse rows that are copies of each other in a circle, which has no first row."""
    ends = parent
    for _ in range(len(parent).bit_length()):  # twice as many steps each time, so past the end of any chain
        ends = ends[ends]
    circle = np.flatnonzero(parent[ends] != ends)
    if len(circle):
        row = order[circle].min()
        raise InputError(
            f"duplicate_of, row {row}: expected rows that end at a kept one (-1), found that they lead back to each "
            "other; mark one of them as kept"
        )


def _join(parent: np.ndarray, row: int, other: int) -> None:
    """Put two rows into one set of copies, whose root is the row that sorts first."""
    first, second = sorted((_root(parent, row), _root(parent, other)))
    parent[second] = first


def _root(parent: np.ndarray, row: int) -> int:
    while parent[row] != row:
        row = int(parent[row])
    return row


@numba.njit(cache=True, nogil=True)
def hash_rows(words: np.ndarray) -> np.ndarray:
    """FNV-1a of each row, (N,) uint64."""
    hashes = np.empty(words.shape[0], np.uint64)
    for row in range(words.shape[0]):
        value = np.uint64(14695981039346656037)
        for column in range(words.shape[1]):
            value = (value ^ np.uint64(words[row, column])) * np.uint64(1099511628211)
        hashes[row] = value
    return hashes
