"""The split of a pool as it is: what was asked for, and each image's side. No torch here; `splits` draws."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.labelling import cut
from wtl_core.pool import live_pool
from wtl_core.workspace import commits, ledger, sides, snapshots
from wtl_core.workspace.sides import SIDES
from wtl_core.workspace.storage import Store


@dataclass(frozen=True)
class Asked:
    """How the pool is to be split.

    Attributes:
        train: Per cent of the images.
        validation: Likewise; 0 for no such side.
        test: Likewise; the three sum to 100.
        group_by: Columns or metadata keys whose equal values stay on one side.
    """

    train: float
    validation: float
    test: float
    group_by: tuple[str, ...] = ()

    @property
    def shares(self) -> list[float]:
        """Of `SIDES`, from 0."""
        return [self.train / 100, self.validation / 100, self.test / 100]

    def to_json(self) -> dict[str, Any]:
        """What the ledger keeps."""
        return {**asdict(self), "group_by": list(self.group_by)}


def asked_of(store: Store, shares: Sequence[float | None], group_by: Sequence[str] | None) -> Asked:
    """The shares that are asked for, the recipe's `group_by` where none is given.

    Args:
        store: The workspace.
        shares: Per cent of training, validation and test; training is the rest where it is not given.
        group_by: Columns; None for those of the split that is there, or else the recipe's.

    Raises:
        ConfigError: they do not sum to 100, or the workspace has no refresh yet.
    """
    train, validation, test = shares
    held = (validation or 0.0) + (test or 0.0)
    train = 100.0 - held if train is None else train
    if abs(train + held - 100.0) > 1e-6 or not 0 < held < 100:
        raise ConfigError(
            f"expected shares that sum to 100, with some for training and some for validation or test, found "
            f"{train:g}, {validation or 0:g} and {test or 0:g}"
        )
    if group_by is None:
        last = cut.latest_refresh(store)
        before = sides.request(ledger.read(store))
        of_recipe = commits.recipe_of(last).selection.group_by
        group_by = before["group_by"] if before is not None else [of_recipe] if of_recipe else []
    return Asked(float(train), float(validation or 0.0), float(test or 0.0), tuple(group_by))


def asked_in_words(asked: dict[str, Any]) -> str:
    """As `80/10/10 by recording`."""
    shares = "/".join(f"{asked[name]:g}" for name in SIDES)
    return f"{shares}{' by ' + ', '.join(asked['group_by']) if asked['group_by'] else ''}"


def undo(store: Store) -> int:
    """Take the split back, by an entry of its own; how many images had a side.

    Raises:
        ConfigError: the pool is not split.
    """
    entries = ledger.read(store)
    if sides.request(entries) is None:
        raise ConfigError(f"{store.root}: expected a split to take back, found none; nothing is undone")
    count = sides.read(store, entries).height
    ledger.append_split(store, "", "")
    return count


def listed(store: Store) -> pl.DataFrame:
    """Every image of the pool: `sample_id`, `uri`, `split`, sorted by `sample_id`; `split` is null for none.

    Raises:
        ConfigError: the workspace has no ranking yet.
    """
    last = cut.latest_refresh(store)
    snapshot = snapshots.read_snapshot(store, last.listing)
    places = live_pool.load_locations(store, snapshot, columns=["sample_id", "uri"])
    first = places.group_by("sample_id").agg(pl.min("uri")).sort("sample_id")
    found = sides.read(store, ledger.read(store))
    return first.join(found, on="sample_id", how="left", maintain_order="left").select("sample_id", "uri", "split")
