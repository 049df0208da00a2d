"""One picture of a refresh: what arrived, and the first picks, for who sees no more of it than a line in a list."""

import io
from collections.abc import Sequence

import polars as pl
from PIL import Image, ImageDraw, ImageFont

from wtl_core.pool.live_pool import Pool
from wtl_core.report import sections, small_pictures
from wtl_core.workspace import commits, selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_ACROSS, _TILE, _GAP, _LINE = 10, 96, 4, 18
_PAPER, _INK, _EMPTY = (255, 255, 255), (26, 33, 39), (219, 225, 230)


def draw(store: Store, commit: Commit, live: Pool) -> bytes | None:
    """A JPEG of at most 20 images with a line above each row; None if nothing is ranked and nothing has arrived."""
    ranking = selections.read_ranking(store, commit.selection)
    former = next((old for old in commits.readable(store, 2) if old.number < commit.number), None)
    arrived = ranking.filter(pl.col("sample_id").is_in(list(sections.arrived(store, live.samples, former))))
    rows = [("First picks", ranking["sample_id"].head(_ACROSS)), ("Arrived", arrived["sample_id"].head(_ACROSS))]
    rows = [(title, ids) for title, ids in rows if ids.len()]
    if not rows:
        return None
    wanted = pl.concat([ids for _, ids in rows]).unique().to_frame("sample_id")
    pictures = small_pictures.read(
        store, live.samples.join(wanted, on="sample_id", how="semi"), side=_TILE, budget_bytes=1 << 20
    )
    return _sheet([(title, [pictures.get(sample_id) for sample_id in ids]) for title, ids in rows])


def _sheet(rows: Sequence[tuple[str, Sequence[bytes | None]]]) -> bytes:
    height = _LINE + _TILE + _GAP
    sheet = Image.new("RGB", (_ACROSS * (_TILE + _GAP) + _GAP, len(rows) * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, (title, pictures) in enumerate(rows):
        pen.text((_GAP, row * height), title, fill=_INK, font=ImageFont.load_default(14))
        for column, data in enumerate(pictures):
            left, top = _GAP + column * (_TILE + _GAP), row * height + _LINE
            pen.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), fill=_EMPTY)
            if data is not None:
                with Image.open(io.BytesIO(data)) as image:
                    image.thumbnail((_TILE, _TILE))
                    sheet.paste(image, (left + (_TILE - image.width) // 2, top + (_TILE - image.height) // 2))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
