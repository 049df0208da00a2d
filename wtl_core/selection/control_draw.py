"""Controls: images drawn uniformly at random for labelling, and what of the pool their labels show without bias.

Controls come in one fixed random order of the whole pool, which depends on sample ids alone. So all images of the pool
up to a control in that order, whoever had them labelled, are a uniform random draw. What their labels show is unbiased
only if all of them are labelled: images that came to the pool later, or that are handed out and not back, fall between
the others, and to pass them by would favour what was picked and is back. So the draw ends before the first image that
is not labelled (`random_draw`). Controls of later batches fill these places first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from wtl_core.selection.identity import content_keys, shuffled
from wtl_core.workspace import ledger

_CONTROLS = 60
"""The stream of the random order, beside those of `identity.Purpose`."""


@dataclass(frozen=True)
class Draw:
    """A uniform random draw of the pool without unusable images, all of it labelled or redundant.

    Attributes:
        ids: The samples, in their random order.
        missing: Those up to the last control that are neither; the draw ends before the first of them.
        behind: Those up to the last control that are labelled and no part of the draw, since a missing one is before.
    """

    ids: list[str]
    missing: list[str]
    behind: list[str]


def random_order(ids: Sequence[str]) -> list[str]:
    """The ids in the order in which controls are drawn, which depends on the ids alone."""
    order = shuffled(content_keys(ids), 0, _CONTROLS)
    return [ids[row] for row in order]


def control_ids(entries: pl.DataFrame, pool: Sequence[str]) -> list[str]:
    """The samples of the pool up to the last control that was handed out, in random order; empty without controls.

    Picks lie among them, and so may images that came to the pool later. All together are a uniform random draw of the
    pool; those of them that are labelled need not be (`random_draw`).

    Args:
        entries: What `ledger.read` returns.
        pool: Ids of all samples that could be picked or are labelled.
    """
    drawn = entries.filter(pl.col("is_control").fill_null(value=False))["sample_id"].to_list()
    if not drawn:
        return []
    order = random_order(list({*pool, *drawn}))
    place = {sample_id: number for number, sample_id in enumerate(order)}
    farthest = max(place[sample_id] for sample_id in drawn)
    present = set(pool)
    return [sample_id for sample_id in order[: farthest + 1] if sample_id in present]


def random_draw(entries: pl.DataFrame, pool: Sequence[str]) -> Draw:
    """The uniform random draw of the pool whose images are all labelled, whatever for and whatever as, or redundant.

    It ends with the last control before the first image of the random order that is neither. Unusable images are no
    part of the pool that is drawn from. That its last image is a control, and so was no pick before, is a bias of one
    image in the draw's number.

    Args:
        entries: What `ledger.read` returns.
        pool: Ids of all samples that could be picked, or are labelled or skipped and still in the pool.
    """
    unusable = set(ledger.sample_ids(entries, "unusable"))
    order = [sample_id for sample_id in control_ids(entries, pool) if sample_id not in unusable]
    labelled = set(ledger.settled_ids(entries))
    controls = set(entries.filter(pl.col("is_control").fill_null(value=False))["sample_id"])
    missing = [sample_id for sample_id in order if sample_id not in labelled]
    first_missing = order.index(missing[0]) if missing else len(order)
    end = max((place for place, found in enumerate(order[:first_missing], 1) if found in controls), default=0)
    return Draw(order[:end], missing, [sample_id for sample_id in order[end:] if sample_id in labelled])
