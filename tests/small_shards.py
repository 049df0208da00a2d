"""Small shards of each kind, made and read, for several test modules."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wtl_core.shards import reader
from wtl_core.shards.objects import Entry


def make_jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = make_jpeg(0)


LIMIT = 1 << 20


def make_tar(members: list[tuple[str, bytes]], tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read_file(path: Path, **options: int) -> list[Entry]:
    return list(reader.read_object(reader.describe_now(str(path)), max_file_bytes=options.get("max_file_bytes", LIMIT)))


def read_bytes(tmp_path: Path, name: str, data: bytes, **options: int) -> list[Entry]:
    path = tmp_path / name
    path.write_bytes(data)
    return read_file(path, **options)


def kept(entries: list[Entry]) -> list[str]:
    return [entry.key for entry in entries if entry.data is not None and entry.reason is None]


def refused(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(entry.key, str(entry.reason)) for entry in entries if entry.reason is not None]


# ---- zip ----
def make_zip(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


# ---- Parquet ----
def make_parquet(columns: dict[str, pa.Array], **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()
