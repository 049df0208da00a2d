"""Labels in COCO's JSON: the categories of an image's annotations."""

from typing import Any

from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, required
from wtl_core.labelling.formats.tables import name_of


def is_coco(data: Any) -> bool:
    """Whether JSON has the two lists that make it COCO's."""
    return isinstance(data, dict) and {"images", "annotations"} <= data.keys()


def of_coco(data: dict[str, Any], reading: Reading) -> LabelRows:
    """One row for each image that has an annotation; annotations without a category leave its classes unknown.

    Raises:
        ValueError, LookupError, TypeError: an annotation of an image or a category that is not in the file, or an entry
            without what it must have.
    """
    if reading.class_column is not None:
        raise ValueError("COCO's JSON, whose classes are its categories: leave out --class-column")
    categories = {
        required(category, "id", "a category"): str(required(category, "name", "a category"))
        for category in data.get("categories") or []
    }
    found: dict[Any, dict[str, None]] = {}
    for annotation in data["annotations"]:
        named = found.setdefault(required(annotation, "image_id", "an annotation"), {})
        if (category := annotation.get("category_id")) is None:
            continue
        if category not in categories:
            raise ValueError(f"an annotation of category {category!r:.60}, which is not among the categories")
        named[categories[category]] = None
    images = {required(image, "id", "an image"): image for image in data["images"]}
    if unknown := found.keys() - images.keys():
        raise ValueError(f"an annotation of image {min(unknown, key=str)!r:.60}, which is not among the images")
    names: list[str] = []
    classes: list[Classes] = []
    for number, image in images.items():
        if number in found or reading.bare_is_empty:
            names.append(str(name_of(image, reading.column or "file_name")))
            classes.append((tuple(found[number]) or None) if number in found else ())
    return LabelRows(names, classes, bare=len(images) - len(names))
