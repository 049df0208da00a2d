"""The sample source that `make run` builds: as large and as messy as its docstring says, and the same every time."""

import hashlib
from pathlib import Path

from tests import sample_source


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_it_is_some_three_thousand_images_and_the_same_bytes_again(tmp_path: Path) -> None:
    images = sample_source.build(tmp_path / "one")
    sample_source.build(tmp_path / "two")
    assert 2_800 <= images <= 3_200
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert sum(path.stat().st_size for path in (tmp_path / "one").rglob("*") if path.is_file()) < 60_000_000
    kinds = {path.suffix for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert {".tar", ".parquet", ".jpg", ".png", ".txt"} == kinds
