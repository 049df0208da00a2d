"""A small messy source to try the pipeline on, as cameras leave it: few scenes many times, many scenes a few times.

Some 3,000 images of 160 to 240 px, made from 70 photographs that come with scikit-image and scikit-learn (BSD) and
mvtb-data (MIT). The same bytes on every run with the same Pillow.

    north.parquet, south.tar, gate.parquet    cameras that stand still: the same views again and again, day and dusk
    walk.parquet                              a person's shots: many places, most of them rarely; bursts, blurred, dark
    inbox/                                    loose files: copies, resaved, made smaller or mirrored, and broken ones

The keys `camera` and `score` come with each image but those of the inbox; EXIF holds the time, and so the day, of all.

    python -m tests.sample_source FOLDER
"""

import hashlib
import io
import json
import sys
import tarfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter, ImageOps

_STANDING = {
    "north": (("campus/P1070498.png", 260), ("campus/P1070504.png", 110), ("campus/P1070512.png", 60)),
    "south": (("flowers4.png", 220), ("parks.png", 90), ("tomato_54.png", 50)),
    "gate": (("road.png", 240), ("walls-l.png", 130), ("street.png", 70)),
}
"""The views of each camera that stands still (of mvtb-data), and how many frames it took of each."""

_WALKED = {
    "mvtbdata.images": (
        *(f"campus/P10704{number}.png" for number in (91, 93, 94, 95, 96, 97, 99)),
        *(f"campus/P1070{number}.png" for number in (500, 501, 503, 505, 506, 507, 509, 510, 514, 515)),
        *(f"campus/holdout/P1070{number}.png" for number in (492, 502, 508, 511, 513)),
        *(f"flowers{number}.png" for number in (1, 2, 3, 5, 6, 7, 8, 9)),
        *(f"tomato_{number}.png" for number in (124, 14, 35)),
        *("arucoboard.png", "building2-3.png", "butterfly.jpg", "castle.png", "church.png"),
        *("eiffel-1.png", "eiffel-2.png", "greenscreen.png", "lab-scene.png", "monalisa.png", "notre-dame.png"),
        *(
            "penguins.png",
            "roof.png",
            "tags.png",
            "yellowtargets.png",
            "mosaic/aerial-10.png",
            "mosaic/aerial2-004.png",
        ),
    ),
    "skimage.data": (
        *(
            "astronaut.png",
            "brick.png",
            "camera.png",
            "chelsea.png",
            "coffee.png",
            "coins.png",
            "grass.png",
            "gravel.png",
        ),
        *(
            "hubble_deep_field.jpg",
            "ihc.png",
            "moon.png",
            "motorcycle_left.png",
            "page.png",
            "retina.jpg",
            "rocket.jpg",
        ),
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}
"""What the person with the camera passed, by package."""

_WALKED_FRAMES = 1_600
_TAIL_EXPONENT = 0.9
_BURST_SHARE, _BURST_FRAMES = 0.06, (6, 19)
_BLURRED_SHARE = _DARK_SHARE = 0.03
_COPIES = 60
_WIDTHS = (160, 192, 240)
_LARGEST_SIDE = 640
_SHIFT = 4
_FIRST_DAY, _DAYS = datetime(2026, 3, 2), 14
_SEED = 7
"""Also decides which places are frequent; with this one they look different from each other."""
_EXIF_IFD, _TAKEN_AT = 0x8769, 0x9003


@dataclass(frozen=True)
class _Shot:
    """A JPEG, and what is known of it."""

    data: bytes
    camera: str
    score: float


def build(folder: Path) -> int:
    """Write the source into `folder` (made if missing, an earlier one is written over). Returns the readable images.

    Raises:
        ModuleNotFoundError: scikit-image, scikit-learn or mvtb-data is not installed.
    """
    rng = np.random.default_rng(_SEED)
    walked = _walk(rng)
    standing = {camera: _stand(camera, rng) for camera in _STANDING}
    copies = _copies(walked, rng)
    (folder / "inbox").mkdir(parents=True, exist_ok=True)
    _write_parquet(folder / "north.parquet", standing["north"])
    _write_tar(folder / "south.tar", standing["south"])
    _write_parquet(folder / "gate.parquet", standing["gate"])
    _write_parquet(folder / "walk.parquet", walked)
    for i, data in enumerate(copies):
        (folder / "inbox" / f"{i:05d}.jpg").write_bytes(data)
    _write_broken(folder, walked[0].data)
    return sum(map(len, standing.values())) + len(walked) + len(copies)


def _stand(camera: str, rng: np.random.Generator) -> list[_Shot]:
    """The frames of a camera that stands still: a few pixels of shift, and the light of the hour."""
    shots = []
    for name, frames in _STANDING[camera]:
        scene = _view(_open("mvtbdata.images", name), rng, smallest=0.9, width=192)
        for moment in np.sort(rng.uniform(0, _DAYS, size=frames)):
            hour = 6 + 14 * (moment % 1)
            light = 0.75 + 0.3 * float(np.sin(np.pi * (hour - 5) / 16))
            frame = _frame(scene, rng, light=light)
            shots.append(_shot(frame, camera, _FIRST_DAY + timedelta(days=int(moment), hours=hour), rng))
    return shots


def _walk(rng: np.random.Generator) -> list[_Shot]:
    """Shots of many places, most of them of few; some are bursts, some blurred, some dark."""
    places = [(package, name) for package, names in _WALKED.items() for name in names]
    places = [places[i] for i in rng.permutation(len(places))]
    photographs = [_open(package, name) for package, name in places]
    weights = 1.0 / np.arange(1, len(places) + 1) ** _TAIL_EXPONENT
    shots: list[_Shot] = []
    while len(shots) < _WALKED_FRAMES:
        photograph = photographs[rng.choice(len(places), p=weights / weights.sum())]
        scene = _view(photograph, rng, smallest=0.92, width=int(rng.choice(_WIDTHS)))
        moment = _FIRST_DAY + timedelta(days=int(rng.integers(_DAYS)), seconds=int(rng.integers(8 * 3600, 18 * 3600)))
        frames = int(rng.integers(*_BURST_FRAMES)) if rng.random() < _BURST_SHARE else 1
        for number in range(frames):
            frame = _frame(scene, rng, light=float(rng.uniform(0.95, 1.05)))
            fault = rng.random()
            if fault < _BLURRED_SHARE:
                frame = frame.filter(ImageFilter.GaussianBlur(float(rng.uniform(3, 6))))
            elif fault < _BLURRED_SHARE + _DARK_SHARE:
                frame = _lit(frame, float(rng.uniform(0.05, 0.15)))
            shots.append(_shot(frame, "walk", moment + timedelta(seconds=number), rng))
    return shots


def _copies(shots: list[_Shot], rng: np.random.Generator) -> list[bytes]:
    """What comes back by mail: shots resaved, made smaller or mirrored."""
    copies = []
    for number, row in enumerate(rng.choice(len(shots), size=_COPIES, replace=False)):
        image = Image.open(io.BytesIO(shots[row].data))
        exif = image.getexif()
        changed = (image, image.resize((image.width * 2 // 3, image.height * 2 // 3)), ImageOps.mirror(image))[
            number % 3
        ]
        copies.append(_encode(changed, exif, quality=60))
    return copies


def _open(package: str, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(resources.files(package).joinpath(name).read_bytes())).convert("RGB")
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return image


def _view(image: Image.Image, rng: np.random.Generator, *, smallest: float, width: int) -> Image.Image:
    """A part of the photograph, three wide and two high, at least `smallest` as wide as the widest such part.

    It is resized to frames of the `width`, with a margin for frames that are shifted.
    """
    extent = min(image.width / 3, image.height / 2) * rng.uniform(smallest, 1.0)
    left = int(rng.integers(image.width - int(3 * extent) + 1))
    top = int(rng.integers(image.height - int(2 * extent) + 1))
    box = (left, top, left + int(3 * extent), top + int(2 * extent))
    return image.resize((width + _SHIFT, width * 2 // 3 + _SHIFT), Image.Resampling.LANCZOS, box, reducing_gap=2.0)


def _frame(view: Image.Image, rng: np.random.Generator, *, light: float) -> Image.Image:
    """The view as a camera sees it at one moment: some pixels off, in the given light."""
    left, top = (int(v) for v in rng.integers(0, _SHIFT + 1, size=2))
    return _lit(view.crop((left, top, left + view.width - _SHIFT, top + view.height - _SHIFT)), light)


def _lit(image: Image.Image, light: float) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image, dtype=np.float32) * light, 0, 255).astype(np.uint8))


def _shot(image: Image.Image, camera: str, taken: datetime, rng: np.random.Generator) -> _Shot:
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_TAKEN_AT] = taken.strftime("%Y:%m:%d %H:%M:%S")
    return _Shot(_encode(image, exif, quality=85), camera, round(float(rng.random()), 2))


def _encode(image: Image.Image, exif: Image.Exif, *, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def _write_tar(path: Path, shots: list[_Shot]) -> None:
    """Each image with a JSON file of the same base name, as in WebDataset."""
    with tarfile.open(path, "w") as tar:
        for i, shot in enumerate(shots):
            keys = json.dumps({"camera": shot.camera, "score": shot.score}).encode()
            for name, data in ((f"{i:05d}.jpg", shot.data), (f"{i:05d}.json", keys)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _write_parquet(path: Path, shots: list[_Shot]) -> None:
    rows = [{"bytes": shot.data, "path": f"{i:05d}.jpg"} for i, shot in enumerate(shots)]
    columns = {
        "image": pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "camera": pa.array([shot.camera for shot in shots]),
        "score": pa.array([shot.score for shot in shots]),
    }
    pq.write_table(pa.table(columns), path, row_group_size=250)


def _write_broken(folder: Path, image: bytes) -> None:
    (folder / "inbox" / "cut-off.jpg").write_bytes(image[: len(image) // 2])
    (folder / "inbox" / "empty.jpg").write_bytes(b"")
    (folder / "inbox" / "a-web-page.jpg").write_bytes(b"<html>404 not found</html>\n")
    (folder / "inbox" / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + hashlib.sha512(b"noise").digest())
    (folder / "inbox" / "copy-of-the-first.jpg").write_bytes(image)
    (folder / "README.txt").write_text("A sample source for wtl; no image, so it is counted as ignored.\n")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    sys.stderr.write(f"{target}: {build(target)} images\n")
