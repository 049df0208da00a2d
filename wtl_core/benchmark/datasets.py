"""Labelled sets to judge with: decoded once to squares of bytes, in an order that depends on content alone.

Here: what a name or a path holds, and its fixed splits. Not here: the pools made of a training split (`pools`).
Splits come with the set; where they do not, a fifth of the images, chosen by hash of the bytes, is the test split. A
validation split that comes with the set is kept as it is, but for one without a test split, whose place it takes.
"""

import gzip
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wtl_core.encoders.preprocessing import Preprocessing, fit
from wtl_core.errors import ConfigError, InputError
from wtl_core.images.decode import decode_rgb
from wtl_core.images.faults import ImageError

TORCHVISION = ("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "SVHN")
FORMS = (
    "a folder of classes",
    "Parquet with image and label",
    "a folder of idx files",
    "torchvision:NAME",
    "sklearn:digits",
)
_log = logging.getLogger(__name__)
_TEST_SHARE = 0.2
_VALIDATION = ("val", "valid", "validation", "dev")
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})

Decoded = tuple[torch.Tensor, str, bytes]  # an image, its class, and the bytes that identify it: none for no image


@dataclass(frozen=True)
class Split:
    """Images (N, 3, S, S) uint8 with labels (N,) int64 and distinct ids, sorted by id.

    `rows` (N,) are positions in the reading order of the set's split `origin`, for vectors that were made elsewhere.
    """

    images: np.ndarray
    labels: np.ndarray
    sample_ids: list[str]
    rows: np.ndarray
    origin: str = "train"

    def __len__(self) -> int:
        """Images in the split."""
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """Some rows, in the given order."""
        ids = [self.sample_ids[row] for row in rows]
        return Split(self.images[rows], self.labels[rows], ids, self.rows[rows], self.origin)


@dataclass(frozen=True)
class LabelledSet:
    """A set with fixed splits; `classes` names the labels 0, 1, ...

    `left_out` counts what could not be decoded, byte-identical repeats within a split, and images of the training split
    that are also in a test or validation split that comes with the set.
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
) -> LabelledSet:
    """Read a labelled set.

    Args:
        name: One of `FORMS`; a path is a folder or a Parquet file.
        side_px: Images are squashed to squares of this side.
        test_images: Test images to keep, chosen by hash; None keeps all.
        validation_share: Share of the training split that becomes the validation split, by hash, if the set has none.
        download_folder: Where torchvision keeps what it fetched.

    Raises:
        ConfigError: no such set or path.
        InputError: fewer than two classes, no readable image, or a split that the hash leaves empty.
    """
    splits = {split: _squashed(images, side_px) for split, images in _read(name, download_folder).items()}
    names = sorted({label for images in splits.values() for label in images.labels}, key=_class_key)
    ready = {split: _pack(images, names, side_px, origin=split) for split, images in splits.items()}
    if len(names) < 2 or not all(len(split) for split in ready.values()):
        raise InputError(f"{name}: expected images of two classes or more, found {len(names)}; check the labels")
    ready["train"] = _unseen(name, ready)
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
        test = test.take(np.sort(np.argsort(_draws(test.sample_ids, "keep"), kind="stable")[:test_images]))
    read = sum(images.count for images in splits.values())
    return LabelledSet(Path(name).name, train, validation, test, names, read - sum(len(s) for s in ready.values()))


@dataclass
class _Squares:
    """A split while it is read: its images as squares by id, with class and reading position; repeats count once."""

    kept: dict[str, tuple[np.ndarray, str, int]]
    labels: set[str]
    count: int = 0


def _squashed(images: Iterable[Decoded], side_px: int) -> _Squares:
    """Read a split with one image at a time in its full size."""
    fitting, found = Preprocessing(side_px), _Squares({}, set())
    for row, (image, label, data) in enumerate(images):
        found.count = row + 1
        found.labels.add(label)
        sample_id = hashlib.sha256(data).hexdigest()
        if data and sample_id not in found.kept:
            found.kept[sample_id] = fit(image, fitting).numpy(), label, row
    return found


def _read(name: str, download_folder: Path | None) -> dict[str, Iterator[Decoded]]:
    """Splits by name: `train`, and perhaps `test` and `validation`; nothing is decoded before it is asked for."""
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


def _parquet_splits(files: list[Path]) -> dict[str, Iterator[Decoded]]:
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
    return "validation" if word in _VALIDATION else word if word in ("train", "test") else None


def _with_test(splits: dict[str, Iterator[Decoded]]) -> dict[str, Iterator[Decoded]]:
    """A set without a test split is judged on its validation split."""
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    return splits


def _parquet(files: Iterable[Path]) -> Iterator[Decoded]:
    """Rows with `image` (bytes, or a struct that holds them) and `label`; rows that cannot be decoded are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        reader = pq.ParquetFile(file)
        if not {"image", "label"} <= set(reader.schema_arrow.names):
            raise ConfigError(f"{file}: expected columns image and label, found {', '.join(reader.schema_arrow.names)}")
        for batch in reader.iter_batches(1000, columns=["image", "label"]):
            image = batch.column("image")
            data = image.field("bytes") if pa.types.is_struct(image.type) else image
            for held, label in zip(data.to_pylist(), batch.column("label").to_pylist(), strict=True):
                if label is not None:
                    yield from _decoded(held, str(label))


