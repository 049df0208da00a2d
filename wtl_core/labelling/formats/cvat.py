"""CVAT: a batch as the manifest of a task's images."""

import json
from pathlib import PurePosixPath

import polars as pl


def manifest(images: pl.DataFrame) -> bytes:
    """A manifest of images, version 1.1: JSON lines, whose names are paths in a share or keys in a bucket.

    It has no place for anything else that is known of an image. Width and height are those of the image as it is looked
    at, as CVAT wants them.
    """
    lines: list[dict[str, object]] = [{"version": "1.1"}, {"type": "images"}]
    for name, width, height in images.select("name", "width", "height").iter_rows():
        ending = PurePosixPath(name).suffix
        lines.append({"name": name.removesuffix(ending), "extension": ending, "width": width, "height": height})
    return "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines).encode()
