"""A small messy source to try the pipeline on, cut from photographs that scikit-image and scikit-learn ship.

Some 3,000 crops of 64 to 128 px: a long tail over the photographs, bursts of near-duplicates and a few broken files,
spread over a tar, a Parquet file and loose files. The same bytes on every run with the same Pillow.

    python -m tests.sample_source FOLDER
"""

import hashlib
import io
import sys
import tarfile
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_PHOTOGRAPHS = (
    ("skimage.data", "chelsea.png"),
    ("skimage.data", "astronaut.png"),
    ("skimage.data", "coffee.png"),
    ("sklearn.datasets.images", "china.jpg"),
    ("sklearn.datasets.images", "flower.jpg"),
    ("skimage.data", "rocket.jpg"),
    ("skimage.data", "hubble_deep_field.jpg"),
    ("skimage.data", "ihc.png"),
    ("skimage.data", "motorcycle_left.png"),
    ("skimage.data", "retina.jpg"),
    ("skimage.data", "coins.png"),
    ("skimage.data", "grass.png"),
    ("skimage.data", "brick.png"),
    ("skimage.data", "gravel.png"),
    ("skimage.data", "moon.png"),
    ("skimage.data", "page.png"),
    ("skimage.data", "text.png"),
    ("skimage.data", "camera.png"),
)
"""From the most to the least frequent; the tail holds textures and documents that few crops show."""

_CROPS = 2_400
_BURSTS, _BURST_LENGTHS = 40, (8, 22)
_TAIL_EXPONENT = 1.1
_SIDES = (64, 129)
_LARGEST_SIDE = 900
_CAMERAS = ("north", "south", "gate")
"""Metadata of the Parquet file, with a `score` from 0 to 0.99: what the README's recipe groups and filters by."""
_SEED = 20_260


def build(folder: Path) -> int:
    """Write the source into `folder` (made if missing, an earlier one is written over). Returns the readable images.

    Raises:
        ModuleNotFoundError: scikit-image or scikit-learn is not installed.
    """
    rng = np.random.default_rng(_SEED)
    images = _crops(rng) + _bursts(rng)
    order = rng.permutation(len(images))
    images = [images[i] for i in order]
    third = len(images) // 3
    (folder / "loose" / "camera-2").mkdir(parents=True, exist_ok=True)
    _write_tar(folder / "camera-0.tar", images[:third])
    _write_parquet(folder / "camera-1.parquet", images[third : 2 * third])
    for i, data in enumerate(images[2 * third :]):
        (folder / "loose" / "camera-2" / f"{i:05d}.jpg").write_bytes(data)
    _write_broken(folder, images)
    return len(images)


def _crops(rng: np.random.Generator) -> list[bytes]:
    photographs = [_open(package, name) for package, name in _PHOTOGRAPHS]
    weights = 1.0 / np.arange(1, len(photographs) + 1) ** _TAIL_EXPONENT
    choices = rng.choice(len(photographs), size=_CROPS, p=weights / weights.sum())
    return [_encode(_crop(photographs[choice], rng)) for choice in choices]


def _bursts(rng: np.random.Generator) -> list[bytes]:
    """Near-duplicates as a camera that stands still makes them: a pixel's shift and a breath of light apart."""
    frames = []
    for _ in range(_BURSTS):
        package, name = _PHOTOGRAPHS[int(rng.integers(len(_PHOTOGRAPHS) // 2))]
        scene = _crop(_open(package, name), rng, margin=4)
        side = scene.width - 4
        for _ in range(int(rng.integers(*_BURST_LENGTHS))):
            left, top = (int(v) for v in rng.integers(0, 5, size=2))
            frame = np.asarray(scene.crop((left, top, left + side, top + side)), dtype=np.float32)
            light = np.clip(frame * rng.uniform(0.97, 1.03), 0, 255).astype(np.uint8)
            frames.append(_encode(Image.fromarray(light)))
    return frames


def _open(package: str, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(resources.files(package).joinpath(name).read_bytes())).convert("RGB")
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return image


def _crop(image: Image.Image, rng: np.random.Generator, *, margin: int = 0) -> Image.Image:
    """A square of the photograph at one of several scales, resized to a side between 64 and 128 px (plus `margin`)."""
    side = int(rng.integers(*_SIDES)) + margin
    extent = min(int(side * rng.uniform(1.0, 2.5)), image.width, image.height)
    left, top = int(rng.integers(image.width - extent + 1)), int(rng.integers(image.height - extent + 1))
    return image.crop((left, top, left + extent, top + extent)).resize((side, side), Image.Resampling.LANCZOS)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _write_tar(path: Path, images: list[bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for i, data in enumerate(images):
            member = tarfile.TarInfo(f"{i:05d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _write_parquet(path: Path, images: list[bytes]) -> None:
    rows = [{"bytes": data, "path": f"{i:05d}.jpg"} for i, data in enumerate(images)]
    columns = {
        "image": pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "camera": pa.array([_CAMERAS[i % len(_CAMERAS)] for i in range(len(images))]),
        "score": pa.array([i % 100 / 100 for i in range(len(images))]),
    }
    pq.write_table(pa.table(columns), path, row_group_size=250)


def _write_broken(folder: Path, images: list[bytes]) -> None:
    (folder / "loose" / "cut-off.jpg").write_bytes(images[0][: len(images[0]) // 2])
    (folder / "loose" / "empty.jpg").write_bytes(b"")
    (folder / "loose" / "a-web-page.jpg").write_bytes(b"<html>404 not found</html>\n")
    (folder / "loose" / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + hashlib.sha512(b"noise").digest())
    (folder / "loose" / "copy-of-the-first.jpg").write_bytes(images[0])
    (folder / "README.txt").write_text("A sample source for wtl; no image, so it is counted as ignored.\n")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    sys.stderr.write(f"{target}: {build(target)} images\n")
