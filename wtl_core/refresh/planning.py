"""What a refresh has to do: list the sources, compare with the last commit, plan the parts. Imports no torch.

Here: the decision. Not here: the work itself (`ingest`, `embedding`, `selection`) and its order, which `pipeline` (a
plain script) and the flow `refresh` tell.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import polars as pl

from wtl_core.encoders import weights_files
from wtl_core.errors import ConfigError, InputError
from wtl_core.images.faults import TRANSIENT
from wtl_core.pool import live_pool
from wtl_core.pool.part_file import quarantine_key
from wtl_core.pool.part_plan import PartPlan, plan_parts, snapshot_rows
from wtl_core.recipe import encoder_names
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import readmission
from wtl_core.shards import discover
from wtl_core.shards.discover import LISTING_SCHEMA, Changes
from wtl_core.shards.objects import SourceObject
from wtl_core.training import succession
from wtl_core.workspace import commits, ledger, selections, storage
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.run import ObjectChanges
from wtl_core.workspace.snapshots import read_snapshot
from wtl_core.workspace.storage import Store

_VANISHED_SHARE = 0.5
"""More of a source than this gone at once looks like an unmounted disk, not like a clean-up."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RefreshPlan:
    """What one refresh will do.

    Attributes:
        root: The workspace.
        number: The number of the commit that it will make.
        recipe: What decides the result.
        sources: All sources that the pool draws on afterwards.
        snapshot: Every object of these sources, with the part that holds or will hold its images.
        parts: How many parts must exist before the pool is complete, beside those of the last commit; parts that an
            earlier, killed run has made are counted.
        changes: How many objects are new, changed, gone and kept.
        last: The last commit, None before the first.
        is_noop: Nothing differs from the last commit, so its result stands.
        seconds: What listing and comparing took.
    """

    root: str
    number: int
    recipe: Recipe
    sources: list[str]
    snapshot: pl.DataFrame
    parts: int
    changes: ObjectChanges
    last: Commit | None
    is_noop: bool
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

    Sources to `forget` are not looked at: with their objects they leave the workspace, whether they are there or not.
    All known others are then read again, since objects that one of them holds too stay; so they are where the recipe
    makes other parts, since those of all sources are made anew.

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
    recipe = base_recipe(store) if recipe is None else recipe.with_absolute_paths()
    encoder_names.check_side(recipe.encoder.name, recipe.encoder.side_px)
    last = commits.latest(store)
    known = read_snapshot(store, last.listing) if last is not None else None
    forgotten = _forgotten(forget, named=sources, known=last.sources if last is not None else [])
    known_sources = [source for source in (last.sources if last is not None else []) if source not in forgotten]
    listed = [source_uri(source) for source in sources]
    is_remade = last is not None and _makes_other_parts(last, recipe)
    if forgotten or is_remade or not listed:
        listed = list(dict.fromkeys([*listed, *known_sources]))
    if not listed:
        found = "none named and none " + ("left" if forgotten else "known")
        raise ConfigError(f"{store.root}: expected a source, found {found}; name one: wtl run DIR")
    listing = _list(store, listed, known=known_sources)
    if known is None:
        known = listing.clear().with_columns(part=pl.lit("", dtype=pl.String))
    dropped = known.filter(pl.col("source").is_in(forgotten))
    known = known.filter(~pl.col("source").is_in(forgotten)) if forgotten else known
    listing, mine, others = split_by_owner(listing, known, listed)
    changes = discover.diff(listing, mine, again=readmission.readable_again(store, mine))
    if not allow_removal:
        _check_removals(mine, _vanished(changes, listing))
    kept, fresh = changes.kept, pl.concat([changes.new, changes.changed])
    if is_remade:
        fresh, kept = pl.concat([fresh, kept.drop("part")]), kept.clear()
    parts = readmission.without_refused(store, plan_parts(fresh, recipe.ingest), recipe.ingest)
    is_noop = (
        last is not None
        and not parts
        and not forgotten
        and changes.gone.is_empty()
        and set(listed) <= set(known_sources)
        and last.ledger_length == ledger.length(store)
        and _stands(store, last, recipe, known)
    )
    together = [kept, others, snapshot_rows(parts)]
    snapshot = known if is_noop else pl.concat(together, how="diagonal_relaxed").sort("uri")
    all_sources = sorted({*known_sources, *listed})
    if snapshot.is_empty() and not is_noop:
        raise InputError(
            f"{', '.join(all_sources)}: expected images, tars, zips or Parquet shards, found no file at all; check the "
            "path, or put images there"
        )
    return RefreshPlan(
        root=store.root,
        number=1 if last is None else last.number + 1,
        recipe=recipe,
        sources=all_sources,
        snapshot=snapshot,
        parts=len(parts),
        changes=ObjectChanges(
            new=changes.new.height,
            changed=changes.changed.height,
            gone=changes.gone.height + dropped.height,
            kept=changes.kept.height,
        ),
        last=last,
        is_noop=is_noop,
        seconds=time.perf_counter() - started,
    )


