"""How good features are on the first day, by labelled sets of many kinds, and which image side `auto` chooses there.

    python tests/bench/bench_features.py [--quick] [--sets FOLDER] [--images 1000] [--eager]

`--sets` is a folder of Parquet files, a set each, with columns `image` (an image file's bytes), `label` and perhaps
`source`. CIFAR-10 and clothing of `../shared/data`, Fashion-MNIST of Debian's package `dataset-fashion-mnist` and
scikit-learn's digits come by themselves where they are. Writes tests/bench/reports/features.md.
"""

import argparse
import gzip
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import report
import torch
from PIL import Image
from torch.nn import functional
from torchvision.io import encode_png

from wtl_core.encoders import openvino_network, packages, resolve
from wtl_core.encoders.encoder import Encoder, default_format
from wtl_core.encoders.networks import fold_norms
from wtl_core.encoders.pixels import pixels
from wtl_core.recipe.encoder import PACKAGE_SIDE_PX, EncoderParams
from wtl_core.training import choosing, fitting, strength_check
from wtl_core.training.image_cache import PoolImages
from wtl_core.workspace.storage import open_store

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
FASHION = Path("/usr/share/datasets/fashion-mnist")
NETWORK = "package:efficientnet-lite0"
BOTH = f"{NETWORK}+efficientnet-lite2"
CPU = torch.device("cpu")
SOURCE_APART = ("clothing", "game-units", "glyphs", "icons-oxygen", "textures")
"""Sets where images of one source (a sender, a typeface, one picture at several sizes) are nearly alike."""
UNCLEAR = ("Not sure", "Other", "Skip")  # of clothing
_NEIGHBOURS, _LEAST_OF_CLASS, _PASSES = 20, 6, 20


@dataclass(frozen=True)
class LabelledPool:
    """A sample of a set: N images, their labels and sources (N,), and how many images the set has."""

    name: str
    images: PoolImages
    labels: np.ndarray
    sources: np.ndarray
    count: int


def parquet(files: Sequence[Path]) -> pl.DataFrame:
    """Columns `image`, `label` and `source` of a set, whose images may be structs as Hugging Face writes them."""
    table = pl.concat([pl.read_parquet(file) for file in files])
    if isinstance(table.schema["image"], pl.Struct):
        table = table.with_columns(image=pl.col("image").struct.field("bytes"))
    label = pl.col("class" if "class" in table.columns else "label").cast(pl.String)  # clothing has numbers and names
    sources = [pl.col(name).cast(pl.String) for name in ("source", "sender") if name in table.columns]
    return table.select("image", label=label, source=sources[0] if sources else pl.lit(""))


def as_files(images: np.ndarray, labels: np.ndarray) -> pl.DataFrame:
    """Grey images (N, H, W) uint8 as PNG files."""
    files = [encode_png(torch.from_numpy(image[None].copy())).numpy().tobytes() for image in images]
    return pl.DataFrame({"image": files, "label": [str(label) for label in labels], "source": [""] * len(files)})


def digits() -> pl.DataFrame:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return as_files((images.reshape(-1, 8, 8) * 15.9).astype(np.uint8), labels)


def fashion() -> pl.DataFrame:
    """The test images of Fashion-MNIST."""
    packed = [gzip.decompress(next(FASHION.glob(f"t10k-{kind}-*")).read_bytes()) for kind in ("images", "labels")]
    images = np.frombuffer(packed[0], np.uint8, offset=16).reshape(-1, 28, 28)
    return as_files(images, np.frombuffer(packed[1], np.uint8, offset=8))


def readers(folder: Path | None) -> dict[str, Callable[[], pl.DataFrame]]:
    """What reads each set that is here; a file of `folder` replaces a set of its name."""
    found: dict[str, Callable[[], pl.DataFrame]] = {"digits": digits}
    found |= {"fashion-mnist": fashion} if FASHION.is_dir() else {}
    for name in ("cifar10", "clothing"):
        if files := sorted((SHARED / name).glob("*.parquet")):
            found[name] = partial(parquet, files)
    for file in sorted(folder.glob("*.parquet")) if folder else []:
        found[file.stem] = partial(parquet, [file])
    return found


