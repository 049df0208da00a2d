"""The map alone, as a page for a frame in a notebook: the report's module, a slider, pictures of the first picks."""

import base64
from functools import cache

import jinja2
import numpy as np

from wtl_core.errors import ConfigError
from wtl_core.pool import live_pool
from wtl_core.report import columns, page, positions, small_pictures
from wtl_core.workspace import ledger, selections, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_MOST_ROWS, _PICTURES, _PICTURE_PX = 100_000, 400, 64
"""What a notebook can hold: 100,000 points take 1 MB, and so many pictures half of that."""


def render(store: Store, commit: Commit, *, picks: int) -> str:
    """A page that loads nothing. Reads only.

    Args:
        store: The workspace.
        commit: The refresh that is shown.
        picks: First ranks that are lit at the beginning.

    Raises:
        ConfigError: no refresh has placed the images on a map.
    """
    snapshot = snapshots.read_snapshot(store, commit.listing)
    places = live_pool.load_locations(store, snapshot, columns=["sample_id", "uri", "row"])
    ranking = selections.read_ranking(store, commit.selection)
    samples = places.sort("sample_id", "uri").unique("sample_id", keep="first", maintain_order=True)
    samples = samples.join(ranking.select("sample_id", "rank"), on="sample_id", how="left")
    samples = samples.sort("rank", "sample_id", nulls_last=True).head(_MOST_ROWS)
    placed = positions.read(store, commit.encoder, samples["sample_id"].to_list())
    if placed["x"].is_null().all():
        raise ConfigError(
            f"{store.root}: expected places on a map, found none; the next refresh that has something to do makes them"
        )
    x, y = columns.places(placed)
    labelled = samples["sample_id"].is_in(ledger.sample_ids(ledger.read(store), "labelled")).to_numpy()
    first = samples.head(_PICTURES)
    pictures = small_pictures.read(store, first, side=_PICTURE_PX, budget_bytes=1 << 20)
    shown = [
        [uri, base64.b64encode(pictures.get(sample_id, b"")).decode()]
        for sample_id, uri in first.select("sample_id", "uri").iter_rows()
    ]
    arrays = {"x": x, "y": y, "rank": columns.ranks(samples, ranking)["rank"], "mark": labelled.astype(np.uint8)}
    told = {
        "columns": {name: columns.encoded(array) for name, array in arrays.items()},
        "ranked": ranking.height,
        "picks": picks,
        "shown": shown,
    }
    script = page.script_of("dots.js", "map.js", "small_map.js")
    style = page.text_of("page.css") + page.text_of("small_map.css")
    digests = {"script_digest": page.digest(script), "style_digest": page.digest(style)}
    return _template().render(told=page.as_json(told), script=script, style=style, **digests)


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("wtl_core.report", ".")
    return jinja2.Environment(loader=loader, autoescape=True).get_template("small_map.html.j2")
