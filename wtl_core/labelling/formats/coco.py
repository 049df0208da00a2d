"""COCO's JSON: a batch as a list of images, and labels as the categories of an image's annotations."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, picks_of, required
from wtl_core.labelling.formats.tables import name_of


def image_list(images: pl.DataFrame, classes: Sequence[str]) -> bytes:
    """Images without annotations, and the known classes as categories.

    An image's `id` is its place in the batch, and `coco_url` its address if it has one on a server.
    """
    entries = []
    for row, told in zip(images.iter_rows(named=True), picks_of(images), strict=True):
        size = {"width": row["width"], "height": row["height"]}
        is_url = row["url"].startswith(("http://", "https://"))
        named = {"file_name": row["uri"], "coco_url": row["url"]} if is_url else {"file_name": row["name"]}
        entries.append({"id": row["place"], **named, **size, **told})
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(classes, 1)]
    about = {"description": f"batch {images['batch'][0]} of wtl export"}
    data = {"info": about, "licenses": [], "images": entries, "annotations": [], "categories": categories}
    return (json.dumps(data) + "\n").encode()


def is_coco(data: Any) -> bool:
    """Whether JSON has the two lists that make it COCO's."""
    return isinstance(data, dict) and {"images", "annotations"} <= data.keys()


def of_coco(data: dict[str, Any], reading: Reading) -> LabelRows:
    """One row for each image that has an annotation; annotations without a category leave its classes unknown.

    Raises:
        ValueError, LookupError, TypeError: an annotation of an image or a category that is not in the file, an entry
            without what it must have, or one id of two categories or images, as where files were put together.
    """
    if reading.class_column is not None:
        raise ValueError("COCO's JSON, whose classes are its categories: leave out --class-column")
    categories = _by_id(
        (required(category, "id", "a category"), str(required(category, "name", "a category")))
        for category in data.get("categories") or []
    )
    found: dict[Any, dict[str, None]] = {}
    for annotation in data["annotations"]:
        named = found.setdefault(required(annotation, "image_id", "an annotation"), {})
        if (category := annotation.get("category_id")) is None:
            continue
        if category not in categories:
            raise ValueError(f"an annotation of category {category!r:.60}, which is not among the categories")
        named[categories[category]] = None
    images = _by_id((required(image, "id", "an image"), _name(image, reading)) for image in data["images"])
    if unknown := found.keys() - images.keys():
        raise ValueError(f"an annotation of image {min(unknown, key=str)!r:.60}, which is not among the images")
    names: list[str] = []
    classes: list[Classes] = []
    for number, name in images.items():
        if number in found or reading.bare_is_empty:
            names.append(name)
            classes.append((tuple(found[number]) or None) if number in found else ())
    return LabelRows(names, classes, bare=len(images) - len(names))


def _name(image: Any, reading: Reading) -> str:
    title = "sample_id" if image.get("sample_id") else "file_name"  # ours, where a tool kept it
    return str(name_of(image, reading.column or title))


def _by_id(named: Iterable[tuple[Any, str]]) -> dict[Any, str]:
    """The names by their ids. Raises ValueError where one id has two names, since annotations could mean either."""
    found: dict[Any, str] = {}
    for number, name in named:
        if found.setdefault(number, name) != name:
            raise ValueError(
                f"the id {number!r:.60} of both {found[number]!r:.60} and {name!r:.60}: files that were put together "
                "need new ids"
            )
    return found
