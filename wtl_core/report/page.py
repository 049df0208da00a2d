"""The HTML report of a refresh: one file that loads nothing, where every name that came from outside is escaped."""

import base64
import io
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
import numpy as np
import polars as pl
from PIL import Image

from wtl_core.images.decode import HIGHEST_MAX_PIXELS, decode
from wtl_core.images.faults import ImageError
from wtl_core.pool import live_pool
from wtl_core.pool.live_pool import Pool
from wtl_core.refresh import accounts
from wtl_core.report import charts, decision, version
from wtl_core.training import succession
from wtl_core.workspace import selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_PERCENTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100)
_PICTURES, _THUMBNAIL_PX = 48, 96
_REFUSED_ROWS, _NEAR_GROUPS = 200, 10

_logger = logging.getLogger(__name__)


def render(store: Store, commit: Commit, live: Pool) -> str:
    """The page for a refresh that is about to be committed.

    Args:
        store: The workspace.
        commit: The record; its selection is on disk.
        live: The pool that it speaks of.
    """
    ranking = selections.read_ranking(store, commit.selection)
    rungs = selections.read_ladder(store, commit.selection)
    chosen = ranking["sample_id"].head(_PICTURES).to_list()
    matched = np.random.default_rng(0).permutation(ranking["sample_id"].to_numpy())[:_PICTURES].tolist()
    refused = accounts.quarantine(live, store, commit.encoder)
    return _template().render(
        commit=commit,
        decision=decision.read(store, commit.selection).sentence,
        changed=decision.what_changed(commit),
        version=version.version_text(),
        encoder_advice=succession.advice(commit),
        ladder=None if rungs.is_empty() else charts.ladder_svg(rungs),
        rungs=[row for row in rungs.to_dicts() if row["percent"] in _PERCENTS],
        picks=_thumbnails(store, live.samples, chosen),
        random_picks=_thumbnails(store, live.samples, matched),
        reasons=refused["reason"].value_counts(sort=True).to_dicts(),
        refused=refused.unique(maintain_order=True).head(_REFUSED_ROWS).to_dicts(),
        near_groups=_near_groups(live.samples),
        near_groups_shown=_NEAR_GROUPS,
        picks_summary=selections.summary(store, commit.selection),
        receipt=selections.read_receipt(store, commit.selection),
        recipe=commit.recipe.model_dump(mode="json"),
        place=store.root,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wtl_core.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2")


def _near_groups(samples: pl.DataFrame) -> list[dict[str, Any]]:
    """Each group of near-duplicates, the largest first: `count` images, and `uri` and `near_group` of its first one."""
    groups = live_pool.near_groups(samples).group_by("near_group").len("count")
    named = groups.join(samples.select("sample_id", "uri"), left_on="near_group", right_on="sample_id")
    return named.sort(["count", "near_group"], descending=[True, False]).to_dicts()


def _thumbnails(store: Store, samples: pl.DataFrame, sample_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Small JPEGs as data URIs, in the order asked for, each with the sample's name."""
    wanted = samples.filter(pl.col("sample_id").is_in(list(sample_ids)))
    pictures: dict[str, dict[str, Any]] = {}
    for (part,), group in wanted.sort("part", "row").group_by("part", maintain_order=True):
        by_row = {row["row"]: row for row in group.to_dicts()}
        for position, data in live_pool.read_images(store, str(part), sorted(by_row)):
            row = by_row[position]
            pictures[row["sample_id"]] = {"name": row["uri"], "source": _data_uri(data)}
    return [pictures[sample_id] for sample_id in sample_ids if sample_id in pictures]


def _data_uri(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        image = Image.fromarray(decode(data, max_pixels=HIGHEST_MAX_PIXELS).pixels)
    except ImageError as error:
        _logger.debug("no thumbnail: %s", error)
        return None
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
