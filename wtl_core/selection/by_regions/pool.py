"""What is known of a large pool beside its vectors, and these dealt out to the files of the regions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from wtl_core.errors import InputError
from wtl_core.selection.by_regions.division import Division
from wtl_core.selection.by_regions.files import Files
from wtl_core.selection.identity import Purpose, content_keys, draw
from wtl_core.selection.ranking import Steering, group_codes
from wtl_core.selection.sorted_rows import Batches, given_copies, unit_vectors
from wtl_core.selection.steering import check_weights

_KEYED = 1 << 20  # ids that are texts of this process at once


_PLACED = 1 << 16
"""Rows that find their regions at once: sixteen blocks."""
_HELD = 1 << 28
"""Bytes of vectors that are held before they go to the regions' files."""


@dataclass(frozen=True)
class LargePool:
    """What is known of N samples beside their vectors, sorted by id.

    Attributes:
        caller_rows: (N,) int64, each sample's row in the caller's arrays.
        place: (N,) int64, the sorted row of each of the caller's rows.
        keys: (N,) uint64, by content.
        copies: (N,) int64, the sample that each is given as a pixel-identical copy of, or -1.
        base: (N,) float64 weights of at most 1; None where all are 1.
        codes: (N,) int32, the place of each sample's group in `names`; None without groups.
        names: Groups, sorted.
        labelled: (G,) labelled images of each group.
        frozen: (F,) int64 samples that come first, in this order.
    """

    caller_rows: np.ndarray
    place: np.ndarray
    keys: np.ndarray
    copies: np.ndarray
    base: np.ndarray | None
    codes: np.ndarray | None
    names: list[str]
    labelled: np.ndarray
    frozen: np.ndarray

    @property
    def count(self) -> int:
        """N, copies included."""
        return len(self.keys)

    def is_dealt_out(self) -> np.ndarray:
        """(N,) samples that a region needs the vector of: all but copies and what weighs nothing, which rank behind."""
        is_dealt = self.copies < 0
        if self.base is not None:
            is_dealt &= self.base > 0
        is_dealt[self.frozen] = True
        return is_dealt


@dataclass(frozen=True)
class Drawn:
    """Samples drawn by content: `rows` (S,) ascending, `keys` (S,), `vectors` (S, D)."""

    rows: np.ndarray
    keys: np.ndarray
    vectors: np.ndarray


def large_pool(sample_ids: pl.Series, steering: Steering) -> LargePool:
    """The pool of these ids, in the caller's order, and what steers its ranking. Raises what `rank_by_regions` does."""
    count = len(sample_ids)
    if count == 0:
        raise InputError("vectors: expected at least one row, found none; add images")
    caller_rows = sample_ids.arg_sort().to_numpy().astype(np.int64)
    ordered = sample_ids.gather(caller_rows)
    repeated = np.flatnonzero((ordered.slice(1) == ordered.slice(0, count - 1)).to_numpy())
    if len(repeated):
        raise InputError(
            f"sample {ordered[int(repeated[0])]}: expected each sample_id once, found it twice; keep one of its rows"
        )
    place = np.empty(count, np.int64)
    place[caller_rows] = np.arange(count)
    parents = given_copies(caller_rows, steering.duplicate_of)
    while not np.array_equal(parents, above := parents[parents]):
        parents = above
    copies = np.where(parents == np.arange(count), -1, parents)
    base = None
    if steering.weights is not None:
        base = check_weights(steering.weights, count)[caller_rows]
        is_copy = copies >= 0
        np.maximum.at(base, copies[is_copy], base[is_copy])
        base /= base.max()
    names, codes, labelled = group_codes(steering, count)
    frozen = np.zeros(0, np.int64) if steering.frozen is None else np.asarray(steering.frozen, np.int64)
    if len(frozen) and (frozen.min() < 0 or frozen.max() >= count or len(np.unique(frozen)) < len(frozen)):
        raise InputError(f"frozen: expected distinct rows from 0 to {count - 1}; leave out what is not in the pool")
    keys = np.concatenate([content_keys(ordered.slice(start, _KEYED).to_list()) for start in range(0, count, _KEYED)])
    return LargePool(
        caller_rows=caller_rows,
        place=place,
        keys=keys,
        copies=copies,
        base=base,
        codes=None if codes is None else codes[caller_rows],
        names=names,
        labelled=labelled,
        frozen=place[frozen],
    )


