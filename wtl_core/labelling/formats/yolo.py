"""YOLO: a batch as a folder of images, and labels as a text file for each image and a file with the names of classes.

The lines of a text file begin with the number of a class.
"""

import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, collect

_NO_LABELS = ("train", "val", "valid", "validation", "test", "autosplit", "classes", "labels", "readme", "license")
"""How text files beside the labels are called: lists of images or of classes, and words to the reader."""
_LEAST_NUMBERS = 4
"""Behind the class, of a box; outlines and turned boxes have more."""
_BOX = re.compile(rb"\s*\d+(?:[ \t]+-?[\d.]+(?:e-?\d+)?){4}")


IMAGES = "images"
"""The folder of the images; tools put their text files into `labels` beside it."""


def data_yaml(classes: Sequence[str]) -> bytes:
    """`data.yaml` of a folder whose images are to be labelled; both parts that it must name are all of them."""
    told = {"train": IMAGES, "val": IMAGES, "names": dict(enumerate(classes))}
    text: str = yaml.safe_dump(told, sort_keys=False, allow_unicode=True)
    return text.encode()


def is_yolo(files: dict[str, bytes]) -> bool:
    """Whether a folder holds text files that, by their names, are labels."""
    return any(_is_label_file(name, data) for name, data in files.items())


def holds_boxes(files: dict[str, bytes]) -> bool:
    """Whether a folder holds a text file that begins with a box; Pascal VOC's folders have text files without any."""
    return any(name.endswith(".txt") and _BOX.match(data) is not None for name, data in files.items())


def of_yolo(files: dict[str, bytes], reading: Reading) -> LabelRows:
    """One row for each label file that is not empty, named like its image but for the ending.

    Raises:
        ValueError, LookupError: no names of classes, or a line that is no label.
    """
    if reading.class_column is not None or reading.column is not None:
        raise ValueError("YOLO's text files, which have no columns: leave out --column and --class-column")
    names = _names(files)
    labels: list[tuple[str, Classes]] = []
    for name, data in files.items():
        if not _is_label_file(name, data):
            continue
        classes: dict[str, None] = {}
        for number, line in enumerate(data.decode().splitlines(), 1):
            if line.strip():
                classes[_class_of(line.split(), names, where=f"{name}, line {number}")] = None
        labels.append((name.removesuffix(".txt"), tuple(classes) or None))
    return collect(labels, bare_is_empty=reading.bare_is_empty, are_stems=True)


def _class_of(words: list[str], names: dict[int, str], *, where: str) -> str:
    try:
        index, numbers = int(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise ValueError(f"{where}: expected the number of a class and a box: {error}") from error
    if len(numbers) < _LEAST_NUMBERS:
        raise ValueError(f"{where}: expected the number of a class and a box, found {len(words)} numbers")
    if index not in names:
        raise ValueError(f"{where}: class {index}, of which the names file says nothing")
    return names[index]


def _names(files: dict[str, bytes]) -> dict[int, str]:
    """The names of classes by their numbers: of `data.yaml`, else of a `.names` file or of `classes.txt`."""
    for name, data in files.items():
        if name.endswith((".yaml", ".yml")):
            try:
                told = yaml.safe_load(data)
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ValueError(f"{name}: YAML that cannot be read") from error
            if isinstance(told, dict) and told.get("names"):
                return _numbered(told["names"], name)
    for name, data in files.items():
        if name.endswith(".names") or PurePosixPath(name).name in ("classes.txt", "labels.txt"):
            return _numbered(data.decode("utf-8-sig").splitlines(), name)
    raise LookupError("YOLO's text files without names of classes: put data.yaml, obj.names or classes.txt beside them")


def _numbered(names: Any, file: str) -> dict[int, str]:
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        numbered = {int(number): str(name) for number, name in pairs if str(name).strip()}
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file}: expected names of classes, found {json.dumps(names, default=str)[:60]}") from error
    if not numbered:
        raise ValueError(f"{file}: expected names of classes, found none")
    return numbered


def _is_label_file(name: str, data: bytes) -> bool:
    """Whether a file is one of labels: of names such as `test`, which an image may have too, what is in it decides.

    A list of classes that are digits begins with a number too, but with no second one beside it.
    """
    stem = PurePosixPath(name).name.lower().split(".")[0]
    if not name.endswith(".txt") or stem.split("_")[0] not in _NO_LABELS:
        return name.endswith(".txt")
    if stem in _NO_LABELS:
        return re.match(rb"\s*\d+[ \t]+[-\d.]", data) is not None
    return re.match(rb"\s*(\d|$)", data) is not None  # such as `test_001.txt`, where nothing was found if blank
