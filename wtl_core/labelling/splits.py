"""The split of a pool into training, validation and test, by groups of images that are alike: made once, then extended.

An image keeps its side for good. New images follow what they are linked to (`split_groups`); those that are linked to
nothing are drawn as the first ones were (`split_draw`). A new group that is linked to two sides is on none: on any of
them it would be a leak. So no two linked images ever lie on two sides.
"""

import logging
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from wtl_core.embedding import chunks, vectors
from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import cut, split_groups, split_leaks
from wtl_core.labelling.split_draw import draw_sides
from wtl_core.labelling.split_leaks import Leaks
from wtl_core.labelling.split_state import Asked, asked_in_words
from wtl_core.machine import Progress
from wtl_core.pool import live_pool
from wtl_core.recipe.recipe import Recipe
from wtl_core.recipe.selection import EMPTY
from wtl_core.selection import ranking, stage
from wtl_core.selection.identity import content_keys
from wtl_core.workspace import commits, ledger, selections, sides, snapshots
from wtl_core.workspace.sides import SIDES
from wtl_core.workspace.storage import Store

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """A split, or what was added to one.

    Attributes:
        images: How many images each side got; those that are on none are not in it.
        on_none: Images that are linked to two sides and so are on none.
        followed: Images that follow what they are linked to.
        groups: Groups of all images that got a side.
        several: Groups of several images.
        in_several: Images in these.
        largest: Images of the largest group.
        too_large: Groups that are in training since they are larger than another side.
        distance: Vectors within it are linked.
        is_narrow: It is that of the ranking: the wider one would connect more than a side of the pool.
        leaks: What lies across the sides, beside a random split of single images; None for an addition.
    """

    images: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    on_none: int = 0
    followed: int = 0
    groups: int = 0
    several: int = 0
    in_several: int = 0
    largest: int = 0
    too_large: int = 0
    distance: float = 0.0
    is_narrow: bool = False
    leaks: Leaks | None = None

    def to_json(self) -> dict[str, Any]:
        """As `wtl split --json` prints it, and as it is kept beside the sides."""
        return asdict(self)


@dataclass(frozen=True)
class _Given:
    """What `_divided` works on: the unfiltered, usable samples with a vector, and how they are linked."""

    samples: pl.DataFrame
    encoder: str
    distances: tuple[float, float]
    device: str


def make(
    store: Store, asked: Asked, *, device: str = "cpu", is_dry: bool = False, on_progress: Progress | None = None
) -> Split:
    """Split the pool of the last refresh, or give a side to those of its images that have none yet.

    Images that filters exclude or that are unusable get no side. The next refresh ranks the images of training alone,
    and gives sides to what arrives.

    Args:
        store: The workspace.
        asked: The shares; those of a split that is there already must be the same.
        device: `cpu` or a CUDA device.
        is_dry: Enter nothing.
        on_progress: Called with how many images of how many are compared.

    Raises:
        ConfigError: the workspace has no ranking yet, or is split in another way.
        InputError: validation or test would get no image, or `group_by` names no column.

    Cost: all pairs of images are compared, see `near_pairs`; 100,000 take some half a minute on two cores.
    """
    last = cut.latest_refresh(store)
    recipe = commits.recipe_of(last)
    entries = ledger.read(store)
    before = sides.request(entries)
    if before is not None and before != asked.to_json():
        found = f"expected {asked_in_words(before)}, the split that is there, found {asked_in_words(asked.to_json())}"
        remedy = "an image never changes sides: `wtl split --undo` takes the split back"
        raise ConfigError(f"{store.root}: {found}; {remedy}")
    snapshot = snapshots.read_snapshot(store, last.listing)
    pool = live_pool.load(store, snapshot, filters=recipe.ingest.filters).samples
    receipt = selections.read_receipt(store, last.selection)
    distances = link_distances(store, recipe, last.encoder, receipt.get("near_copy_distance"))
    given = _Given(chunks.embeddable(store, pool, last.encoder), last.encoder, distances, device)
    rows, made = _divided(store, entries, given, asked, is_first=before is None, on_progress=on_progress)
    for name, share in zip(SIDES, asked.shares, strict=True):
        if before is None and share and not made.images[name]:
            raise InputError(
                f"{store.root}: expected groups of images that fit into {share:.0%} for {name}, found {made.groups:,} "
                f"groups of {rows.height:,} images, the largest of {made.largest:,}; add images, give {name} a larger "
                "share, or take coarse keys out of --group-by"
            )
    if rows.height and not is_dry:
        sides.append(store, rows, asked.to_json(), made.to_json() if before is None else None)
    return made


def extend(
    store: Store,
    samples: pl.DataFrame,
    recipe: Recipe,
    *,
    encoder: str,
    near_copy_distance: float | None,
    entries: int,
    device: str,
) -> int:
    """Give a side to those of the samples that have none, if the pool is split; a part of each refresh.

    Args:
        store: The workspace.
        samples: The live ones that have a vector, sorted by `sample_id`.
        recipe: The refresh's.
        encoder: Fingerprint of the encoder.
        near_copy_distance: The encoder's.
        entries: How many entries of the ledger the refresh has seen.
        device: `cpu` or a CUDA device.

    Returns:
        How many entries the ranking is to see: with the one of this addition, if there is any.
    """
    table = ledger.read(store)
    while table.filter(pl.col("entry") == entries + 1)["kind"].to_list() == ["split"]:
        entries += 1  # of this refresh, before it was killed or tried again
    table = table.filter(pl.col("entry") <= entries)
    before = sides.request(table)
    if before is None:
        return entries
    asked = Asked(**{**before, "group_by": tuple(before["group_by"])})
    distances = link_distances(store, recipe, encoder, near_copy_distance)
    rows, added = _divided(store, table, _Given(samples, encoder, distances, device), asked, is_first=False)
    if rows.is_empty():
        return entries
    _logger.info("split: %d new images, %s, %d on none", rows.height, added.images, added.on_none)
    return sides.append(store, rows, asked.to_json())


