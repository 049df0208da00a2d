"""`wtl ui` over generated workspaces: time to the first picture, memory, decisions, and the map's frame rate.

    python tests/bench/bench_app.py [--samples 1000000] [--quick]

The workspaces have pool, vectors, positions and ranking as a refresh leaves them, of generated pictures. The browser is
a headless Chromium that draws by the processor.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import report

from tests.browser.conftest import Browser, program
from tests.conftest import make_jpeg, write_pictures
from tests.plain_refresh import refresh
from wtl_core.embedding import staging, vectors
from wtl_core.pool.part_file import POOL_SCHEMA
from wtl_core.shards.discover import SNAPSHOT_SCHEMA
from wtl_core.workspace import commits, marker, selections, snapshots
from wtl_core.workspace.storage import Store

PART, DIMENSIONS, SIDE = 4000, 64, 96


def generate(root: Path, count: int) -> Store:
    """A workspace of `count` samples with one refresh, from a small one that a real refresh made."""
    refresh(root / "small", write_pictures(root / "photos", count=60))
    small, store = Store(str(root / "small")), Store(str(root / "w"))
    last = commits.latest(small)
    assert last is not None
    marker.create_workspace(store)
    rng = np.random.default_rng(0)
    ids = sorted(hashlib.sha256(number.to_bytes(8, "big")).hexdigest() for number in range(count))
    uris = [f"/archive/camera-{number % 40:02d}/2026-03/{number:08d}.jpg" for number in range(count)]
    pictures = [make_jpeg(seed, SIDE) for seed in range(256)]
    hashes = rng.integers(0, 2**63, count, dtype=np.uint64)
    hashes[: count // 10] = np.repeat(hashes[: count // 50], 5)[: count // 10]
    objects = []
    for number, start in enumerate(range(0, count, PART)):
        part, rows = hashlib.sha256(f"part {number}".encode()).hexdigest(), range(start, min(count, start + PART))
        write_part(store, part, rows, ids, uris, pictures, hashes[rows.start : rows.stop], rng)
        objects.append(("/archive", f"/archive/{number:05d}.tar", "tar", 1, 1, "", part))
    listing = snapshots.write_snapshot(store, pl.DataFrame(objects, schema=SNAPSHOT_SCHEMA, orient="row"))
    table = vectors.open_table(store, last.encoder, DIMENSIONS)
    assert table is not None
    for start in range(0, count, 100_000):
        values = rng.standard_normal((len(ids[start : start + 100_000]), DIMENSIONS)).astype(np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float16).ravel()), DIMENSIONS)
        added = pa.table({"sample_id": ids[start : start + 100_000], "vector": column})
        table.add(added.cast(staging.schema(DIMENSIONS)))
    vectors.build_index(store, last.encoder)
    centres = rng.normal(0, 6, (60, 2))[rng.integers(0, 60, count)] + rng.normal(0, 1, (count, 2))
    places = {"sample_id": ids, "x": centres[:, 0], "y": centres[:, 1], "is_fitted": [False] * count}
    frame = pl.DataFrame(places).cast({"x": pl.Float32, "y": pl.Float32})
    store.write_frame(f"encoders/{last.encoder}/positions/0001-{'0' * 12}.parquet", frame)
    write_selection(store, small, last.selection, ids, uris, rng)
    counts = last.counts.model_copy(
        update={"samples": count, "locations": count, "read": count, "ranked": count, "vectors": count,
                "picks": count // 10}
    )  # fmt: skip
    commits.write(store, last.model_copy(update={"listing": listing, "counts": counts, "sources": ["/archive"]}))
    return store


def write_part(
    store: Store, part: str, rows: range, ids: list[str], uris: list[str], pictures: list[bytes],
    hashes: np.ndarray, rng: np.random.Generator,
) -> None:  # fmt: skip
    """One file of the pool."""
    size = len(rows)
    values: dict[str, Any] = {
        "sample_id": [ids[row] for row in rows],
        "uri": [uris[row] for row in rows],
        "source": ["/archive"] * size,
        "object_uri": [f"/archive/{rows.start // PART:05d}.tar"] * size,
        "key": [uris[row][1:] for row in rows],
        "ordinal": list(range(size)),
        "part": [part] * size,
        "row": list(range(size)),
        "offset": [0] * size,
        "byte_length": rng.integers(1e5, 4e6, size),
        "format": ["jpeg"] * size,
        "width": [4000] * size,
        "height": [3000] * size,
        "is_first_of_several": [False] * size,
        "taken_at": [f"2026-03-{1 + row % 28:02d}T08:00:00" for row in rows],
        "pixel_digest": [ids[row] for row in rows],
        "phash": hashes,
        "sharpness": rng.gamma(2, 50, size).astype(np.float32),
        "brightness": rng.normal(120, 30, size).astype(np.float32),
        "contrast": rng.normal(50, 10, size).astype(np.float32),
        "entropy": rng.normal(6, 1, size).astype(np.float32),
        "metadata": [f'{{"camera": "camera-{row % 40:02d}"}}' for row in rows],
        "thumbnail": [pictures[row % len(pictures)] for row in rows],
        "image": [pictures[row % len(pictures)] for row in rows],
    }
    path = Path(store.path(f"pool/{part}.parquet"))
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [name for name in POOL_SCHEMA.names if name not in ("thumbnail", "image")]
    pq.write_table(pa.table(values, POOL_SCHEMA), path, row_group_size=256, compression="zstd", use_dictionary=plain)


def write_selection(
    store: Store, small: Store, key: str, ids: list[str], uris: list[str], rng: np.random.Generator
) -> None:
    """A ranking in random order under the ladder and the receipt of the small workspace, scaled to this count."""
    count, order = len(ids), rng.permutation(len(ids))
    earlier = np.array([-1, *(rng.random(count - 1) * np.arange(1, count)).astype(int)])
    names = [ids[row] for row in order]
    ranking = pl.DataFrame(
        {
            "rank": np.arange(count),
            "sample_id": names,
            "uri": [uris[row] for row in order],
            "gain": np.linspace(1, 0, count),
            "coverage": np.linspace(0, 1, count),
            "radius": rng.random(count),
            "duplicate_of": pl.Series([None] * count, dtype=pl.String),
            "stands_for": (count / np.arange(1, count + 1)).astype(np.int64) + 1,
            "nearest_earlier": [None if place < 0 else names[place] for place in earlier],
            "replaced_by": pl.Series([None] * count, dtype=pl.String),
            "why": pl.Series([None] * count, dtype=pl.String),
        }
    )
    store.write_frame(f"{key}/ranking.parquet", ranking)
    ladder = selections.read_ladder(small, key)
    percents = (pl.col("percent") * count / 100).cast(pl.Int64)
    store.write_frame(f"{key}/ladder.parquet", ladder.with_columns(count=percents))
    receipt = selections.read_receipt(small, key) | {"samples": count, "picks": count // 10}
    store.write_bytes(f"{key}/receipt.json", json.dumps(receipt).encode())


def seconds_until(browser: Browser, condition: str, *, limit: float = 300) -> float:
    """Seconds until a condition of the page holds, to a twentieth."""
    start = time.perf_counter()
    while not browser.evaluate(condition):
        if time.perf_counter() - start > limit:
            raise TimeoutError(condition)
        time.sleep(0.02)
    return time.perf_counter() - start


def measure(store: Store, count: int) -> dict[str, object]:
    """The figures of one workspace."""
    command = [sys.executable, "-m", "flows.cli.main", "ui", "-w", store.root, "--json"]
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        browser = Browser(program(), Path(folder))
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["address"]
            row: dict[str, object] = {"samples": f"{count:,}", "address, s": round(time.perf_counter() - start, 1)}
            token = address.partition("token=")[2]

            def ask(path: str, body: object = None) -> float:
                begin = time.perf_counter()
                data = None if body is None else json.dumps(body).encode()
                headers = {"x-wtl-token": token, "content-type": "application/json"}
                request = urllib.request.Request(address.partition("?")[0] + path, data, headers)
                with urllib.request.urlopen(request, timeout=600) as answer:
                    answer.read()
                return time.perf_counter() - begin

            ask("api/state")
            row["loaded, s"] = round(time.perf_counter() - start, 1)
            browser.call("Page.enable")
            browser.call("Page.navigate", url=address)
            shown = "[...document.images].some(image => image.complete && image.naturalWidth && image.offsetHeight)"
            row["first picture, s"] = round(seconds_until(browser, shown), 2)
            first = urllib.request.Request(
                f"{address.partition('?')[0]}api/picks?count=3", headers={"x-wtl-token": token}
            )
            with urllib.request.urlopen(first) as answer:
                ids = [item["id"] for item in json.load(answer)["items"]]
            row["image and neighbours, s"] = round(
                ask(f"api/images/{ids[2]}") + ask(f"api/images/{ids[2]}/neighbours"), 2
            )
            row["decision, s"] = round(ask("api/decisions", {"ids": ids[:1], "decision": "unusable"}), 2)
            row["condition, s"] = round(ask("api/mask?where=sharpness%20%3C%2020"), 2)
            browser.evaluate("location.hash = 'map'")
            row["map, s"] = round(seconds_until(browser, "Boolean(document.getElementById('map')?.handle)"), 2)
            row["frames a second"] = round(frame_rate(browser), 1)
            row["server, MB"] = round(psutil.Process(server.pid).memory_info().rss / 1e6)
            browser.call("Performance.enable")
            metrics = {m["name"]: m["value"] for m in browser.call("Performance.getMetrics")["metrics"]}
            pages = [
                p
                for p in psutil.Process(browser.process.pid).children(recursive=True)
                if "--type=renderer" in p.cmdline()
            ]
            row["page's heap, MB"] = round(metrics["JSHeapUsedSize"] / 1e6)
            row["page's process, MB"] = round(max(p.memory_info().rss for p in pages) / 1e6)
        finally:
            browser.close()
            server.terminate()
    return row


def frame_rate(browser: Browser) -> float:
    """Frames a second while the slider is moved at each frame, for three seconds."""
    return float(
        browser.evaluate(
            "(async () => { const slider = document.getElementById('cut'); let frames = 0, place = 0;"
            "const start = performance.now();"
            "while (performance.now() - start < 3000) { await new Promise(requestAnimationFrame);"
            "slider.value = place = (place + 7) % 1000; slider.dispatchEvent(new Event('input')); frames++; }"
            "return frames / (performance.now() - start) * 1000; })()"
        )
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--samples", type=int, default=1_000_000)
    options.add_argument("--quick", action="store_true", help="20,000 samples, and no report")
    given = options.parse_args()
    rows = []
    for count in (20_000,) if given.quick else (100_000, given.samples):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            rows.append(measure(generate(Path(folder), count), count))
    text = """
Generated workspaces, files in the page cache. Seconds from the start of `wtl ui` to the printed address and to the
first answer; from opening the page to the first picture in it, once the server answers; for one request each of an
image with its neighbours, a decision and a condition; from the room of picks to the map. Frames a second of the map
while its slider moves at each frame, drawn by the processor. Memory at the end: the server's process, the page's
JavaScript heap and process; the columns of the map lie outside that heap. Other work ran on both cores meanwhile.
"""
    report.write("app", "The app over generated workspaces", text, rows, is_quick=given.quick)


if __name__ == "__main__":
    main()
