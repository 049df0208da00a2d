"""Finds the samples of the pool that names mean: ids, paths, URIs, keys."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.pool import live_pool
from wtl_core.workspace import commits, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

NAMES_SCHEMA = {"name": pl.String, "sample_id": pl.String}
_SHOWN = 3


def known_names(store: Store) -> pl.DataFrame:
    """Every way to name a sample of the workspace, a row each: `name`, `sample_id`; rows may repeat.

    A sample has its id as a name, the URI of each of its locations, the path of that or the key of a member, and the
    file name in it. A sample that has left the pool has its id as long as its vector is there.

    Raises:
        ConfigError: the workspace has no refresh yet.
    """
    last = _latest(store)
    return _names_of(store, last, _locations(store, last))


def match(names: pl.DataFrame, values: Sequence[str]) -> pl.DataFrame:
    """The samples that values name: `value`, `sample_ids` (sorted list, empty for none), in the order of `values`.

    A value is looked up as it is, as a path from the current folder, and as the end of a name from a `/` on; if that
    finds nothing, once more without blanks around it and without the apostrophe that `wtl cut` puts before what a
    spreadsheet would take for a formula. The first of these that finds a sample counts.

    Args:
        names: What `known_names` returns.
        values: Distinct values.

    Cost: one join, and one pass over the names for each depth of a relative path.
    """
    forms = [
        (value, order, form, order % 3 == 2)
        for value in values
        for first, spelling in ((0, value), (3, _plain(value)))
        for order, form in (
            (first, spelling),
            (first + 1, str(Path(spelling).absolute())),
            (first + 2, spelling.removeprefix("./")),
        )
        if order % 3 < 2 or "/" in spelling
    ]
    return _best(names, values, forms)


def match_stems(names: pl.DataFrame, values: Sequence[str]) -> pl.DataFrame:
    """The samples that paths without an ending name, as `match` returns them.

    The folders in front may be those of a tool: of a value's ends, from a `/` on, the longest one that names a sample
    without its ending counts. Names of samples lose what follows their last dot.
    """
    ends = [(value, value.split("/")) for value in values]
    forms = [
        (value, order, "/".join(parts[order:]), order < len(parts) - 1)
        for value, parts in ends
        for order in range(len(parts))
    ]
    return _best(names.with_columns(pl.col("name").str.replace(r"\.[^./]*$", "")), values, forms)


def _best(names: pl.DataFrame, values: Sequence[str], forms: list[tuple[str, int, str, bool]]) -> pl.DataFrame:
    """The samples of each value by the first of its forms that has any: (value, order, form, whether it is an end)."""
    kinds = {"value": pl.String, "order": pl.Int64, "form": pl.String, "is_end": pl.Boolean}
    asked = pl.DataFrame(forms, schema=kinds, orient="row")
    exact = asked.filter(~pl.col("is_end")).join(names, left_on="form", right_on="name")
    relative = asked.filter("is_end")
    found = pl.concat([exact, relative.join(_ends(names, relative["form"]), on="form")])
    best = found.filter(pl.col("order") == pl.col("order").min().over("value"))
    ids = best.group_by("value").agg(pl.col("sample_id").unique().sort().alias("sample_ids"))
    wanted = pl.DataFrame({"value": list(values)}, schema={"value": pl.String})
    matched = wanted.join(ids, on="value", how="left", maintain_order="left")
    return matched.with_columns(pl.col("sample_ids").fill_null(pl.lit([], pl.List(pl.String))))


def find(store: Store, value: str) -> str:
    """The id of the one sample that `value` names, as `match` looks it up, or by the beginning of its id.

    Raises:
        ConfigError: it names none or several (the first ones are shown), or the workspace has no refresh yet.
    """
    last = _latest(store)
    locations = _locations(store, last)
    names = _names_of(store, last, locations)
    ids: list[str] = match(names, [value])["sample_ids"][0].to_list()
    if not ids and value:
        ids = names.filter(pl.col("sample_id").str.starts_with(value))["sample_id"].unique().sort().to_list()
    if len(ids) == 1:
        return ids[0]
    uris = dict(
        locations.filter(pl.col("sample_id").is_in(ids[:_SHOWN])).group_by("sample_id").agg(pl.min("uri")).iter_rows()
    )
    shown = [f"{sample_id[:16]} ({uris.get(sample_id, 'no longer in the pool')})" for sample_id in ids[:_SHOWN]]
    first = f", first {', '.join(shown)}; give more of it" if ids else ""
    raise ConfigError(
        f"{value!r}: expected the beginning of one sample's id, or its path, URI or key, found {len(ids)} that fit"
        f"{first}"
    )


def _latest(store: Store) -> Commit:
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a pool, found none yet; `wtl run SOURCE` makes one")
    return last


def _locations(store: Store, commit: Commit) -> pl.DataFrame:
    return live_pool.load_locations(store, snapshots.read_snapshot(store, commit.listing))


def _names_of(store: Store, commit: Commit, locations: pl.DataFrame) -> pl.DataFrame:
    from wtl_core.embedding import vectors  # here: the command line does without LanceDB until names are asked for

    embedded = pl.DataFrame({"name": list(vectors.existing_ids(store, commit.encoder))}, schema={"name": pl.String})
    inside = pl.when(pl.col("key") != "").then("key").otherwise("object_uri")
    names = [pl.col("sample_id"), pl.col("uri"), inside, inside.str.split("/").list.last()]
    frames = [locations.select(name.alias("name"), "sample_id") for name in names]
    return pl.concat([embedded.with_columns(sample_id="name"), *frames])


def _ends(names: pl.DataFrame, wanted: pl.Series) -> pl.DataFrame:
    """`form`, `sample_id`: the names that end in one of the wanted paths, behind a `/`."""
    frames = [pl.DataFrame(schema={"form": pl.String, "sample_id": pl.String})]
    for depth in wanted.str.count_matches("/", literal=True).unique().sort():
        end = pl.col("name").str.extract(rf"/((?:[^/]*/){{{depth}}}[^/]*)$")
        frames.append(
            names.select(end.alias("form"), "sample_id").join(wanted.unique().to_frame("form"), on="form", how="semi")
        )
    return pl.concat(frames)


def _plain(value: str) -> str:
    return value.strip().removeprefix("'")