def _classes(folder: Path) -> Iterator[Decoded]:
    """One folder per class."""
    for child in sorted(folder.iterdir()):
        if not child.is_dir():
            continue
        for file in sorted(child.rglob("*")):
            if file.suffix.lower() in _IMAGE_SUFFIXES and file.is_file():
                yield from _decoded(file.read_bytes(), child.name)


def _decoded(data: bytes | None, label: str) -> Iterator[Decoded]:
    try:
        yield decode_rgb(data or b""), label, data or b""
    except ImageError:
        yield torch.empty(0), label, b""


def _idx(file: Path) -> Iterator[Decoded]:
    """The format of MNIST and its kin: images beside labels, big-endian, packed or not."""
    images = _idx_array(file, header=16)
    labels = _idx_array(file.with_name(file.name.replace("-images-idx3", "-labels-idx1")), header=8)
    side = int(np.sqrt(len(images) / max(1, len(labels))))
    yield from _grey(images.reshape(-1, side, side), labels)


def _idx_array(file: Path, *, header: int) -> np.ndarray:
    if not file.is_file():
        raise ConfigError(f"{file}: expected the labels beside the images, found none")
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return np.frombuffer(data, np.uint8, offset=header)


def _digits() -> Iterator[Decoded]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError("sklearn:digits: expected scikit-learn to be installed; pip install scikit-learn") from error
    held = load_digits()
    yield from _grey((held.images * 15.9).astype(np.uint8), held.target)


def _grey(images: np.ndarray, labels: np.ndarray) -> Iterator[Decoded]:
    for image, label in zip(images, labels, strict=True):
        yield torch.from_numpy(np.repeat(image[None], 3, axis=0)), str(label), image.tobytes()


def _torchvision(name: str, folder: Path) -> dict[str, Iterator[Decoded]]:
    if name not in TORCHVISION:
        raise ConfigError(f"torchvision:{name}: expected one of {', '.join(TORCHVISION)}")
    from torchvision import datasets

    def read(is_train: bool) -> Iterator[Decoded]:
        split = {"split": "train" if is_train else "test"} if name == "SVHN" else {"train": is_train}
        try:
            held = getattr(datasets, name)(str(folder), download=True, **split)
        except (RuntimeError, OSError) as error:
            raise ConfigError(
                f"torchvision:{name}: expected it in {folder} or a network to fetch it: {error}"
            ) from error
        for image, label in held:
            pixels = np.array(image.convert("RGB"))
            yield torch.from_numpy(pixels.transpose(2, 0, 1).copy()), str(label), pixels.tobytes()

    return {"train": read(True), "test": read(False)}


def _pack(images: _Squares, names: list[str], side_px: int, *, origin: str) -> Split:
    """Sorted by id."""
    number = {name: index for index, name in enumerate(names)}
    ids = sorted(images.kept)
    squares = np.empty((len(ids), 3, side_px, side_px), np.uint8)
    labels, rows = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    for place, sample_id in enumerate(ids):
        squares[place], label, rows[place] = images.kept[sample_id]
        labels[place] = number[label]
    return Split(squares, labels, ids, rows, origin)


def _unseen(name: str, ready: dict[str, Split]) -> Split:
    """The training split without images that are byte-identical in another split: judges must not have seen those."""
    train = ready["train"]
    judged = {sample_id for split in ready if split != "train" for sample_id in ready[split].sample_ids}
    rows = np.array([row for row, sample_id in enumerate(train.sample_ids) if sample_id not in judged], np.int64)
    if len(rows) < len(train):
        _log.warning("%s: left %d training images out that are also judged with", name, len(train) - len(rows))
    return train.take(rows)


def _cut(split: Split, share: float, purpose: str) -> tuple[Split, Split]:
    """Two splits; `share` of the rows, chosen by hash, in the second."""
    is_second = _draws(split.sample_ids, purpose) < share
    return split.take(np.flatnonzero(~is_second)), split.take(np.flatnonzero(is_second))


def _draws(sample_ids: list[str], purpose: str) -> np.ndarray:
    """A number in 0 to 1 per id."""
    digests = b"".join(hashlib.blake2b(f"{purpose}:{i}".encode(), digest_size=8).digest() for i in sample_ids)
    return np.frombuffer(digests, "<u8") / 2.0**64


def _class_key(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (1 << 62, name)
