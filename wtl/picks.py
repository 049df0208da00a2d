"""Picks: a table of images of a workspace, with their pictures."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from wtl_core.errors import ConfigError, InputError
from wtl_core.pool import live_pool
from wtl_core.workspace import commits, snapshots
from wtl_core.workspace.storage import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from wtl.datasets import ImageDataset

Form = Literal["pil", "tensor", "bytes"]
_SHOWN, _SHOWN_PX = 24, 96


class Picks:
    """Images of a workspace, in an order: the picks at an operating point, or a side of the split.

    Attributes:
        table: One row an image, with `sample_id` and what is known of it.
    """

    def __init__(self, store: Store, table: pl.DataFrame) -> None:
        self._store = store
        self.table = table

    @property
    def ids(self) -> list[str]:
        """Their sample ids."""
        return self.table["sample_id"].to_list()

    def images(self, form: Form = "pil") -> list[Any]:
        """Their pictures, see `Workspace.images`."""
        return images_of(self._store, self.ids, form)

    def dataset(self, transform: "Callable[[Any], Any] | None" = None) -> "ImageDataset":
        """A torch `Dataset` of `(image, target)`, with the classes of the ledger as targets; see `ImageDataset`.

        The numbers of the classes are those of all labels of the workspace, so they are the same on each side.
        """
        from wtl.datasets import ImageDataset
        from wtl_core.labelling import labels

        found = dict(labels.listed(self._store).select("sample_id", "classes").iter_rows())
        files = images_of(self._store, self.ids, "bytes")
        return ImageDataset(files, self.ids, found, transform)

    def __len__(self) -> int:
        return self.table.height

    def __repr__(self) -> str:
        return f"Picks({len(self):,} images)"

    def _repr_html_(self) -> str:
        """A wall of the first ones."""
        first = self.table.head(_SHOWN)
        pictures = images_of(self._store, first["sample_id"].to_list(), "pil", most_px=_SHOWN_PX)
        uris = first["uri"].to_list() if "uri" in first.columns else first["sample_id"].to_list()
        shown = "".join(_figure(picture, str(uri)) for picture, uri in zip(pictures, uris, strict=True))
        more = f"<p>and {len(self) - _SHOWN:,} more</p>" if len(self) > _SHOWN else ""
        return f'<div style="display:flex;flex-wrap:wrap;gap:4px">{shown}</div>{more}'


def _figure(picture: Any, name: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" title="{escape(name)}" alt="{escape(name)}">'


def images_of(store: Store, ids: Sequence[str], form: Form, *, most_px: int | None = None) -> list[Any]:
    """The pictures of samples, in the order asked for.

    Raises:
        ConfigError: an unknown form, or the workspace has no pool yet.
        InputError: samples that are not in the pool, or whose bytes can no longer be read.
    """
    if form not in ("pil", "tensor", "bytes"):
        raise ConfigError(f"images: expected 'pil', 'tensor' or 'bytes', found {form!r}")
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a pool, found none yet; `refresh` makes one")
    wanted = pl.col("sample_id").is_in(list(set(ids)))
    snapshot = snapshots.read_snapshot(store, last.listing)
    places = live_pool.load_locations(store, snapshot, columns=["sample_id", "row"], where=wanted)
    first = places.sort("sample_id", "part", "row").unique("sample_id", keep="first", maintain_order=True)
    found: dict[str, bytes] = {}
    for (part,), rows in first.group_by("part", maintain_order=True):
        id_of = dict(rows.select("row", "sample_id").iter_rows())
        for row, data in live_pool.read_images(store, str(part), list(id_of)):
            if data is not None:
                found[id_of[row]] = data
    if missing := [sample_id for sample_id in ids if sample_id not in found]:
        raise InputError(
            f"{store.root}: expected images of the pool, found {len(missing):,} that are not in it or can no longer be "
            f"read, first {missing[0][:16]}; `wtl.open(...).pool()` lists those that are"
        )
    return [_as_form(found[sample_id], form, most_px) for sample_id in ids]


def _as_form(data: bytes, form: Form, most_px: int | None) -> Any:
    if form == "bytes":
        return data
    from PIL import Image

    from wtl_core.images.decode import HIGHEST_MAX_PIXELS, decode, decode_rgb

    if form == "tensor":
        return decode_rgb(data)
    image = Image.fromarray(decode(data, max_pixels=HIGHEST_MAX_PIXELS).pixels)
    if most_px is not None:
        image.thumbnail((most_px, most_px))
    return image