def current_encoder(store: Store, last: Commit | None, name: str) -> str | None:
    """Fingerprint of the trained encoder to use for `name`: the successor if one was trained, else the last refresh's.

    None where the name asks for no trained encoder, or where none is there yet.
    """
    if not encoder_names.is_trained_here(name):
        return None
    if last is not None and last.encoder_name != name:
        last = None
    return succession.successor(store) or (last.encoder if last is not None else None)


def is_successor_due(store: Store, last: Commit | None, recipe: Recipe) -> bool:
    """Whether the recipe has this refresh train the next encoder.

    By what the last one measured: a refresh ranks its arrivals at once, and the one behind it trains.
    """
    return (
        last is not None
        and recipe.encoder.retrain == "automatic"
        and current_encoder(store, last, recipe.encoder.name) == last.encoder
        and bool(succession.reasons(last.encoder_age, recipe.encoder))
    )


def _makes_other_parts(last: Commit, recipe: Recipe) -> bool:
    is_known = not any(key.startswith("ingest") for key in last.unknown_recipe_keys)
    return not is_known or last.recipe.ingest.part_digest() != recipe.ingest.part_digest()


def _stands(store: Store, last: Commit, recipe: Recipe, known: pl.DataFrame) -> bool:
    """Whether the last result is what the recipe gives for the same pool and ledger."""
    return (
        last.recipe == recipe
        and not last.unknown_recipe_keys
        and last.selection_version == selections.VERSION
        and current_encoder(store, last, recipe.encoder.name) in (None, last.encoder)
        and not is_successor_due(store, last, recipe)
        and not weights_files.has_changed(last.encoder_file, recipe.encoder.name)
        and not _is_embeddable_now(store, last, known)
    )


def _is_embeddable_now(store: Store, last: Commit, known: pl.DataFrame) -> bool:
    """Whether a sample that the encoder could not get at, in a pool that only refers to its images, is there now."""
    key = quarantine_key(f"embedding-{last.encoder}")
    if not store.exists(key):
        return False
    refused = store.read_frame(key)
    passing = refused.filter(pl.col("reason").is_in([str(reason) for reason in TRANSIENT]))
    objects = known.join(passing, left_on="uri", right_on="object_uri", how="semi")
    if objects.is_empty():
        return False
    places = live_pool.load_locations(store, objects).join(passing, on="sample_id", how="semi")
    return any(
        data is not None
        for (part,), rows in places.group_by("part", maintain_order=True)
        for _, data in live_pool.read_images(store, str(part), rows["row"].to_list())
    )


def source_uri(source: str) -> str:
    """The one spelling of a source by which it is known: an absolute path, or the URI without a trailing slash."""
    return storage.open_store(source).root


