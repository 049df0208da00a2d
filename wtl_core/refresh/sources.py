"""The sources of a workspace: how they are spelled, which of them a refresh lists, and what lies in them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from wtl_core.errors import ConfigError, InputError
from wtl_core.shards import discover
from wtl_core.shards.discover import Changes
from wtl_core.workspace import commits, storage
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_VANISHED_SHARE = 0.5
"""More of a source than this gone at once looks like an unmounted disk, not like a clean-up."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scope:
    """Which sources a refresh lists, which of the known ones stay, and which leave the workspace."""

    listed: list[str]
    staying: list[str]
    forgotten: list[str]

    @property
    def all(self) -> list[str]:
        """The sources that the pool draws on after the refresh, sorted."""
        return sorted({*self.staying, *self.listed})


def source_uri(source: str) -> str:
    """The spelling by which a source is known: an absolute path, or the URI without a trailing slash."""
    return storage.open_store(source).root


def with_known(store: Store, named: Sequence[str], forget: Sequence[str] = ()) -> list[str]:
    """The named sources, and all others that the workspace knows but those to `forget`."""
    last = commits.latest(store)
    forgotten = {source_uri(source) for source in forget}
    known = [source for source in (last.sources if last is not None else []) if source not in forgotten]
    return list(dict.fromkeys([*map(source_uri, named), *known]))


def scope_of(
    store: Store, named: Sequence[str], last: Commit | None, *, forget: Sequence[str], is_remade: bool
) -> Scope:
    """The scope of a refresh that names sources, or none for all known ones.

    All known sources are listed where one is forgotten, since objects that another one holds too stay, and where all
    parts are remade (`is_remade`).

    Raises:
        ConfigError: no source is left to list, one to forget is not known, or one is named and forgotten.
    """
    known = last.sources if last is not None else []
    forgotten = [source_uri(source) for source in forget]
    listed = [source_uri(source) for source in named]
    for source in forgotten:
        if source not in known:
            found = ", ".join(known) or "none"
            raise ConfigError(
                f"{source}: expected a source of this workspace to forget, found {found}; name one of them"
            )
        if source in listed:
            raise ConfigError(f"{source}: expected it to be read or to be forgotten, found both; name it once")
    staying = [source for source in known if source not in forgotten]
    if forgotten or is_remade or not listed:
        listed = list(dict.fromkeys([*listed, *staying]))
    if not listed:
        found = "none named and none " + ("left" if forgotten else "known")
        raise ConfigError(f"{store.root}: expected a source, found {found}; name one: wtl run DIR")
    return Scope(listed, staying, forgotten)


def list_objects(store: Store, scope: Scope) -> pl.DataFrame:
    """Every object of the listed sources, each once; of nested sources the outer one owns it.

    Raises what `discover.list_source` does.
    """
    frames = []
    for source in sorted(set(scope.listed)):
        try:
            frame = discover.list_source(source, exclude=[store.root])
        except ConfigError as error:
            if source in scope.staying:
                raise ConfigError(f"{error}; if it is gone for good: wtl run --forget {source}") from error
            raise
        _logger.info("%s: %s %s", source, f"{frame.height:,}", "object" if frame.height == 1 else "objects")
        frames.append(frame)
    return each_once(frames)


def each_once(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Listings joined and sorted by URI; of an object in several of them, the row of the first."""
    listing = pl.concat(frames)
    return (listing.unique("uri", keep="first", maintain_order=True) if len(frames) > 1 else listing).sort("uri")


def split_by_owner(
    listing: pl.DataFrame, known: pl.DataFrame, listed: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The listing without objects that a source which is not listed owns, and the known objects of listed and others.

    Args:
        listing: Objects that are there now.
        known: Objects of the last commit, with their parts.
        listed: The sources that the listing covers.
    """
    is_listed = pl.col("source").is_in(list(listed))
    others = known.filter(~is_listed)
    if others.is_empty():  # the usual case: a million rows are not copied for nothing
        return listing, known, others
    return listing.join(others, on="uri", how="anti"), known.filter(is_listed), others


def check_removals(known: pl.DataFrame, changes: Changes, listing: pl.DataFrame) -> None:
    """Refuse a refresh that more than half of a source has vanished for. Raises InputError.

    Args:
        known: Objects that the listed sources held at the last commit.
        changes: What became of them.
        listing: Objects that are there now.
    """
    for (source,), rows in _vanished(changes, listing).group_by("source", maintain_order=True):
        total = known.filter((pl.col("source") == source) & discover.IS_REACHABLE).height
        if rows.height > total * _VANISHED_SHARE:
            raise InputError(
                f"{source}: {rows.height} of {total} known objects have vanished, for example {rows['uri'][0]!r}; if a "
                "disk is not mounted, mount it; if they were deleted on purpose, run again with --allow-removal"
            )


def _vanished(changes: Changes, listing: pl.DataFrame) -> pl.DataFrame:
    """Objects that could be opened and cannot now: gone from the listing, or still in it and unreachable.

    Names outlive their objects in lists of URIs, and as links into a disk that is not mounted. An object that another
    source reaches now has not vanished: it has another owner.
    """
    lost = [changes.gone.filter(discover.IS_REACHABLE), changes.changed.filter(~discover.IS_REACHABLE)]
    names = pl.concat([frame.select("source", "uri") for frame in lost])
    if names.is_empty():  # the usual case: a million rows are not joined for nothing
        return names
    reached = listing.lazy().filter(discover.IS_REACHABLE).select("uri")
    return names.lazy().join(reached, on="uri", how="anti").sort("uri").collect()