def sample(name: str, table: pl.DataFrame, images: int) -> LabelledPool:
    """Random images of the set's clear classes that have six images or more."""
    table = table.filter(~pl.col("label").is_in(UNCLEAR), pl.len().over("label") >= _LEAST_OF_CLASS)
    count, table = len(table), table.sample(min(images, len(table)), shuffle=True, seed=0)
    files: list[bytes] = table["image"].to_list()

    def read(rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        return ((row, files[row]) for row in rows)

    sides = np.array([min(Image.open(io.BytesIO(data)).size) for data in files])
    pool = PoolImages([str(row) for row in range(len(files))], sides, read)
    return LabelledPool(name, pool, table["label"].to_numpy(), table["source"].to_numpy(), count)


def nearest_neighbours(vectors: torch.Tensor, pool: LabelledPool) -> float:
    """Per cent of images whose 20 nearest others (fewer where classes are small) are mostly of their class."""
    labels = np.unique(pool.labels, return_inverse=True)[1]
    similarity = vectors @ vectors.T
    similarity.fill_diagonal_(-2)
    if pool.name in SOURCE_APART:
        similarity[torch.from_numpy(pool.sources[:, None] == pool.sources[None])] = -2
    found = similarity.topk(int(min(_NEIGHBOURS, np.median(np.bincount(labels)) - 1)), dim=1)
    weights = (1 + 1e-3 * found.values) * (found.values > -2)  # of equally many, the nearer ones win
    votes = (functional.one_hot(torch.from_numpy(labels)[found.indices]) * weights[:, :, None]).sum(dim=1)
    return 100 * float((votes.argmax(dim=1).numpy() == labels).mean())


def measure_set(pool: LabelledPool, encoders: dict[str, Encoder], seconds_per_image: float) -> dict[str, object]:
    """A row of the table: 20-NN by each encoder, what `auto` would choose, and the shares of neighbours."""
    accuracy, shares = [], []
    for encoder in encoders.values():
        fitted, squares = fitting.fitted_to(encoder, pool.images, workers=2)
        accuracy.append(nearest_neighbours(fitted.encode(squares), pool))
        shares.append(strength_check.shared_neighbours(fitted, squares))
    seconds = EncoderParams().seconds
    seen = choosing.passes(pool.count)
    side, cost = choosing.side_for(pool.images.sides_px, count=seen, per_image=seconds_per_image, seconds=seconds)
    chosen = f"{'both, ' if choosing.fits_beside(cost, seconds) else ''}{side} px"
    by_name = dict(zip(encoders, accuracy, strict=True))
    rank = pl.DataFrame({"a": accuracy, "s": shares}).select(pl.corr("a", "s", method="spearman")).item()
    return {
        "set": pool.name,
        "images": len(pool.labels),
        "median side": f"{np.median(pool.images.sides_px):.0f} px",
        **{name: f"{value:.1f}" for name, value in by_name.items()},
        "auto": chosen,
        "its loss": f"{max(accuracy) - by_name[chosen]:.1f}" if chosen in by_name else "",
        "shared neighbours": " / ".join(f"{share:.2f}" for share in shares),
        "rank correlation": f"{rank:.2f}",
    }


def images_per_second(encoder: Encoder) -> float:
    """Of passes of full size from memory; the median, since other work slows some."""
    blank = torch.zeros(encoder.forward_rows, 3, encoder.side_px, encoder.side_px, dtype=torch.uint8)
    encoder.encode(blank)
    ends = [time.perf_counter()]
    for _ in range(_PASSES):
        encoder.encode(blank)
        ends.append(time.perf_counter())
    return encoder.forward_rows / float(np.median(np.diff(ends)))


def eager(encoder: Encoder) -> Encoder:
    """The same network run by torch alone, in bfloat16."""
    network, _ = packages.load_packaged(encoder.name.partition(":")[2])
    ready = fold_norms(network).requires_grad_(requires_grad=False).to(torch.bfloat16)
    ready = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks the keyword
    return replace(encoder, module=ready, number_format="bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 images a set at two sides, printed only")
    parser.add_argument("--sets", type=Path, help="folder of labelled sets as Parquet")
    parser.add_argument("--images", type=int, default=1000, help="images of each set, 4,096 at most")
    parser.add_argument("--eager", action="store_true", help="time torch in bfloat16 beside it")
    options = parser.parse_args()
    sides = packages.SIDES_PX[:2] if options.quick else packages.SIDES_PX
    with tempfile.TemporaryDirectory() as folder:
        found = [resolve.resolve(NETWORK, open_store(folder), device=CPU, side_px=side) for side in sides]
        both = resolve.resolve(BOTH, open_store(folder), device=CPU, side_px=PACKAGE_SIDE_PX)
    packaged = {f"{encoder.side_px} px": encoder for encoder in found} | {f"both, {both.side_px} px": both}
    encoders = {"pixels": pixels(CPU), **packaged}
    speeds = {name: images_per_second(encoder) for name, encoder in packaged.items()}
    rows, seconds_per_image = [], 1 / max(speeds.values())  # at the smallest side
    for name, reader in readers(options.sets).items():
        pool = sample(name, reader(), 200 if options.quick else options.images)
        rows.append(measure_set(pool, encoders, seconds_per_image))
        print(rows[-1], flush=True)
    means = {name: float(np.mean([float(str(row[name])) for row in rows])) for name in encoders}
    text = (
        f"20-NN, leave one out, in per cent, by training-free features and by {NETWORK}, both: {BOTH}; neighbours in "
        "this order."
    )
    report.write("features", "20-NN by the product's own encoders", text, rows, is_quick=options.quick)
    engine = "OpenVINO" if openvino_network.is_installed() else "torch"
    bought = "points for each further minute of 10,000 images"
    rows = [
        {"side": name, f"{engine}, {default_format(CPU)}": f"{speed:,.0f}", "20-NN": f"{means[name]:.1f}", bought: ""}
        for name, speed in speeds.items()
    ]
    for row, name in zip(rows[1:], [f"{side} px" for side in sides[:-1]] + [f"{PACKAGE_SIDE_PX} px"], strict=True):
        minutes = (1 / speeds[str(row["side"])] - 1 / speeds[name]) * 10_000 / 60
        row[bought] = f"{(means[str(row['side'])] - means[name]) / minutes:+.2f} over {name}"
    if options.eager:
        slower = [f"{images_per_second(eager(encoder)):,.0f}" for encoder in packaged.values()]
        rows = [row | {"torch, bfloat16": speed} for row, speed in zip(rows, slower, strict=True)]
    text = (
        f"Images a second from memory, passes of 32, {torch.get_num_threads()} threads, beside the mean 20-NN of the "
        "sets of the section before."
    )
    report.write("features", "Speed on a processor", text, rows, is_quick=options.quick)


if __name__ == "__main__":
    main()
