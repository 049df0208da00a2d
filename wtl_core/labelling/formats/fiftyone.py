"""FiftyOne: a batch as a dataset of samples."""

import json
from collections.abc import Sequence

import polars as pl

from wtl_core.labelling.formats.rows import picks_of


def dataset(images: pl.DataFrame, classes: Sequence[str]) -> dict[str, bytes]:
    """The two files of a `FiftyOneDataset` in the form without a version, which every FiftyOne reads.

    The form with a version is a copy of FiftyOne's database, and belongs to the release that wrote it. Each sample is
    tagged with its batch. The known classes are the dataset's default classes; no sample has a label.
    """
    samples = [
        {
            "filepath": row["name"],
            "_media_type": "image",  # else a file without a known ending is no image, and the whole dataset is refused
            "tags": [row["batch"]],
            "metadata": {"_cls": "ImageMetadata", "width": row["width"], "height": row["height"]},
            **told,
        }
        for row, told in zip(images.iter_rows(named=True), picks_of(images), strict=True)
    ]
    metadata = {"media_type": "image", "info": {"classes": list(classes)}}
    files = {"metadata.json": metadata, "samples.json": {"samples": samples}}
    return {name: (json.dumps(content) + "\n").encode() for name, content in files.items()}
