"""Labelled data sets to evaluate with: decoded once to squares of bytes, in an order that depends on content alone.

Here: what a name or a path holds, and its fixed splits. Not here: the pools made of a training split (`pools`).
A set without splits gets a test split: a fifth of its images, chosen by a hash of their bytes. A validation split that
comes with the set stays one, unless there is no test split: then it is the test split.
"""

import gzip
import hashlib
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wtl_core.benchmark.stored_images import StoredImages
from wtl_core.encoders.preprocessing import Preprocessing, fit
from wtl_core.errors import ConfigError, InputError
from wtl_core.images.decode import decode_rgb
from wtl_core.images.faults import ImageError
from wtl_core.images.kinds import IMAGE_SUFFIXES
from wtl_core.machine import Progress, Stage, silent

TORCHVISION = ("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "SVHN")
FORMS = (
    "a folder of classes",
    "Parquet with image and label",
    "a folder of idx files",
    "torchvision:NAME",
    "sklearn:digits",
)
_log = logging.getLogger(__name__)
_TEST_SHARE = 0.2  # of a set that brings no test split
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_IDX_IMAGES, _IDX_LABELS = 0x0803, 0x0801  # magic numbers: bytes in three dimensions, and in one

Decoded = tuple[torch.Tensor, str, bytes]  # an image, its class, and the bytes that identify it: none for no image


@dataclass(frozen=True)
class Split:
    """Images (N, 3, S, S) uint8 in a file, with labels (N,) int64 and distinct ids, sorted by id.

    `rows` (N,) are positions in the reading order of the set's split `origin`, of `origin_count` images with those that
    were left out, for vectors that were made elsewhere.
    """

    images: StoredImages
    labels: np.ndarray
    sample_ids: list[str]
    rows: np.ndarray
    origin: str = "train"
    origin_count: int = 0

    def __len__(self) -> int:
        """Images in the split."""
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """Some rows, in the given order."""
        ids = [self.sample_ids[row] for row in rows]
        return Split(self.images.take(rows), self.labels[rows], ids, self.rows[rows], self.origin, self.origin_count)


@dataclass(frozen=True)
class LabelledSet:
    """A set with fixed splits; `classes` names the labels 0, 1, ...

    `left_out` counts what could not be decoded or has no label, pixel-identical repeats within a split, and images of
    the training split that are also in a test or validation split that comes with the set.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: list[str]
    left_out: int

    def digest(self) -> str:
        """SHA-256 hex over images and labels of all splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update("".join(split.sample_ids).encode() + split.labels.tobytes())
            digest.update(str(split.images.shape).encode())
        return digest.hexdigest()


def load(
    name: str,
    *,
    side_px: int,
    test_images: int | None = None,
    validation_share: float = 0.0,
    download_folder: Path | None = None,
    folder: Path | None = None,
    stage: Stage = silent,
) -> LabelledSet:
    """Read a labelled set.

    Args:
        name: One of `FORMS`; a path is a folder or a Parquet file.
        side_px: Images are squashed to squares of this side.
        test_images: Test images to keep, chosen by hash; None keeps all.
        validation_share: Share of the training split that becomes the validation split, by hash, if the set has none.
        download_folder: Where torchvision keeps what it fetched.
        folder: Where there is room for the squares, in a file without a name; None for the system's temporary folder.
        stage: Shows how many images are read.

    Raises:
        ConfigError: no such set or path.
        InputError: a file that is none of its kind, fewer than two classes, no readable image, or an empty split.
    """
    found = _read(name, download_folder)
    squares = StoredImages.new(side_px, folder)
    with stage("reading", "images") as on_progress:
        counted = _counted(found, on_progress)
        splits = {split: _squashed(images, squares) for split, images in counted.items()}
    names = sorted({label for images in splits.values() for _, _, label, _ in images.kept.values()}, key=_class_key)
    if len(names) < 2:
        raise InputError(f"{name}: expected images of two classes or more, found {len(names)}; check the labels")
    if empty := [split for split, images in splits.items() if not images.kept]:
        raise InputError(
            f"{name}: expected images in each split, in one folder per class; found none in {', '.join(empty)}"
        )
    _leave_out_the_judged(name, splits)
    ready = {split: _pack(images, names, squares, origin=split) for split, images in splits.items()}
    train, test = (ready["train"], ready["test"]) if "test" in ready else _cut(ready["train"], _TEST_SHARE, "test")
    share = 0.0 if "validation" in ready else validation_share
    train, validation = _cut(train, share, "validation")
    validation = ready.get("validation", validation)
    if not len(train) or not len(test):
        raise InputError(
            f"{name}: expected images to train and to test with, found {len(train)} and {len(test)} after the split "
            "by hash; add images, or give folders train and test"
        )
    if test_images is not None:
        test = test.take(np.sort(np.argsort(split_draws(test.sample_ids, "keep"), kind="stable")[:test_images]))
    read = sum(images.count for images in splits.values())
    return LabelledSet(Path(name).name, train, validation, test, names, read - sum(len(s) for s in ready.values()))


@dataclass
class _Squares:
    """A split while it is read: by digest of the pixels an image's id, its square's place, class and reading position.

    Repeats count once, with the least of their ids, which is a digest of the bytes.
    """

    kept: dict[bytes, tuple[str, int, str, int]]
    count: int = 0


@dataclass(frozen=True)
class _Source:
    """A split to read: how many images it holds, unreadable ones too; nothing is decoded before it is asked for."""

    count: int
    images: Iterable[Decoded]


def _counted(sources: dict[str, _Source], on_progress: Progress) -> dict[str, Iterator[Decoded]]:
    """The splits' images, which tell on their way how many of all have been read."""
    done, total = count(1), sum(source.count for source in sources.values())

    def watched(images: Iterable[Decoded]) -> Iterator[Decoded]:
        for image in images:
            yield image
            on_progress(next(done), total)

    return {split: watched(source.images) for split, source in sources.items()}


def _squashed(images: Iterable[Decoded], squares: StoredImages) -> _Squares:
    """Read a split with one image at a time in memory; its square is written."""
    fitting, found = Preprocessing(squares.side_px), _Squares({})
    for row, (image, label, data) in enumerate(images):
        found.count = row + 1
        if not data:
            continue
        sample_id = hashlib.sha256(data).hexdigest()
        pixels = hashlib.sha256(repr(tuple(image.shape)).encode() + image.numpy().tobytes()).digest()
        held = found.kept.get(pixels)
        if held is None or sample_id < held[0]:
            place = squares.write(fit(image, fitting).numpy()) if held is None else held[1]
            found.kept[pixels] = sample_id, place, label, row
    return found


def _read(name: str, download_folder: Path | None) -> dict[str, _Source]:
    """Splits by name: `train`, and perhaps `test` and `validation`."""
    prefix, _, rest = name.partition(":")
    if prefix == "torchvision" and rest:
        return _torchvision(rest, download_folder or Path.home() / ".cache" / "wtl")
    if name == "sklearn:digits":
        return {"train": _digits()}
    path = Path(name)
    if path.is_file() and path.suffix == ".parquet":
        return {"train": _parquet([path])}
    if not path.is_dir():
        raise ConfigError(f"{name}: expected {', '.join(FORMS)}; found no such path")
    if parquet := sorted(path.glob("*.parquet")):
        return _parquet_splits(parquet)
    if idx := sorted(path.glob("*-images-idx3-ubyte*")):
        return {"test" if file.name.startswith("t10k") else "train": _idx(file) for file in idx}
    folders = {child.name.lower(): child for child in path.iterdir() if child.is_dir()}
    named = {split: _classes(folder) for name, folder in folders.items() if (split := _split_of(name)) is not None}
    return _with_test(named) if "train" in named and len(named) > 1 else {"train": _classes(path)}


def _parquet_splits(files: list[Path]) -> dict[str, _Source]:
    """By the first word of a file's name, as in `validation-00000-of-00001.parquet`; all others are for training."""
    held: dict[str, list[Path]] = {}
    for file in files:
        held.setdefault(_split_of(re.split(r"[^a-z]", file.name.lower())[0]) or "train", []).append(file)
    if "train" not in held:
        raise ConfigError(
            f"{files[0].parent}: expected files of a training split, found only {' and '.join(held)} files"
        )
    return _with_test({split: _parquet(chosen) for split, chosen in held.items()})


def _split_of(word: str) -> str | None:
    return next((split for split, words in _SPLITS.items() if word in words), None)


def _with_test(splits: dict[str, _Source]) -> dict[str, _Source]:
    """A set without a test split is judged on its validation split."""
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    return splits


def _parquet(files: Sequence[Path]) -> _Source:
    """Rows with `image` (bytes, or a struct that holds them) and `label`.

    Rows that cannot be decoded, and those without a label (null, NaN, empty, or -1 as the library datasets has it), are
    no images, but keep their place.
    """
    import pyarrow.parquet as pq

    rows = 0
    for file in files:
        with _explained(file):
            rows += pq.read_metadata(file).num_rows
    return _Source(rows, _parquet_rows(files))


def _parquet_rows(files: Iterable[Path]) -> Iterator[Decoded]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        with _explained(file):
            reader = pq.ParquetFile(file)
            schema = reader.schema_arrow
            if not {"image", "label"} <= set(schema.names):
                raise ConfigError(f"{file}: expected columns image and label, found {', '.join(schema.names)}")
            kind = schema.field("image").type
            held = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
            if not (pa.types.is_binary(held) or pa.types.is_large_binary(held)):
                raise ConfigError(f"{file}: expected images as bytes, or as a struct with `bytes`; found {kind}")
            for batch in reader.iter_batches(1000, columns=["image", "label"]):
                image = batch.column("image")
                data = image.field("bytes") if pa.types.is_struct(kind) else image
                for encoded, label in zip(data.to_pylist(), batch.column("label").to_pylist(), strict=True):
                    is_labelled = label is not None and label == label and label not in ("", -1)  # NaN is not itself
                    yield from _decoded(encoded if is_labelled else None, str(label))


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """What Arrow says of a file that is none of its, in our words."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: expected a Parquet file: {error}; write it again") from error


def _classes(folder: Path) -> _Source:
    """One folder per class, but for hidden ones and what archives leave behind."""
    classes = [
        child
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".") and child.name != "__MACOSX"
    ]
    files = [
        (file, child.name)
        for child in classes
        for file in sorted(child.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    ]
    return _Source(len(files), chain.from_iterable(_decoded(file.read_bytes(), name) for file, name in files))


def _decoded(data: bytes | None, label: str) -> Iterator[Decoded]:
    try:
        yield decode_rgb(data or b""), label, data or b""
    except ImageError:
        yield torch.empty(0), label, b""


def _idx(file: Path) -> _Source:
    """The format of MNIST and its kin: images beside labels, big-endian, packed or not."""
    images = _idx_array(file, _IDX_IMAGES)
    labels = _idx_array(file.with_name(file.name.replace("-images-idx3", "-labels-idx1")), _IDX_LABELS)
    if len(images) != len(labels):
        raise InputError(f"{file}: expected a label for each of {len(images)} images, found {len(labels)}")
    return _Source(len(images), _grey(images, labels))


def _idx_array(file: Path, magic: int) -> np.ndarray:
    if not file.is_file():
        raise ConfigError(f"{file}: expected the labels beside the images, found none")
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: expected gzip: {error}; fetch it again") from error
    dimensions = magic & 0xFF
    shape = np.frombuffer(data[4 : 4 + 4 * dimensions], ">i4")
    body = np.frombuffer(data[4 + 4 * dimensions :], np.uint8)
    if data[:4] != magic.to_bytes(4, "big") or len(shape) != dimensions or len(body) != shape.prod(dtype=np.int64):
        raise InputError(f"{file}: expected an idx file of bytes in {dimensions} dimensions, found another or a part")
    return body.reshape(shape)


def _digits() -> _Source:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError("sklearn:digits: expected scikit-learn to be installed; pip install scikit-learn") from error
    held = load_digits()
    return _Source(len(held.target), _grey((held.images * 15.9).astype(np.uint8), held.target))


def _grey(images: np.ndarray, labels: np.ndarray) -> Iterator[Decoded]:
    for image, label in zip(images, labels, strict=True):
        yield torch.from_numpy(np.repeat(image[None], 3, axis=0)), str(label), image.tobytes()


def _torchvision(name: str, folder: Path) -> dict[str, _Source]:
    if name not in TORCHVISION:
        raise ConfigError(f"torchvision:{name}: expected one of {', '.join(TORCHVISION)}")
    from torchvision import datasets

    def read(is_train: bool) -> _Source:
        split = {"split": "train" if is_train else "test"} if name == "SVHN" else {"train": is_train}
        try:
            held = getattr(datasets, name)(str(folder), download=True, **split)
        except (RuntimeError, OSError) as error:
            raise ConfigError(
                f"torchvision:{name}: expected it in {folder} or a network to fetch it: {error}"
            ) from error
        return _Source(len(held), map(decoded, held))

    def decoded(entry: tuple[Any, object]) -> Decoded:
        pixels = np.array(entry[0].convert("RGB"))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), str(entry[1]), pixels.tobytes()

    return {"train": read(True), "test": read(False)}


def _pack(images: _Squares, names: list[str], squares: StoredImages, *, origin: str) -> Split:
    """Sorted by id."""
    number = {name: index for index, name in enumerate(names)}
    held = sorted(images.kept.values(), key=lambda entry: entry[0])
    ids, places = [entry[0] for entry in held], [entry[1] for entry in held]
    labels = np.array([number[label] for _, _, label, _ in held], np.int64)
    rows = np.array([row for *_, row in held], np.int64)
    return Split(squares.at(places), labels, ids, rows, origin, images.count)


def _leave_out_the_judged(name: str, splits: dict[str, _Squares]) -> None:
    """Take images out of the training split that are pixel-identical in another: judges must not have seen those."""
    kept = splits["train"].kept
    judged = {pixels for split, images in splits.items() if split != "train" for pixels in images.kept}
    seen = judged.intersection(kept)
    for pixels in seen:
        del kept[pixels]
    if seen:
        _log.warning("%s: left %d training images out that are also judged with", name, len(seen))


def _cut(split: Split, share: float, purpose: str) -> tuple[Split, Split]:
    """Two splits; `share` of the rows, chosen by hash, in the second."""
    is_second = split_draws(split.sample_ids, purpose) < share
    return split.take(np.flatnonzero(~is_second)), split.take(np.flatnonzero(is_second))


def split_draws(sample_ids: list[str], purpose: str) -> np.ndarray:
    """A number in 0 to 1 per id."""
    digests = b"".join(hashlib.blake2b(f"{purpose}:{i}".encode(), digest_size=8).digest() for i in sample_ids)
    return np.frombuffer(digests, "<u8") / 2.0**64


def _class_key(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (1 << 62, name)
