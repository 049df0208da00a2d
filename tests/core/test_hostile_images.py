"""The test images of Pillow (a thousand odd, broken and hostile files), libtiff and libpng through ingest.

Fetched from the package index and from Debian's source packages, never committed; left out where they cannot be had.

    python -m pytest -m slow tests/core/test_hostile_images.py

`WTL_PILLOW_SOURCE` may name an unpacked or packed source distribution; else pip fetches the installed version's.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path

import pytest
from PIL import Image

from wtl_core.machine import Machine
from wtl_core.pool import ingest, live_pool
from wtl_core.pool.part_plan import plan_parts, snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import discover
from wtl_core.workspace.storage import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".avif")
SETTLED_BY_US = {
    "chunk_no_fctl.png": "an animation whose later frames are broken: its first one is whole",
    "png_decompression_dos.png": "a bomb in a text chunk, which is never unpacked here",
    "empty_ancillary_chunks.png": "only chunks beside the pixels are empty; libpng warns and reads on",
    "unknown_compression_method.png": "only the profile's compression is unknown",
}
REFUSED_BY_US = {"huge_IDAT.png": "its chunk announces a gigabyte that is not there; Pillow takes what it finds"}


@pytest.fixture(scope="module", params=["pillow", "tiff", "libpng1.6"])
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    if request.param == "pillow":
        given = os.environ.get("WTL_PILLOW_SOURCE", "")
        if Path(given, "Tests", "images").is_dir():
            return Path(given, "Tests", "images")
        archive = Path(given) if given else from_package_index(folder, "pillow")
    else:
        archive = from_debian(folder, request.param)
    with tarfile.open(archive) as members:
        wanted = [m for m in members if m.isfile() and ("/Tests/images/" in m.name or m.name.endswith(IMAGES))]
        members.extractall(folder / "images", wanted, filter="data")
    return folder / "images"


def from_package_index(folder: Path, name: str) -> Path:
    """The source distribution of the installed version."""
    wanted = f"{name}=={importlib.metadata.version(name)}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name, wanted]
    if subprocess.run([*command, "-d", str(folder)], capture_output=True).returncode:
        pytest.skip(f"{name}'s source distribution cannot be fetched")
    return next(folder.glob(f"{name}-*.tar.gz"))


def from_debian(folder: Path, name: str) -> Path:
    """The upstream archive of a source package, by the machine's own Debian mirror; its apt is left as it is."""
    listed = Path("/etc/apt/sources.list.d/debian.sources")
    if not listed.exists() or not shutil.which("apt-get"):
        pytest.skip("no Debian mirror is set up here")
    (folder / "parts").mkdir()
    (folder / "lists" / "partial").mkdir(parents=True)
    text = listed.read_text().replace("Types: deb\n", "Types: deb-src\n")
    (folder / "parts" / "source.sources").write_text(text)
    places = {"SourceList": "/dev/null", "SourceParts": folder / "parts"}
    options = [f"-oDir::State::Lists={folder / 'lists'}", *(f"-oDir::Etc::{key}={at}" for key, at in places.items())]
    for command in (["update"], ["source", "--download-only", name]):
        subprocess.run(["apt-get", "-qq", *options, *command], cwd=folder, capture_output=True, timeout=300)
    found = [path for path in folder.glob("*.orig.tar.*") if path.suffix != ".asc"]
    if not found:
        pytest.skip(f"Debian's source package {name} cannot be fetched")
    return found[0]


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
    ingest.run_many(plans, store, params, Machine(workers=1))
    assert time.perf_counter() - start < 600
    found = live_pool.load(store, snapshot_rows(plans))
    files = {str(path): path.read_bytes() for path in images.rglob("*") if path.is_file()}
    assert len(files) <= found.counts.read <= len(files) + 10  # an archive counts by its members
    assert found.counts.locations == found.counts.samples + found.counts.duplicates + found.counts.quarantined
    assert found.counts.samples > 40
    kept = set(found.samples["sample_id"])
    wrongly_kept = [
        path.rsplit("/", 1)[-1]
        for path, data in files.items()
        if hashlib.sha256(data).hexdigest() in kept and not pillow_reads(data)
    ]
    assert set(wrongly_kept) <= set(SETTLED_BY_US)
    for row in found.quarantine.iter_rows(named=True):
        if row["reason"] in ("truncated", "corrupt"):
            is_settled = row["object_uri"].rsplit("/", 1)[-1] in REFUSED_BY_US
            assert is_settled or not pillow_reads(files[row["object_uri"]]), row
