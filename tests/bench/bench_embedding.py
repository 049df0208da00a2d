"""How fast images become vectors, against the same network fed from memory, and what LanceDB costs beside it.

    python tests/bench/bench_embedding.py [--quick] [--device cuda] [--only ratio equal store]

Writes tests/bench/reports/embedding.md.
"""

import argparse
import hashlib
import io
import tempfile
import time
from collections.abc import Callable

import numpy as np
import report
import torch
from PIL import Image

from wtl_core.embedding.embedder import embed
from wtl_core.encoders.compiled import compiled
from wtl_core.encoders.encoder import Encoder, NumberFormat, build
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing

Row = tuple[str, float, str]

_PAIRS = 21


def photographs(count: int, side: int, quality: int = 85) -> list[bytes]:
    """JPEGs with photograph-like statistics (some 20 KB at 256 px): smooth noise at several scales."""
    generator = np.random.default_rng(0)
    files = []
    for _ in range(min(count, 512)):
        canvas = np.zeros((side, side, 3), np.float32)
        scale = 4
        while scale <= side:
            noise = generator.integers(0, 255, (scale, scale, 3), dtype=np.uint8)
            canvas += np.asarray(Image.fromarray(noise).resize((side, side), Image.BILINEAR), np.float32) / scale**0.6
            scale *= 2
        canvas = 255 * (canvas - canvas.min()) / (canvas.max() - canvas.min())
        buffer = io.BytesIO()
        Image.fromarray(canvas.astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        files.append(buffer.getvalue())
    return [files[row % len(files)] for row in range(count)]


def resnet18_64(device: torch.device, number_format: NumberFormat | None = None) -> Encoder:
    """torchvision's ResNet-18 at 64 px, random weights; in the device's own number format if none is named."""
    from torchvision import models

    torch.manual_seed(0)
    network = models.resnet18(weights=None)
    network.fc = torch.nn.Identity()
    return build(
        network,
        name="resnet18",
        architecture={},
        preprocessing=Preprocessing(64),
        device=device,
        number_format=number_format,
    )


def resnet50_224(device: torch.device) -> Encoder:
    """torchvision's ResNet-50 at 224 px of 256 px, random weights."""
    from torchvision import models

    torch.manual_seed(0)
    network = models.resnet50(weights=None)
    network.fc = torch.nn.Identity()
    return build(
        network, name="resnet50", architecture={}, preprocessing=Preprocessing(224, "crop", 256), device=device
    )


def small(device: torch.device) -> Encoder:
    """The network that a processor trains: ResNet-9 of width 16 at 32 px."""
    torch.manual_seed(0)
    shape = NetworkShape("resnet9", 16)
    return build(build_network(shape), name="ssl", architecture={}, preprocessing=Preprocessing(32), device=device)


def from_memory(encoder: Encoder, count: int) -> float:
    """Images a second of the network alone, its input on the device already."""
    rows = encoder.forward_rows
    batch = torch.randint(0, 255, (rows, 3, encoder.side_px, encoder.side_px), dtype=torch.uint8, device=encoder.device)
    for _ in range(2):
        encoder.features(batch)
    synchronize(encoder.device)
    started = time.perf_counter()
    for _ in range(max(2, count // rows)):
        encoder.features(batch)
    synchronize(encoder.device)
    return max(2, count // rows) * rows / (time.perf_counter() - started)


def engine(encoder: Encoder, files: list[bytes], workers: int) -> float:
    """Images a second of the whole engine, bytes to float16 vectors on the processor."""
    items = [(str(row), data) for row, data in enumerate(files)]
    warm = items[: 2 * encoder.forward_rows]
    list(embed(encoder, warm, workers=workers))
    synchronize(encoder.device)
    started = time.perf_counter()
    done = sum(len(piece.ids) for piece in embed(encoder, items, workers=workers))
    taken = time.perf_counter() - started
    assert done == len(files)
    return done / taken


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ratio(name: str, encoder: Encoder, files: list[bytes], workers: int, count: int) -> list[Row]:
    """Engine and memory in turns, so that a machine's moods hit both."""
    pairs = [(from_memory(encoder, count), engine(encoder, files, workers)) for _ in range(_PAIRS)]
    memory, whole = np.median([pair[0] for pair in pairs]), np.median([pair[1] for pair in pairs])
    low, share, high = np.quantile([pair[1] / pair[0] for pair in pairs], [0.25, 0.5, 0.75])
    print(f"{name:55s} memory {memory:9.0f}  engine {whole:9.0f}  ratio {share:.3f}", flush=True)
    return [
        (f"{name}: from memory", memory, "images/s"),
        (f"{name}: engine", whole, "images/s"),
        (f"{name}: ratio", share, f"half of the pairs {low:.2f} to {high:.2f}"),
    ]


def resnet18_float32(device: torch.device, count: int) -> list[Row]:
    """What the same network does without bfloat16, which not every processor has."""
    encoder = resnet18_64(device, "float32")
    speed = float(np.median([from_memory(encoder, count) for _ in range(3)]))
    print(f"ResNet-18 at 64 px, float32: memory {speed:.0f}", flush=True)
    return [("ResNet-18 at 64 px, float32: from memory", speed, "images/s")]


def on_cpu(quick: bool) -> list[Row]:
    device = torch.device("cpu")
    count = 512 if quick else 4096
    rows = ratio("ResNet-18 at 64 px", resnet18_64(device), photographs(count, 64), 2, count)
    rows += resnet18_float32(device, count)
    rows += ratio("own ResNet-9 of width 16 at 32 px", small(device), photographs(4 * count, 32), 2, 4 * count)
    return rows


def on_cuda(quick: bool) -> list[Row]:
    device, cores = torch.device("cuda"), 16
    rows = []
    count = 4096 if quick else 40_960
    files = photographs(count, 256)
    print(f"JPEG of 256 px: {np.mean([len(data) for data in files[:512]]):.0f} bytes", flush=True)
    plain = resnet50_224(device)
    rows += ratio("ResNet-50 at 224 px, 256 px JPEGs, eager", plain, files, cores, count)
    started = time.perf_counter()
    fast = compiled(plain)
    seconds = time.perf_counter() - started
    print(f"compilation {seconds:.1f} s", flush=True)
    rows.append(("ResNet-50: compilation", seconds, "s"))
    rows += ratio("ResNet-50 at 224 px, 256 px JPEGs, compiled", fast, files, cores, count)
    rows.append(("nvJPEG alone", nvjpeg_alone(plain, files[:count]), "images/s"))
    print(rows[-1], flush=True)
    files = photographs(2 * count, 64)
    rows += ratio("ResNet-18 at 64 px, 64 px JPEGs, eager", resnet18_64(device), files, cores, 2 * count)
    rows += resnet18_float32(device, 2 * count)
    return rows


def nvjpeg_alone(encoder: Encoder, files: list[bytes]) -> float:
    from wtl_core.embedding.nvjpeg import NvjpegDecoder

    decoder = NvjpegDecoder(encoder)
    chunks = [[(str(row), data) for row, data in enumerate(files[at : at + 512])] for at in range(0, len(files), 512)]
    decoder(chunks[0])
    started = time.perf_counter()
    for chunk in chunks:
        decoder(chunk)
    return len(files) / (time.perf_counter() - started)


def store(quick: bool) -> list[Row]:
    """100k x 512 in parts of 5,000: staged, committed by anti-join and append, read back; Arrow files beside it."""
    import pyarrow as pa

    from wtl_core.embedding import staging, vectors
    from wtl_core.workspace.storage import open_store

    count, dimensions, part = (10_000 if quick else 100_000), 512, 5_000
    values = np.random.default_rng(0).standard_normal((count, dimensions), dtype=np.float32)
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(count)]
    order = sorted(ids)
    with tempfile.TemporaryDirectory() as folder:
        plain, lance = open_store(f"{folder}/plain"), open_store(f"{folder}/lance")
        fingerprint = "ab" * 32
        starts = range(0, count, part)

        def write_plain() -> None:
            for at in starts:
                table = staging.as_table(ids[at : at + part], values[at : at + part])
                with plain.writer(f"{at}.arrow") as handle, pa.ipc.new_file(handle, table.schema) as writer:
                    writer.write_table(table)

        def read_plain() -> np.ndarray:
            rows = {key: row for row, key in enumerate(order)}
            out = np.empty_like(values)
            for at in starts:
                table = pa.ipc.open_file(pa.BufferReader(plain.read_bytes(f"{at}.arrow"))).read_all()
                found = [rows[key] for key in table["sample_id"].to_pylist()]
                out[found] = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dimensions)
            return out

        def stage() -> None:
            for at in starts:
                staging.stage(lance, fingerprint, f"p{at}", ids[at : at + part], values[at : at + part])

        def commit() -> None:
            for at in starts:
                vectors.commit_staged(lance, fingerprint, [f"p{at}"], dimensions)

        plain_seconds = timed(write_plain), timed(read_plain)
        lance_seconds = timed(stage), timed(commit), timed(lambda: vectors.load(lance, fingerprint, order))
        assert (vectors.load(lance, fingerprint, order) == read_plain()).all()
    rows: list[Row] = [
        ("Arrow files: write", plain_seconds[0], "s"),
        ("Arrow files: read and sort", plain_seconds[1], "s"),
        ("LanceDB: stage 20 parts", lance_seconds[0], "s"),
        ("LanceDB: 20 commits (anti-join, append)", lance_seconds[1], "s"),
        ("LanceDB: load sorted", lance_seconds[2], "s"),
        ("LanceDB over Arrow, all", sum(lance_seconds) / sum(plain_seconds), "x"),
        ("share of embedding 100k at 711 images/s", 100 * sum(lance_seconds[:2]) / (count / 711), "%"),
    ]
    for row in rows:
        print(f"{row[0]:55s} {row[1]:9.3f} {row[2]}", flush=True)
    return rows


def equal(device: torch.device, count: int) -> list[Row]:
    """How far vectors of the same images on the device are from those on the processor."""
    files, rows = photographs(count, 96), []
    for number_format in ("float32", "bfloat16"):
        here, there = (vectors(resnet18_64(where, number_format), files) for where in (torch.device("cpu"), device))
        cosine = (here * there).sum(1)
        places = np.argsort(-(here @ here.T), axis=1)[:, 1], np.argsort(-(there @ there.T), axis=1)[:, 1]
        rows.append(
            (f"{number_format}: least cosine of {count} images with themselves", float(cosine.min()), "1 is equal")
        )
        rows.append((f"{number_format}: share with the same nearest image", float((places[0] == places[1]).mean()), ""))
    return rows


def vectors(encoder: Encoder, files: list[bytes]) -> np.ndarray:
    """(N, D) float64, in the order of the files."""
    found = {}
    for piece in embed(encoder, [(str(row), data) for row, data in enumerate(files)]):
        found |= dict(zip(piece.ids, piece.vectors.astype(np.float64), strict=True))
    return np.stack([found[str(row)] for row in range(len(files))])


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def table(rows: list[Row]) -> list[dict[str, object]]:
    return [
        {"what": name, "value": f"{value:,.3g}" if value < 1000 else f"{value:,.0f}", "unit": unit}
        for name, value, unit in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default=report.default_device(), choices=["cpu", "cuda"])
    parser.add_argument("--only", nargs="*", choices=["ratio", "equal", "store"], default=["ratio", "store"])
    options = parser.parse_args()
    if "ratio" in options.only:
        rows = on_cuda(options.quick) if options.device == "cuda" else on_cpu(options.quick)
        where = torch.cuda.get_device_name() if options.device == "cuda" else "a processor"
        text = (
            "The engine (JPEG bytes to float16 vectors) in turns with the same network fed from memory; medians of "
            f"{_PAIRS}."
        )
        report.write("embedding", f"Engine against memory, on {where}", text, table(rows), is_quick=options.quick)
    if "equal" in options.only:
        text = "ResNet-18 at 64 px, random weights: vectors on the device beside those on the processor."
        rows = equal(torch.device(options.device), 64 if options.quick else 512)
        report.write("embedding", "Vectors on a device", text, table(rows), is_quick=options.quick)
    if "store" in options.only:
        text = "Vectors of 512 numbers, float16, in parts of 5,000; loaded in the order of their ids."
        report.write(
            "embedding", "LanceDB against Arrow files", text, table(store(options.quick)), is_quick=options.quick
        )


if __name__ == "__main__":
    main()
