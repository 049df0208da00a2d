"""Labelled sets are read the same whatever form they come in, and their splits are fixed by content."""

import gzip
import hashlib
import io
import os
import resource
import tracemalloc
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wtl_core.benchmark import datasets, pools, stored_images
from wtl_core.benchmark.stored_images import StoredImages
from wtl_core.errors import ConfigError, CorruptArtifactError, InputError


def png(seed: int, side: int = 12) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_classes(folder: Path, seeds: Iterable[int] = range(40)) -> Path:
    for seed in seeds:
        place = folder / ("cat" if seed % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{seed}.png").write_bytes(png(seed))
    return folder


def test_a_folder_of_classes_is_split_by_content(tmp_path: Path) -> None:
    held = datasets.load(str(write_classes(tmp_path / "a")), side_px=16)
    assert held.classes == ["cat", "dog"]
    assert len(held.train) + len(held.test) == 40
    assert 2 <= len(held.test) <= 16
    assert held.train.images.shape[1:] == (3, 16, 16)
    assert not set(held.train.sample_ids) & set(held.test.sample_ids)
    more = datasets.load(str(write_classes(tmp_path / "b", range(60))), side_px=16)
    assert set(held.test.sample_ids) <= set(more.test.sample_ids)  # an image's split does not depend on the others


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test", range(100, 110))
    (tmp_path / "train" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (tmp_path / "train" / "cat" / "copy.png").write_bytes(png(1))
    held = datasets.load(str(tmp_path), side_px=8, validation_share=0.25, test_images=6)
    assert len(held.train) + len(held.validation) == 40
    assert len(held.validation) > 2
    assert len(held.test) == 6
    assert held.left_out == 2 + 4 - 4


def test_parquet_and_folders_hold_the_same_images(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "folder" / "train").parent
    write_classes(folder / "test", range(100, 110))
    for split, seeds in (("train", range(40)), ("test", range(100, 110))):
        image = pa.array(
            [{"bytes": png(s), "path": ""} for s in seeds], pa.struct({"bytes": pa.binary(), "path": pa.string()})
        )
        label = pa.array([1 - s % 2 for s in seeds])
        (tmp_path / "parquet").mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": image, "label": label}), tmp_path / "parquet" / f"{split}-0.parquet")
    ours, theirs = (datasets.load(str(p), side_px=8) for p in (folder, tmp_path / "parquet"))
    assert ours.train.sample_ids == theirs.train.sample_ids
    np.testing.assert_array_equal(ours.train.images[:], theirs.train.images[:])
    names = [np.array(["cat", "dog"])[ours.test.labels], np.array(["dog", "cat"])[1 - theirs.test.labels]]
    assert len(names[0]) == len(names[1]) == 10
    np.testing.assert_array_equal(theirs.train.rows[np.argsort(theirs.train.rows)], np.arange(40))


def write_parquet(folder: Path, **splits: Iterable[int]) -> Path:
    folder.mkdir()
    for split, seeds in splits.items():
        rows = {"image": pa.array([png(seed) for seed in seeds]), "label": pa.array([seed % 2 for seed in seeds])}
        pq.write_table(pa.table(rows), folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_validation_split_that_comes_with_the_set_is_not_trained_on(tmp_path: Path) -> None:
    held = {"train": range(40), "test": range(100, 110), "validation": range(200, 212)}
    parquet = write_parquet(tmp_path / "parquet", **held)
    for split, seeds in (("train", held["train"]), ("test", held["test"]), ("val", held["validation"])):
        write_classes(tmp_path / "folder" / split, seeds)
    for place in (parquet, tmp_path / "folder"):
        found = datasets.load(str(place), side_px=8, validation_share=0.5)
        assert [len(split) for split in (found.train, found.validation, found.test)] == [40, 12, 10], place
        assert (found.train.origin, found.validation.origin) == ("train", "validation")
    without_test = datasets.load(str(write_parquet(tmp_path / "b", train=range(40), valid=range(50, 59))), side_px=8)
    assert (len(without_test.train), len(without_test.test)) == (40, 9)


def test_training_images_that_are_judged_with_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, seeds in (("train", range(40)), ("test", (3, 4, *range(100, 110))), ("val", (5, *range(200, 208)))):
        write_classes(tmp_path / split, seeds)
    held = datasets.load(str(tmp_path), side_px=8)
    assert [len(split) for split in (held.train, held.validation, held.test)] == [37, 9, 12]
    assert not set(held.train.sample_ids) & {*held.test.sample_ids, *held.validation.sample_ids}
    assert held.left_out == 3
    assert "left 3 training images out" in caplog.text


def test_idx_files_are_read_packed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("train", 30), ("t10k", 12)):
        pixels, labels = rng.integers(0, 256, (count, 5, 5), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 3
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    held = datasets.load(str(tmp_path), side_px=8)
    assert (len(held.train), len(held.test), held.classes) == (30, 12, ["0", "1", "2"])


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return head + array.tobytes()


def test_idx_images_need_not_be_square_and_a_part_of_a_file_is_refused(tmp_path: Path) -> None:
    pixels, labels = np.random.default_rng(0).integers(0, 256, (30, 4, 6), dtype=np.uint8), np.arange(30) % 2
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(pixels))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    held = datasets.load(str(tmp_path), side_px=8)
    assert len(held.train) + len(held.test) == 30
    for broken in (idx(pixels)[:-5], bytes(40), b""):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(broken)
        with pytest.raises(InputError, match="an idx file of bytes in 3 dimensions"):
            datasets.load(str(tmp_path), side_px=8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(pixels[:-1]))
    with pytest.raises(InputError, match="a label for each of 29 images, found 30"):
        datasets.load(str(tmp_path), side_px=8)


def test_the_same_pixels_in_another_format_are_a_repeat(tmp_path: Path) -> None:
    """Otherwise a split by hash would judge with images that were trained with."""
    write_classes(tmp_path)
    for file in list(tmp_path.rglob("*.png")):
        Image.open(file).save(file.with_suffix(".bmp"))
    held = datasets.load(str(tmp_path), side_px=8)
    assert (len(held.train) + len(held.test), held.left_out) == (40, 40)
    for split, place in (("train", tmp_path), ("testing", tmp_path / "b")):
        (tmp_path / "named").mkdir(exist_ok=True)
        write_classes(place / "x")
        (place / "x").rename(tmp_path / "named" / split)
    for file in list((tmp_path / "named" / "testing").rglob("1*.png")):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    write_classes(tmp_path / "named" / "train", range(40, 50))
    held = datasets.load(str(tmp_path / "named"), side_px=8)
    assert (len(held.train), len(held.test), held.left_out) == (10, 40, 40)


def test_every_format_that_is_ingested_is_read_and_only_what_is_read_makes_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "set")
    for name, suffix in (("owl", ".jfif"), ("fox", ".tiff")):
        (tmp_path / "set" / name).mkdir()
        for seed in range(50, 60):
            Image.open(io.BytesIO(png(seed))).save(tmp_path / "set" / name / f"{seed}{suffix}")
    for name in (".thumbnails", "__MACOSX", "broken"):
        (tmp_path / "set" / name).mkdir()
        (tmp_path / "set" / name / "1.png").write_bytes(png(1) if name != "broken" else b"no image")
    held = datasets.load(str(tmp_path / "set"), side_px=8)
    assert (held.classes, held.left_out) == (["cat", "dog", "fox", "owl"], 1)


def test_parquet_rows_without_a_label_are_left_out_and_keep_their_place(tmp_path: Path) -> None:
    rows = {"image": [png(seed) for seed in range(20)], "label": [None, "", *("ab"[seed % 2] for seed in range(18))]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    held = datasets.load(str(tmp_path / "a.parquet"), side_px=8)
    assert (held.classes, held.left_out, held.train.origin_count) == (["a", "b"], 2, 20)
    for split in (held.train, held.test):
        assert [hashlib.sha256(png(row)).hexdigest() for row in split.rows] == split.sample_ids
    numbers = {"image": rows["image"], "label": [float("nan"), *(float(seed % 2) for seed in range(19))]}
    pq.write_table(pa.table(numbers), tmp_path / "a.parquet")
    held = datasets.load(str(tmp_path / "a.parquet"), side_px=8)
    assert (held.classes, held.left_out) == (["0.0", "1.0"], 1)
    pq.write_table(pa.table({**rows, "label": [-1, *(seed % 2 for seed in range(19))]}), tmp_path / "a.parquet")
    held = datasets.load(str(tmp_path / "a.parquet"), side_px=8)
    assert (held.classes, held.left_out) == (["0", "1"], 1)


def test_one_image_at_a_time_is_held_in_its_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, decode = [], datasets.decode_rgb

    def watched(data: bytes) -> np.ndarray:
        assert sum(image() is not None for image in whole) <= 1
        image = decode(data)
        whole.append(weakref.ref(image))
        return image

    monkeypatch.setattr(datasets, "decode_rgb", watched)
    held = datasets.load(str(write_classes(tmp_path)), side_px=8)
    assert len(held.train) + len(held.test) == len(whole) == 40


def test_squares_are_never_all_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, cutting, near-copies and writing, by what Python and numpy allocate."""
    monkeypatch.setattr(stored_images, "CHUNK", 32)
    rows = {"image": [png(seed, side=4) for seed in range(400)], "label": [seed % 2 for seed in range(400)]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    datasets.load(str(tmp_path / "a.parquet"), side_px=8)  # what is imported when first used is no image
    tracemalloc.start()
    held = datasets.load(str(tmp_path / "a.parquet"), side_px=96, folder=tmp_path / "out")
    pool = pools.make("bursts", held.train, seed=0)
    with (tmp_path / "pool.npy").open("wb") as file:
        pool.images.save(file, 96)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = len(pool.labels) * 3 * 96 * 96
    assert len(pool.labels) > 600
    assert peak < size / 4
    assert (tmp_path / "pool.npy").stat().st_size > size
    assert list((tmp_path / "out").iterdir()) == []  # the file of squares has no name: a kill leaves nothing


def test_stored_images_are_read_as_an_array_of_them_would_be(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (9, 3, 5, 5), dtype=np.uint8)
    held = StoredImages.new(5).plus(whole[:6])
    both = held.take(np.array([4, 1])).plus(whole[6:])
    order = np.array([4, 1, 6, 7, 8])
    assert (held.shape, both.shape, len(both)) == ((6, 3, 5, 5), (5, 3, 5, 5), 5)
    with (tmp_path / "a.npy").open("wb") as file:
        both.save(file, 5)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), whole[order])
    for one in (both, StoredImages.open(str(tmp_path / "a.npy"))):
        for chosen in (slice(None), slice(1, 3), slice(3, 3), np.array([3, 0, 3]), np.arange(5) > 2, 2, -1):
            np.testing.assert_array_equal(one[chosen], whole[order][chosen])


def test_a_file_that_ends_before_its_images_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((4, 3, 8, 8), np.uint8))
    os.truncate(file, file.stat().st_size - 300)
    images = StoredImages.open(str(file))
    assert images[:2].shape == (2, 3, 8, 8)
    with pytest.raises(CorruptArtifactError, match="expected more images, found its end"):
        images[2]


def test_a_disk_that_takes_a_part_of_an_image_is_full() -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    held, image = StoredImages.new(5), np.zeros((3, 5, 5), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        held.write(image)
        with pytest.raises(OSError, match="No space left"):
            held.write(image)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_set_whose_training_images_are_all_judged_with_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_classes(tmp_path / split)
    with pytest.raises(InputError, match="found 0 and 40"):
        datasets.load(str(tmp_path), side_px=8)


def test_a_set_too_small_for_its_hashed_split_is_refused(tmp_path: Path) -> None:
    ids = {seed: hashlib.sha256(png(seed)).hexdigest() for seed in range(40)}
    trained_with = [seed for seed in ids if datasets.split_draws([ids[seed]], "test")[0] >= 0.2]
    few = [next(seed for seed in trained_with if seed % 2 == kind) for kind in (0, 1)]
    with pytest.raises(InputError, match="found 2 and 0 after the split"):
        datasets.load(str(write_classes(tmp_path, few)), side_px=8)


def test_what_is_no_set_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="torchvision:NAME"):
        datasets.load(str(tmp_path / "nowhere"), side_px=8)
    with pytest.raises(ConfigError, match="CIFAR10"):
        datasets.load("torchvision:Nope", side_px=8)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="columns image and label"):
        datasets.load(str(tmp_path / "a.parquet"), side_px=8)
    pq.write_table(pa.table({"image": ["a.png"], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"images as bytes.*found string"):
        datasets.load(str(tmp_path / "a.parquet"), side_px=8)
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match="expected a Parquet file"):
        datasets.load(str(tmp_path / "a.parquet"), side_px=8)
    write_classes(tmp_path / "one", range(1, 20, 2))
    with pytest.raises(InputError, match="two classes"):
        datasets.load(str(tmp_path / "one"), side_px=8)
    write_classes(tmp_path / "flat" / "train")
    (tmp_path / "flat" / "test").mkdir()
    (tmp_path / "flat" / "test" / "1.png").write_bytes(png(1))
    with pytest.raises(InputError, match="one folder per class; found none in test"):
        datasets.load(str(tmp_path / "flat"), side_px=8)