def link_distances(store: Store, recipe: Recipe, encoder: str, near_copy_distance: float | None) -> tuple[float, float]:
    """Within which vectors are linked: as far as near-copies lie apart, and the distance of the ranking, if narrower.

    A ranking counts as near-duplicates what lies within two thirds of its kernel's scale at most. In two pools of
    CIFAR-10 with 200 planted bursts each half of it cut 15 and 16 of them, and the distance of near-copies none.
    """
    near = recipe.selection.near_duplicate_distance
    near = near_copy_distance if near is None else near
    return ranking.near_distance(near, None), ranking.near_distance(near, stage.read_scale(store, encoder))


def _divided(
    store: Store,
    entries: pl.DataFrame,
    given: _Given,
    asked: Asked,
    *,
    is_first: bool,
    on_progress: Progress | None = None,
) -> tuple[pl.DataFrame, Split]:
    """The samples without a side, each with one or with null, and what can be told of it."""
    known = sides.read(store, entries)
    is_unusable = pl.col("sample_id").is_in(ledger.sample_ids(entries, "unusable"))
    open_ones = given.samples.filter(~pl.col("is_filtered"), ~is_unusable)
    new = open_ones.join(known, on="sample_id", how="anti", maintain_order="left")
    new = new.with_columns(split=pl.lit(None, pl.String))
    if new.is_empty():
        return pl.DataFrame(schema=sides.SCHEMA), Split()
    embedded = vectors.existing_ids(store, given.encoder)
    sided = known.filter(pl.col("split").is_not_null(), pl.col("sample_id").is_in(embedded.implode()))
    sided = sided.join(given.samples, on="sample_id", how="left", maintain_order="left")
    samples = pl.concat([new, sided.select(new.columns)])
    ids = samples["sample_id"].to_list()
    matrix = vectors.load(store, given.encoder, ids)
    group_by = [name for name in asked.group_by if is_first or split_groups.has_column(samples, name)]
    find = partial(
        split_groups.find,
        samples,
        matrix,
        group_by=group_by,
        shares=asked.shares,
        device=given.device,
        on_progress=on_progress,
    )
    is_narrow = not is_first and bool(sides.read_report(store, entries).get("is_narrow"))
    distance, narrow = given.distances
    groups = find(distance=narrow if is_narrow else distance)
    most = new.height * min(share for share in asked.shares[1:] if share)
    if is_first and narrow < distance and groups.largest > most and (again := find(distance=narrow)).largest <= most:
        groups, is_narrow = again, True
    side_of, too_large = _drawn(new, groups, ledger.labels(entries), asked, others=known.height)
    of_image = side_of[groups.of]
    sizes = np.bincount(groups.of)
    names = np.array([*SIDES, None], object)
    rows = new.select("sample_id").with_columns(split=pl.Series(names[of_image].tolist(), dtype=pl.String))
    leaks = None
    if is_first:
        leaks = split_leaks.measure(matrix[: new.height], of_image, groups, ids=ids[: new.height])
    return rows, Split(
        images={name: int((of_image == number).sum()) for number, name in enumerate(SIDES)},
        on_none=int((of_image < 0).sum()),
        followed=int(np.isin(groups.touched[groups.of], [1, 2, 4]).sum()),
        groups=len(sizes),
        several=int((sizes > 1).sum()),
        in_several=int(sizes[sizes > 1].sum()),
        largest=groups.largest,
        too_large=too_large,
        distance=narrow if is_narrow else distance,
        is_narrow=is_narrow,
        leaks=leaks,
    )


def _drawn(
    new: pl.DataFrame, groups: split_groups.Groups, labels: pl.DataFrame, asked: Asked, *, others: int
) -> tuple[np.ndarray, int]:
    """The side of each group, -1 for none, (G,) int8; and how many are too large for validation and test."""
    side_of = np.full(len(groups.touched), -1, np.int8)
    for number in range(len(SIDES)):
        side_of[groups.touched == 1 << number] = number
    free = np.flatnonzero(groups.touched == 0)
    first = np.unique(groups.of, return_index=True)[1]  # samples are sorted: of the smallest id
    keys = content_keys(new["sample_id"].gather(first[free]).to_list())
    classes = _classes(new, groups.of, labels)[free]
    drawn, too_large = draw_sides(np.bincount(groups.of)[free], classes, keys, shares=asked.shares, others=others)
    side_of[free] = drawn
    return side_of, too_large


def _classes(new: pl.DataFrame, groups: np.ndarray, labels: pl.DataFrame) -> np.ndarray:
    """The commonest class of each group's labelled images as a number from 1, 0 where none is known, (G,) int64."""
    first = labels.drop_nulls("classes").select("sample_id", named=pl.col("classes").list.first().fill_null(EMPTY))
    table = new.select("sample_id").with_columns(group=pl.Series(groups)).join(first, on="sample_id")
    counts = table.group_by("group", "named").len().sort("group", "len", "named", descending=[False, True, False])
    best = counts.unique("group", keep="first", maintain_order=True)
    codes = np.zeros(int(groups.max()) + 1, np.int64)
    codes[best["group"].to_numpy()] = best["named"].rank("dense").to_numpy()
    return codes
