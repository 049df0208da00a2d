"""What a refresh has to do: list the sources, compare with the last commit, plan the parts. Imports no torch.

Not here: the work itself (`ingest`, `embedding`, `selection`) and its order, which is in `pipeline` and in the flow
`refresh`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

from wtl_core.errors import InputError
from wtl_core.pool.part_plan import PartPlan, plan_parts, snapshot_rows
from wtl_core.recipe import encoder_names
from wtl_core.recipe.encoder import PACKAGE_SIDE_PX
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import forecast, last_result, readmission, shard_sizes
from wtl_core.refresh.sources import Scope, check_removals, list_objects, scope_of, split_by_owner
from wtl_core.shards import discover
from wtl_core.shards.discover import LISTING_SCHEMA, Changes
from wtl_core.shards.objects import SourceObject
from wtl_core.shards.paths import is_s3
from wtl_core.workspace import commits, ledger
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.forecasts import Work
from wtl_core.workspace.run import ObjectChanges, Run
from wtl_core.workspace.snapshots import read_snapshot
from wtl_core.workspace.storage import Store

_PARTS_AT_ONCE = 1024
"""Parts that one call of the ingest stage makes: enough for all cores of a cluster, since each call starts its workers.
One that is tried again makes only what is not there."""
_LIGHT_BYTES = 64 * 2**20
"""New bytes up to which a refresh is light: some sixty photographs, or thousands of small images."""


@dataclass(frozen=True)
class RefreshPlan:
    """What one refresh will do.

    Attributes:
        root: The workspace.
        number: The number of the commit that it will make.
        recipe: What decides the result.
        sources: All sources that the pool draws on afterwards.
        snapshot: Every object of these sources, with the part that holds or will hold its images.
        batches: Groups of parts that must exist before the pool is complete, beside those of the last commit; parts
            that an earlier, killed run has made are among them.
        changes: How many objects are new, changed, gone and kept.
        last: The last commit, None before the first.
        is_noop: Nothing differs from the last commit, so its result stands.
        is_light: The work takes seconds: all of it on local disks, with the last refresh's encoder, and little to read.
        fresh: The objects that are new or changed, as the listing has them.
        work: How much there is to do, before an image is read.
        seconds: What listing and comparing took.
    """

    root: str
    number: int
    recipe: Recipe
    sources: list[str]
    snapshot: pl.DataFrame
    batches: int
    changes: ObjectChanges
    last: Commit | None
    is_noop: bool
    is_light: bool
    fresh: pl.DataFrame
    work: Work
    seconds: float


_handed_over: ContextVar[RefreshPlan | None] = ContextVar("handed_over", default=None)


@contextmanager
def handed_over(planned: RefreshPlan) -> Iterator[None]:
    """Let a refresh of this process that starts within the block follow a plan that is made already.

    For a command that has planned before it starts a server: the sources are then not listed a second time. A context
    variable carries the plan, since an orchestrator would copy a table of objects with every call.
    """
    token = _handed_over.set(planned)
    try:
        yield
    finally:
        _handed_over.reset(token)


def ready_plan(store: Store) -> RefreshPlan | None:
    """The plan that was handed over; None if there is none for this workspace, or another process committed since."""
    planned = _handed_over.get()
    if planned is None or planned.root != store.root or planned.last != commits.latest(store):
        return None
    return planned


def base_recipe(store: Store) -> Recipe:
    """The recipe that a run starts from when it is given none: the workspace's last one, or the defaults.

    Raises:
        ConfigError: the last one has keys that this version does not know.
    """
    last = commits.latest(store)
    return Recipe() if last is None else commits.recipe_of(last)


def plan(
    store: Store,
    sources: Sequence[str],
    recipe: Recipe | None,
    *,
    allow_removal: bool = False,
    forget: Sequence[str] = (),
) -> RefreshPlan:
    """List `sources` (all known ones if none is named), compare with the last commit, and plan the parts. Only reads.

    Sources to `forget` leave the workspace with their objects, whether they are there or not. All other known sources
    are then listed, since objects that one of them holds too stay. They are also listed where the recipe makes other
    parts, since the parts of all sources are then made anew.

    Args:
        store: The workspace.
        sources: Folders, buckets, shards or lists of URIs.
        recipe: What decides the result; the workspace's last one if None.
        allow_removal: Accept that more than half of a source has vanished.
        forget: Known sources that leave the workspace.

    Raises:
        ConfigError: no source is named or known, one is not there, one to forget is not known, or the recipe has an
            image side for an encoder that leaves no choice.
        InputError: more than half of a source has vanished and `allow_removal` is false, or the sources hold no object
            at all.

    Cost: one listing of the sources and one join; 1,000,000 objects in under two minutes and 1 GB.
    """
    started = time.perf_counter()
    last = commits.latest(store)
    recipe = _settled(store, last, recipe)
    is_remade = last is not None and last_result.makes_other_parts(last, recipe)
    found = _compare(store, scope_of(store, sources, last, forget=forget, is_remade=is_remade), last)
    changes, scope = found.changes, found.scope
    if not allow_removal:
        check_removals(found.mine, changes, found.listing)
    fresh = pl.concat([found.arrived, changes.kept.drop("part")]) if is_remade else found.arrived
    parts = readmission.without_refused(store, plan_parts(fresh, recipe.ingest), recipe.ingest)
    is_noop = last is not None and not parts and not found.has_left and _stands(store, last, recipe, found)
    return RefreshPlan(
        root=store.root,
        number=1 if last is None else last.number + 1,
        recipe=recipe,
        sources=scope.all,
        snapshot=found.known if is_noop else _snapshot(found, parts, is_remade=is_remade),
        batches=-(-len(parts) // _PARTS_AT_ONCE),
        changes=ObjectChanges(
            new=changes.new.height,
            changed=changes.changed.height,
            gone=changes.gone.height + found.before.height - found.known.height,
            kept=changes.kept.height,
        ),
        last=last,
        is_noop=is_noop,
        is_light=_is_light(store, last, recipe, scope.all, parts),
        fresh=fresh,
        work=_work(store, last, recipe, found, fresh),
        seconds=time.perf_counter() - started,
    )


def _settled(store: Store, last: Commit | None, recipe: Recipe | None) -> Recipe:
    """The recipe of the run. Raises ConfigError."""
    if recipe is None:
        recipe = base_recipe(store)
    elif last is None or recipe.encoder != last.recipe.encoder:  # what an earlier run recorded stays as it was written
        recipe = recipe.with_absolute_paths()
    encoder_names.check_side(recipe.encoder.name, recipe.encoder.side_px)
    return recipe


@dataclass(frozen=True)
class _Compared:
    """What the sources hold beside what the last commit knew.

    Attributes:
        scope: Which sources were listed.
        listing: Their objects now.
        before: The objects of the last commit, with their parts.
        known: Of these, those of sources that stay.
        mine: Of these, those of the listed sources.
        others: Of these, those of the others.
        changes: From `mine` to `listing`.
    """

    scope: Scope
    listing: pl.DataFrame
    before: pl.DataFrame
    known: pl.DataFrame
    mine: pl.DataFrame
    others: pl.DataFrame
    changes: Changes

    @property
    def arrived(self) -> pl.DataFrame:
        """New and changed objects."""
        return pl.concat([self.changes.new, self.changes.changed])

    @property
    def has_left(self) -> bool:
        """Whether objects or sources are gone."""
        return bool(self.scope.forgotten) or not self.changes.gone.is_empty()


def _compare(store: Store, scope: Scope, last: Commit | None) -> _Compared:
    """List the sources of the scope. Raises what `sources.list_objects` does."""
    listing = list_objects(store, scope)
    no_object = listing.clear().with_columns(part=pl.lit("", pl.String))
    before = no_object if last is None else read_snapshot(store, last.listing)
    known = before.filter(~pl.col("source").is_in(scope.forgotten)) if scope.forgotten else before
    listing, mine, others = split_by_owner(listing, known, scope.listed)
    changes = discover.diff(listing, mine, again=readmission.readable_again(store, mine))
    return _Compared(scope, listing, before, known, mine, others, changes)


def _stands(store: Store, last: Commit, recipe: Recipe, found: _Compared) -> bool:
    """Whether the last result is still what the recipe gives, where no object differs."""
    return (
        set(found.scope.listed) <= set(found.scope.staying)
        and not ledger.asks_for_a_ranking(store, last.ledger_length)
        and last_result.still_holds(store, last, recipe, found.known)
    )


def _snapshot(found: _Compared, parts: list[PartPlan], *, is_remade: bool) -> pl.DataFrame:
    """Every object afterwards, with its part. Raises InputError where there is none."""
    kept = found.changes.kept.clear() if is_remade else found.changes.kept
    snapshot = pl.concat([kept, found.others, snapshot_rows(parts)], how="diagonal_relaxed").sort("uri")
    if snapshot.is_empty():
        raise InputError(
            f"{', '.join(found.scope.all)}: expected images, tars, zips or Parquet shards, found no file at all; check "
            "the path, or put images there"
        )
    return snapshot


def _work(store: Store, last: Commit | None, recipe: Recipe, found: _Compared, fresh: pl.DataFrame) -> Work:
    """How much there is to do.

    New shards are taken to hold as many images for their bytes as the known objects do, or at the first refresh as one
    of them does. Of the last pool that share stays which lies in objects that are kept, and what is only read again,
    `fresh` but not arrived, has its vectors.
    """
    each = forecast.shipped_rates().tables["ingest"]["megabytes_per_image"]
    if last is None:
        each = shard_sizes.megabytes_per_image(found.listing, recipe.ingest) or each
    elif last.counts.locations and not found.before.is_empty():
        each = max(_megabytes(found.before) / last.counts.locations, 1e-6)
    arrived = pool = round(_images_in(found.arrived, each))
    if last is not None:
        kept = _images_in(found.changes.kept, each) + _images_in(found.others, each)
        pool += round(last.counts.samples * kept / max(_images_in(found.before, each), 1e-6))
    is_kept = last is not None and last_result.keeps_encoder(store, last, recipe)
    return work_of(
        recipe,
        objects=found.listing.height,
        images=round(_images_in(fresh, each)),
        megabytes=_megabytes(fresh),
        to_embed=arrived if is_kept else pool,
        pool=pool,
        is_kept=is_kept,
    )


def work_of(
    recipe: Recipe, *, objects: int, images: int, megabytes: float, to_embed: int, pool: int, is_kept: bool = False
) -> Work:
    """The work of so many objects and images by a recipe, whose encoder is there already if it `is_kept`."""
    kind = encoder_names.parse_name(recipe.encoder.name).kind
    seconds = recipe.encoder.seconds if kind == "ssl" else None
    return Work(
        objects=objects,
        images=images,
        megabytes=megabytes,
        keeps_bytes=recipe.ingest.store == "bytes",
        to_embed=to_embed,
        pool=pool,
        regions_from=recipe.selection.regions_from,
        network={"ssl": "own", "pixels": "pixels"}.get(kind, "package"),
        side_px=recipe.encoder.side_px or (PACKAGE_SIDE_PX if kind == "package" else None),
        auto_seconds=recipe.encoder.seconds if kind == "auto" else None,
        is_new_encoder=not is_kept,
        encoder_seconds=0.0 if is_kept or not encoder_names.is_made_here(recipe.encoder.name) else seconds,
    )


def _images_in(objects: pl.DataFrame, each: float) -> float:
    """An estimate of the images of objects: one in a loose one, and one for so many megabytes of a shard."""
    is_loose = pl.col("kind") == "loose"
    return objects.filter(is_loose).height + _megabytes(objects.filter(~is_loose)) / each


def _megabytes(objects: pl.DataFrame) -> float:
    return float(objects["size"].clip(0).sum()) / 1e6


def _is_light(
    store: Store, last: Commit | None, recipe: Recipe, sources: Sequence[str], parts: Sequence[PartPlan]
) -> bool:
    """Whether the work takes seconds, as `RefreshPlan.is_light` says."""
    if last is None or not last_result.keeps_encoder(store, last, recipe):
        return False
    places = [store.root, *sources, *(item.uri for part in parts for item in part.objects)]
    return not any(map(is_s3, places)) and sum(part.size for part in parts) <= _LIGHT_BYTES


def parts_of(run: Run, batch: int) -> list[PartPlan]:
    """A batch of the parts that the run makes, in the order of their plan; read from the listing snapshot."""
    objects = _fresh_objects(run.store, run.snapshot_key, "" if run.last is None else run.last.listing)
    digests = objects["part"].unique(maintain_order=True)[batch * _PARTS_AT_ONCE :][:_PARTS_AT_ONCE]
    rows_by_part = objects.filter(pl.col("part").is_in(digests.implode())).partition_by("part", maintain_order=True)
    columns = list(LISTING_SCHEMA)
    return [
        PartPlan(rows["part"][0], tuple(SourceObject(*row) for row in rows.select(columns).iter_rows()))
        for rows in rows_by_part
    ]


@lru_cache(maxsize=1)
def _fresh_objects(store: Store, snapshot_key: str, last_key: str) -> pl.DataFrame:
    """The objects of a snapshot whose parts the last one does not hold. Snapshots never change."""
    snapshot = read_snapshot(store, snapshot_key).sort("source", "uri")
    if not last_key:
        return snapshot
    return snapshot.join(read_snapshot(store, last_key), on="part", how="anti", maintain_order="left")
