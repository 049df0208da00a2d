"""Labels in Datumaro's JSON, which CVAT exports too: the labels of an item's annotations."""

from collections.abc import Sequence
from typing import Any

from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, collect, required

_VERSION = "1.0"


def is_datumaro(data: Any) -> bool:
    """Whether JSON has the two parts that make it Datumaro's."""
    return isinstance(data, dict) and {"categories", "items"} <= data.keys()


def of_datumaro(parts: Sequence[dict[str, Any]], reading: Reading) -> LabelRows:
    """One row for each item that has an annotation; one whose annotations have no label leaves its classes unknown.

    Items are named by the paths of their images, or by their ids, which lack the ending, where one has no path.

    Raises:
        ValueError, LookupError, TypeError: another version, a label that is not in the file, or an entry without what
            it must have.
    """
    if reading.class_column is not None or reading.column is not None:
        raise ValueError("Datumaro's JSON, which has no columns: leave out --column and --class-column")
    labels: list[tuple[str, Classes]] = []
    unknown: list[str] = []
    paths = [_path(item) for part in parts for item in part["items"]]
    are_stems = not all(paths)
    for part in parts:
        if (version := part.get("dm_format_version", _VERSION)) != _VERSION:
            raise ValueError(f"Datumaro's JSON of version {version!r:.20}, where {_VERSION} was expected")
        names = [
            str(required(label, "name", "a label"))
            for label in required(part["categories"], "label", "the categories").get("labels") or []
        ]
        for item in part["items"]:
            name = str(required(item, "id", "an item")) if are_stems else str(_path(item))
            numbers = [entry.get("label_id") for entry in required(item, "annotations", "an item")]
            classes = tuple(dict.fromkeys(_name(number, names) for number in numbers if number is not None))
            if numbers and not classes:
                unknown.append(name)
            else:
                labels.append((name, classes or None))
    rows = collect(labels, bare_is_empty=reading.bare_is_empty, are_stems=are_stems)
    return LabelRows([*rows.names, *unknown], [*rows.classes, *([None] * len(unknown))], rows.bare, are_stems)


def _path(item: Any) -> str | None:
    image = item.get("image") if isinstance(item, dict) else None
    return image.get("path") or None if isinstance(image, dict) else None


def _name(number: Any, names: Sequence[str]) -> str:
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise ValueError(f"an annotation of label {number!r:.20}, where the file has {len(names):,} labels")
    return names[number]
