"""What `wtl export` writes, read by tools that are no dependency of this project: FiftyOne, Ultralytics, pycocotools.

    python tests/bench/check_readers.py --python PYTHON [PYTHON ...]

Each PYTHON is one that has some of these tools installed; FiftyOne needs a MongoDB, in FIFTYONE_DATABASE_URI where it
brings none. A batch of images with hostile names is written in each format, and each tool says what it read. Writes
tests/bench/reports/labels.md. The tests of the formats load what is written by pycocotools and webdataset, too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import report

READERS = {
    "fiftyone": """
import fiftyone as fo
import fiftyone.types as types
data = fo.Dataset.from_dir(sys.argv[1] + "/fiftyone", dataset_type=types.FiftyOneDataset, progress=False)
data.compute_metadata(overwrite=True, progress=False)
assert [sample.why for sample in data] == told["why"] and data.default_classes == told["classes"]
version, count = fo.__version__, data.count("metadata.width")
fo.delete_dataset(data.name)
""",
    "ultralytics": """
import ultralytics
from ultralytics.data import YOLODataset
from ultralytics.data.utils import check_det_dataset
data = check_det_dataset(sys.argv[1] + "/yolo/data.yaml")
assert list(data["names"].values()) == told["classes"]
images = YOLODataset(img_path=data["train"], data=data, task="detect", augment=False, imgsz=64)
version = ultralytics.__version__
count = sum(images.load_image(row)[0].shape[:2] == (64, 64) for row in range(len(images)))
""",
    "pycocotools": """
from importlib.metadata import version as version_of
from pycocotools.coco import COCO
data = COCO(sys.argv[1] + "/coco.json")
assert [entry["name"] for entry in data.loadCats(data.getCatIds())] == told["classes"]
version = version_of("pycocotools")
count = sum(os.path.exists(entry["file_name"]) for entry in data.loadImgs(data.getImgIds()))
""",
    "webdataset": """
from importlib.metadata import version as version_of
import webdataset
data = webdataset.WebDataset(sys.argv[1] + "/webdataset.tar", shardshuffle=False)
data = data.decode("rgb8").to_tuple("jpeg", "json")
read = [entry["why"] for image, entry in data if image.shape == (40, 40, 3)]
assert read == told["why"]
version, count = version_of("webdataset"), len(read)
""",
}
FORMATS = {"fiftyone": "fiftyone", "ultralytics": "yolo", "pycocotools": "coco", "webdataset": "webdataset"}


def write(folder: Path) -> dict[str, list[str]]:
    """A batch in each format; the reasons of its images in their order, and the known classes."""
    from tests.conftest import make_jpeg
    from tests.core.test_export_formats import HOSTILE
    from tests.plain_refresh import refresh
    from tests.small_batches import write_batch
    from wtl_core.labelling import batches
    from wtl_core.labelling.batches import Asked
    from wtl_core.workspace import ledger
    from wtl_core.workspace.storage import Store

    for number, name in enumerate(HOSTILE):
        file = folder / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make_jpeg(number))
    refresh(folder / "w", folder / "photos")
    store = Store(str(folder / "w"))
    ledger.append(store, "labelled", ["f" * 64], classes=[["cat", "dog <b>"]])
    batch = batches.hand_out(store, Asked(new=len(HOSTILE), control="3"))
    for output in ("fiftyone", "yolo", "coco.json", "webdataset.tar"):
        write_batch(store, batch, folder / output, Path(output).stem)
    return {"why": batch.table["why"].to_list(), "classes": ["cat", "dog <b>"]}


def read(python: str, name: str, folder: Path, told: dict[str, list[str]]) -> dict[str, object] | None:
    """What a tool read; None if this Python lacks it."""
    lacks = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode
    if lacks:
        return None
    code = f"import json, os, sys\ntold = json.loads(sys.argv[2])\n{READERS[name]}\nprint(json.dumps([version, count]))"
    done = subprocess.run(
        [python, "-c", code, str(folder), json.dumps(told)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FIFTYONE_DO_NOT_TRACK": "1", "FIFTYONE_DATABASE_VALIDATION": "false"},
    )
    if done.returncode:
        raise SystemExit(f"{name} could not read it:\n{done.stderr[-2000:]}")
    version, count = json.loads(done.stdout.splitlines()[-1])
    return {"tool": f"{name} {version}", "format": FORMATS[name], "images": len(told["why"]), "loaded": count}


def main() -> None:
    """Write, read, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = write(folder)
        found = [read(python, tool, folder, told) for python in given.python for tool in READERS]
    sys.argv[1:] = ["--python", "..."]
    text = "A batch of images with hostile names, as the tools themselves load it."
    report.write("labels", "Readers", text, [row for row in found if row is not None], is_quick=False)


if __name__ == "__main__":
    main()