def drawn_rows(pool: LargePool, purpose: Purpose, count: int) -> np.ndarray:
    """The first samples in a random order that depends on content alone; none that rank behind the others."""
    rows = np.flatnonzero(pool.is_dealt_out())
    numbers = draw(pool.keys[rows], 0, purpose)  # distinct, as keys are
    part = np.argpartition(numbers, count)[:count] if count < len(rows) else np.arange(len(rows))
    return rows[part[np.argsort(numbers[part])]]


def deal_out(batches: Batches, pool: LargePool, division: Division, files: Files) -> np.ndarray:
    """Write each region's samples and guests into files; how many each has, (regions,) int64.

    `region-<region>-<piece>` has `rows` int32, `is_own`, `vectors`, `keys`, `base` float64, `codes` int32 and
    `is_frozen`; `dealt` has `sizes` (pieces, regions), and is written last.
    """
    if files.has("dealt"):
        return np.asarray(files.read("dealt", "sizes")[0].sum(0))
    is_dealt, is_frozen = pool.is_dealt_out(), np.zeros(pool.count, bool)
    is_frozen[pool.frozen] = True
    held: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    sizes: list[np.ndarray] = []

    def flush() -> None:
        region, rows, is_own, vectors = (np.concatenate(parts) for parts in zip(*held, strict=True))
        held.clear()
        order = np.argsort(region, kind="stable")
        edges = np.searchsorted(region[order], np.arange(division.count + 1))
        for number in np.flatnonzero(np.diff(edges)):
            part = order[edges[number] : edges[number + 1]]
            here = rows[part]
            files.write(
                f"region-{number:06d}-{len(sizes):05d}",
                rows=here.astype(np.int32),
                is_own=is_own[part],
                vectors=vectors[part],
                keys=pool.keys[here],
                base=np.ones(len(here)) if pool.base is None else pool.base[here],
                codes=np.zeros(len(here), np.int32) if pool.codes is None else pool.codes[here],
                is_frozen=is_frozen[here],
            )
        sizes.append(np.diff(edges))

    for given, found in _together(batches()):
        kept = is_dealt[pool.place[given]]
        rows, vectors = pool.place[given[kept]], found[kept]
        own, guests = division.places(vectors)
        at, which = np.nonzero(guests >= 0)
        held.append((own, rows, np.ones(len(rows), bool), vectors))
        held.append((guests[at, which], rows[at], np.zeros(len(at), bool), vectors[at]))
        if sum(part[3].nbytes for part in held) > _HELD:
            flush()
    if held:
        flush()
    files.write("dealt", sizes=np.stack(sizes))
    return np.asarray(np.stack(sizes).sum(0))


def _together(batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of at least `_PLACED` rows, but for the last: enough for each thread to have some to place."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in batches:
        held.append(batch)
        if sum(len(rows) for rows, _ in held) >= _PLACED:
            yield np.concatenate([rows for rows, _ in held]), np.concatenate([vectors for _, vectors in held])
            held = []
    if held:
        yield np.concatenate([rows for rows, _ in held]), np.concatenate([vectors for _, vectors in held])


def write_outside(files: Files, steering: Steering, width: int) -> np.ndarray:
    """`labelled` and `similar`: vectors of images outside the ranking; the labelled ones, (L, D)."""
    given = np.zeros((0, width), np.float16) if steering.labelled is None else steering.labelled
    labelled = unit_vectors(given, None, what="labelled", width=width)
    files.write("labelled", vectors=labelled)
    similar = {
        f"like{place}": unit_vectors(some, None, what="similar", width=width)
        for place, (some, _) in enumerate(steering.similar)
    }
    files.write("similar", powers=np.array([power for _, power in steering.similar]), **similar)
    return labelled
