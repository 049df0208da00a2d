"""Pillow's own test images (a thousand odd, broken and hostile files) through ingest; fetched, never committed.

    python -m pytest -m slow tests/core/test_hostile_images.py

`WTL_PILLOW_SOURCE` may name an unpacked or packed source distribution; else pip fetches the installed version's.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path

import pytest
from PIL import Image

from wtl_core import ingest, pool
from wtl_core.recipe import IngestParams
from wtl_core.shards import discover
from wtl_core.shards.plan import plan_parts, snapshot_rows
from wtl_core.storage import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SETTLED_BY_US = {
    "chunk_no_fctl.png": "an animation whose later frames are broken: its first one is whole",
    "png_decompression_dos.png": "a bomb in a text chunk, which is never unpacked here",
    "unknown_compression_method.png": "only the profile's compression is unknown",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pillow")
    given = os.environ.get("WTL_PILLOW_SOURCE", "")
    if Path(given, "Tests", "images").is_dir():
        return Path(given, "Tests", "images")
    if not given:
        wanted = f"pillow=={importlib.metadata.version('pillow')}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "pillow", wanted]
        done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip("Pillow's source distribution cannot be fetched")
        given = str(next(folder.glob("pillow-*.tar.gz")))
    with tarfile.open(given) as archive:
        archive.extractall(folder, [m for m in archive if "/Tests/images/" in m.name], filter="data")
    return next(folder.glob("*/Tests/images"))


def pillow_reads(data: bytes) -> bool:
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > 100_000_000:
                return False
            image.load()
            image.convert("RGB")
            return True
    return False


def test_every_file_is_kept_or_refused_with_a_true_reason(images: Path, tmp_path: Path) -> None:
    params, store = IngestParams(min_side_px=1), open_store(str(tmp_path))
    plans = plan_parts(discover.list_source(str(images)), params)
    start = time.perf_counter()
    ingest.run_many(plans, store, params, workers=1)
    assert time.perf_counter() - start < 600
    found = pool.load(store, snapshot_rows(plans))
    files = {str(path): path.read_bytes() for path in images.rglob("*") if path.is_file()}
    assert len(files) <= found.counts.read <= len(files) + 10  # an archive counts by its members
    assert found.counts.locations == found.counts.samples + found.counts.duplicates + found.counts.quarantined
    assert found.counts.samples > 500
    kept = set(found.samples["sample_id"])
    wrongly_kept = [
        path.rsplit("/", 1)[-1]
        for path, data in files.items()
        if hashlib.sha256(data).hexdigest() in kept and not pillow_reads(data)
    ]
    assert set(wrongly_kept) <= set(SETTLED_BY_US)
    for row in found.quarantine.iter_rows(named=True):
        if row["reason"] in ("truncated", "corrupt"):
            assert not pillow_reads(files[row["object_uri"]]), row