def with_known(store: Store, sources: Sequence[str], forget: Sequence[str] = ()) -> list[str]:
    """`sources`, and all others that the workspace knows but those to `forget`."""
    last = commits.latest(store)
    forgotten = {source_uri(source) for source in forget}
    known = [source for source in (last.sources if last is not None else []) if source not in forgotten]
    return list(dict.fromkeys([*map(source_uri, sources), *known]))


def split_by_owner(
    listing: pl.DataFrame, known: pl.DataFrame, touched: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The listing without what an untouched source owns, and the known objects of touched and of other sources."""
    is_mine = pl.col("source").is_in(list(touched))
    others = known.filter(~is_mine)
    if others.is_empty():  # as most often; a million rows are not copied for nothing
        return listing, known, others
    return listing.join(others, on="uri", how="anti"), known.filter(is_mine), others


def plans_of(snapshot: pl.DataFrame) -> list[PartPlan]:
    """The plans behind rows of a snapshot, all objects of a part together, as `plan_parts` made them."""
    parts = snapshot.sort("source", "uri").partition_by("part", maintain_order=True, include_key=True)
    columns = list(LISTING_SCHEMA)
    return [
        PartPlan(rows["part"][0], tuple(SourceObject(*row) for row in rows.select(columns).iter_rows()))
        for rows in parts
    ]


def _forgotten(forget: Sequence[str], *, named: Sequence[str], known: Sequence[str]) -> list[str]:
    """The sources to forget, as the workspace knows them."""
    forgotten = [source_uri(source) for source in forget]
    for source in forgotten:
        if source not in known:
            told = ", ".join(known) or "none"
            raise ConfigError(
                f"{source}: expected a source of this workspace to forget, found {told}; name one of them"
            )
        if source in {source_uri(other) for other in named}:
            raise ConfigError(f"{source}: expected it to be read or to be forgotten, found both; name it once")
    return forgotten


def _list(store: Store, sources: Sequence[str], *, known: Sequence[str]) -> pl.DataFrame:
    """Every object of the sources, each once (of nested sources the outer one owns it)."""
    frames = []
    for source in sorted(set(sources)):
        try:
            frame = discover.list_source(source, exclude=[store.root])
        except ConfigError as error:
            if source in known:
                raise ConfigError(f"{error}; if it is gone for good: wtl run --forget {source}") from error
            raise
        _logger.info("%s: %d objects", source, frame.height)
        frames.append(frame)
    return each_once(frames)


def each_once(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Listings together, by URI; of an object that several list the first one's row. One listing has no repeats."""
    listing = pl.concat(frames)
    return (listing.unique("uri", keep="first", maintain_order=True) if len(frames) > 1 else listing).sort("uri")


def _vanished(changes: Changes, listing: pl.DataFrame) -> pl.DataFrame:
    """Objects that could be reached and cannot now: gone from the listing, or still named there and not to be opened.

    Names outlive their objects in lists of URIs, and as links into a disk that is not mounted. An object that another
    source reaches now has changed hands, it has not vanished.
    """
    lost = [changes.gone.filter(discover.IS_REACHABLE), changes.changed.filter(~discover.IS_REACHABLE)]
    names = pl.concat([frame.select("source", "uri") for frame in lost])
    if names.is_empty():  # as most often; a million rows are not joined for nothing
        return names
    reached = listing.lazy().filter(discover.IS_REACHABLE).select("uri")
    return names.lazy().join(reached, on="uri", how="anti").sort("uri").collect()


def _check_removals(known: pl.DataFrame, vanished: pl.DataFrame) -> None:
    for (source,), rows in vanished.group_by("source", maintain_order=True):
        total = known.filter((pl.col("source") == source) & discover.IS_REACHABLE).height
        if rows.height > total * _VANISHED_SHARE:
            raise InputError(
                f"{source}: {rows.height} of {total} known objects have vanished, for example {rows['uri'][0]!r}; if a "
                "disk is not mounted, mount it; if they were deleted on purpose, run again with --allow-removal"
            )
