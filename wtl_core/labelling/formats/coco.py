"""Labels in COCO's JSON: the categories of an image's annotations."""

from typing import Any

from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, collect, required
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
    names = {
        category["id"]: str(required(category, "name", "a category"))
        for category in data.get("categories") or []
        if required(category, "id", "a category") is not None
    }
    found: dict[Any, dict[str, None]] = {}
    for annotation in data["annotations"]:
        classes = found.setdefault(required(annotation, "image_id", "an annotation"), {})
        if (category := annotation.get("category_id")) is None:
            continue
        if category not in names:
            raise ValueError(f"an annotation of category {category!r:.60}, which is not among the categories")
        classes[names[category]] = None
    images = {required(image, "id", "an image"): image for image in data["images"]}
    if unknown := found.keys() - images.keys():
        raise ValueError(f"an annotation of image {min(unknown, key=str)!r:.60}, which is not among the images")
    annotated = [image for number, image in images.items() if number in found]
    column = reading.column or "file_name"
    rows: list[tuple[str, Classes]] = [(str(name_of(image, column)), tuple(found[image["id"]])) for image in annotated]
    bare = [image for number, image in images.items() if number not in found]
    if reading.bare_is_empty:
        return collect(rows + [(str(name_of(image, column)), ()) for image in bare])
    unknown_classes = [(name, classes or None) for name, classes in rows]
    return LabelRows([name for name, _ in rows], [classes for _, classes in unknown_classes], bare=len(bare))
