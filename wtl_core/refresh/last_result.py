"""Whether the last refresh's result is still what the recipe gives: its encoder, its recipe, what it could not read."""

import polars as pl

from wtl_core.encoders import weights_files
from wtl_core.encoders.fingerprints import makes
from wtl_core.images.faults import TRANSIENT
from wtl_core.pool import live_pool
from wtl_core.pool.part_file import quarantine_key
from wtl_core.recipe import encoder_names
from wtl_core.recipe.recipe import Recipe
from wtl_core.training import succession
from wtl_core.workspace import selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def still_holds(store: Store, last: Commit, recipe: Recipe, known: pl.DataFrame) -> bool:
    """Whether a refresh with this recipe of the same objects (`known`, with their parts) and labels gives it again."""
    return (
        last.recipe == recipe
        and not last.unknown_recipe_keys
        and last.selection_version == selections.VERSION
        and keeps_encoder(store, last, recipe)
        and not _is_embeddable_now(store, last, known)
    )


def keeps_encoder(store: Store, last: Commit, recipe: Recipe) -> bool:
    """Whether a refresh with this recipe goes on with the encoder of the last one."""
    return (
        last.recipe.encoder == recipe.encoder
        and _is_current(store, last, recipe.encoder.name)
        and not is_successor_due(store, last, recipe)
        and not weights_files.has_changed(last.encoder_file, recipe.encoder.name)
    )


def makes_other_parts(last: Commit, recipe: Recipe) -> bool:
    """Whether the recipe reads images in another way than the last refresh did, so that all parts are made again."""
    is_known = not any(key.startswith("ingest") for key in last.unknown_recipe_keys)
    return not is_known or last.recipe.ingest.part_digest() != recipe.ingest.part_digest()


def current_encoder(store: Store, last: Commit | None, name: str) -> str | None:
    """Fingerprint of the pool's own encoder to use for `name`: the successor if one was made, else the last refresh's.

    None where the name asks for an encoder as it is, or where none was made yet.
    """
    if not encoder_names.is_made_here(name):
        return None
    if last is not None and last.encoder_name != name:
        last = None
    return succession.successor(store, name) or (last.encoder if last is not None else None)


def _is_current(store: Store, last: Commit, name: str) -> bool:
    """Whether the last refresh's encoder is the one that `name` asks for now."""
    current = current_encoder(store, last, name)
    return current is None or makes(current, last.encoder)


def is_successor_due(store: Store, last: Commit | None, recipe: Recipe) -> bool:
    """Whether the recipe has this refresh train the next encoder.

    The last refresh's measurement decides: a refresh ranks its arrivals at once, and the next one trains.
    """
    return (
        last is not None
        and recipe.encoder.retrain == "automatic"
        and encoder_names.is_made_here(recipe.encoder.name)
        and _is_current(store, last, recipe.encoder.name)
        and bool(succession.reasons(last.encoder_age, recipe.encoder))
    )


def _is_embeddable_now(store: Store, last: Commit, known: pl.DataFrame) -> bool:
    """Whether the bytes of a sample can be read now that were missing at its embedding, in a pool of references."""
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
