"""What each tool writes, whole and damaged: all of it is entered, or nothing, and one line says why."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import write_pictures
from tests.plain_refresh import refresh
from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import labels
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

CLASSES = {"1.jpg": "cat", "2.jpg": "dog", "3.jpg": "cat"}
Labels = Mapping[str, str]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of the images 0.jpg to 5.jpg."""
    folder = tmp_path_factory.mktemp("refused")
    refresh(folder / "w", write_pictures(folder / "photos", count=6))
    return folder / "w"


@pytest.fixture
def store(workspace: Path) -> Store:
    """The same workspace for all, since nothing may be entered; with an empty ledger again if something was."""
    store = Store(str(workspace))
    store.delete_folder("ledger")
    return store


def zipped(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def csv(given: Labels) -> bytes:
    return "\n".join(["path,label", *map(",".join, given.items())]).encode()


def json_lines(given: Labels) -> bytes:
    return "\n".join(json.dumps({"path": name, "label": label}) for name, label in given.items()).encode()


def parquet(given: Labels) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"path": list(given), "label": list(given.values())}).write_parquet(buffer)
    return buffer.getvalue()


def label_studio(given: Labels) -> bytes:
    def result(label: str) -> list[object]:
        return [{"from_name": "c", "type": "choices", "value": {"choices": [label]}}]

    return json.dumps(
        [{"id": 1, "data": {"image": n}, "annotations": [{"result": result(label)}]} for n, label in given.items()]
    ).encode()


def coco(given: Labels, names: tuple[str, ...] = ("cat", "dog", "x")) -> bytes:
    return json.dumps(
        {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(given)],
            "annotations": [
                {"image_id": n, "category_id": "cdx".index(label[0])} for n, label in enumerate(given.values())
            ],
            "categories": [{"id": "cdx".index(name[0]), "name": name} for name in names],
        }
    ).encode()


def cvat(given: Labels, *, names: tuple[str, ...] = ("cat", "dog", "x"), version: str = "1.1") -> bytes:
    known = "".join(f"<label><name>{name}</name></label>" for name in names)
    images = "".join(f'<image name="{name}"><tag label="{label}"/></image>' for name, label in given.items())
    meta = f"<meta><task><labels>{known}</labels></task></meta>"
    return f"<annotations><version>{version}</version>{meta}{images}</annotations>".encode()


def cvat_backup(given: Labels, *, names: tuple[str, ...] = ("cat", "dog", "x"), version: str = "1.0") -> bytes:
    task = {"version": version, "labels": [{"name": name} for name in names], "data": {"start_frame": 0}}
    first, second, *rest = [{"frame": number, "label": label} for number, label in enumerate(given.values())]
    jobs = [
        {"version": 0, "tags": [first], "shapes": [], "tracks": []},
        {"version": 0, "tags": [], "shapes": [second], "tracks": [{**one, "shapes": [one]} for one in rest]},
    ]
    lines = [{"version": "1.1"}, {"type": "images"}]
    lines += [{"name": name.removesuffix(".jpg"), "extension": ".jpg"} for name in given]
    return zipped(
        {
            "task.json": json.dumps(task),
            "annotations.json": json.dumps(jobs),
            "data/manifest.jsonl": "\n".join(map(json.dumps, lines)),
        }
    )


def datumaro(given: Labels, *, names: tuple[str, ...] = ("cat", "dog", "x"), version: str = "1.0") -> bytes:
    items = [
        {"id": name.removesuffix(".jpg"), "annotations": [{"label_id": "cdx".index(label[0])}], "image": {"path": name}}
        for name, label in given.items()
    ]
    categories = {"label": {"labels": [{"name": name} for name in names]}}
    return json.dumps({"dm_format_version": version, "categories": categories, "items": items}).encode()


def voc(given: Labels) -> bytes:
    return zipped(
        {
            f"{name}.xml": f"<annotation><filename>{name}</filename><object><name>{label}</name></object></annotation>"
            for name, label in given.items()
        }
    )


def yolo(given: Labels, names: tuple[str, ...] = ("cat", "dog", "x")) -> bytes:
    boxes = {
        f"labels/{name.removesuffix('.jpg')}.txt": f"{'cdx'.index(label[0])} 0.5 0.5 0.1 0.1\n"
        for name, label in given.items()
    }
    return zipped({"data.yaml": f"names: {json.dumps(list(names))}", **boxes})


EXPORTS: dict[str, Callable[[Labels], bytes]] = {
    "t.csv": csv,
    "t.jsonl": json_lines,
    "t.parquet": parquet,
    "label-studio.json": label_studio,
    "coco.json": coco,
    "annotations.xml": cvat,
    "backup.zip": cvat_backup,
    "datumaro.json": datumaro,
    "voc.zip": voc,
    "yolo.zip": yolo,
}


def refused(store: Store, file: Path, data: bytes) -> str:
    """What is said of a file that is refused, in one line that begins with its name; nothing is entered."""
    file.write_bytes(data)
    with pytest.raises((ConfigError, InputError)) as error:
        labels.add(store, file)
    told = str(error.value)
    assert told.startswith(f"{file}: ")
    assert "\n" not in told
    assert len(told) < 700 + len(str(file))
    assert ledger.length(store) == 0
    return told


@pytest.mark.parametrize("name", EXPORTS)
def test_a_whole_file_is_entered(name: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(EXPORTS[name](CLASSES))
    assert labels.add(store, tmp_path / name).added == 3
    found = labels.listed(store).select("uri", pl.col("classes").list.first()).iter_rows()
    assert {Path(uri).name: label for uri, label in found} == CLASSES


@pytest.mark.parametrize("name", EXPORTS)
def test_a_file_that_was_cut_enters_nothing(name: str, store: Store, tmp_path: Path) -> None:
    data = EXPORTS[name](CLASSES)
    for length in (len(data) - 6, len(data) * 9 // 10, len(data) // 3 - 2, 12):  # no cut is between two rows
        refused(store, tmp_path / name, data[:length])


@pytest.mark.parametrize("name", EXPORTS)
def test_an_empty_file_and_one_without_any_label_enter_nothing(name: str, store: Store, tmp_path: Path) -> None:
    assert "expected" in refused(store, tmp_path / name, b"")
    if name != "backup.zip":  # whose jobs need an annotation each here
        assert "expected" in refused(store, tmp_path / name, EXPORTS[name]({}))


@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("annotations.xml", cvat, "CVAT's XML of version '9.9', where 1.1 was expected"),
        ("backup.zip", cvat_backup, "task.json: of version '9.9', where 1.0 or 1.1 was expected"),
        ("datumaro.json", datumaro, "Datumaro's JSON of version '9.9', where 1.0 was expected"),
    ],
)
def test_another_version_is_told(
    name: str, write: Callable[..., bytes], told: str, store: Store, tmp_path: Path
) -> None:
    assert told in refused(store, tmp_path / name, write(CLASSES, version="9.9"))


@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("coco.json", coco, "an annotation of category 1, which is not among the categories"),
        ("annotations.xml", cvat, "label 'dog', which is not among those of the task"),
        ("backup.zip", cvat_backup, "label 'dog', which is not among the task's labels"),
        ("datumaro.json", datumaro, "an annotation of label 1, where the file has 1 labels"),
        ("yolo.zip", yolo, "labels/2.txt, line 1: class 1, of which the names file says nothing"),
    ],
)
def test_a_class_that_the_file_does_not_know_is_told(
    name: str, write: Callable[..., bytes], told: str, store: Store, tmp_path: Path
) -> None:
    assert told in refused(store, tmp_path / name, write(CLASSES, names=("cat",)))


@pytest.mark.parametrize("name", EXPORTS)
def test_names_that_match_nothing_are_kept_aside_and_the_rest_goes_in_when_asked(
    name: str, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / name
    told = refused(store, file, EXPORTS[name]({"77.jpg": "cat", "1.jpg": "dog", "78.jpg": "x"}))
    assert "found 2 that name no sample of the pool (" in told
    assert "--partial enters the others" in told
    aside = tmp_path / "other" / "left.csv"
    aside.parent.mkdir()
    added = labels.add(store, file, is_partial=True, aside=aside)
    assert (added.added, added.left_out, added.aside) == (1, 2, str(aside))
    kept = pl.read_csv(aside, infer_schema=False)
    assert kept["classes"].to_list() == ["cat", "x"]
    assert kept["path"].str.extract(r"(\d+)").to_list() == ["77", "78"]
    for everywhere in (False, True):  # where nothing at all is named there is no rest
        store.delete_folder("ledger")
        file.write_bytes(EXPORTS[name]({"77.jpg": "cat", "78.jpg": "x"}))
        with pytest.raises(InputError, match="found 2 that name no sample of the pool"):
            labels.add(store, file, is_partial=everywhere)
        assert ledger.length(store) == 0


def test_a_backup_of_a_project_holds_tasks_in_folders_and_frames_are_those_of_the_task(
    store: Store, tmp_path: Path
) -> None:
    """Every second frame from the second on; a track is outside the first of its frames."""
    lines = [{"version": "1.1"}, {"type": "images"}]
    lines += [{"name": f"{number}", "extension": ".jpg"} for number in range(6)]
    shapes = [{"frame": 0, "outside": True}, {"frame": 1, "outside": False}]
    job = {"tags": [{"frame": 0, "label": "cat"}], "shapes": [], "tracks": [{"label": "dog", "shapes": shapes}]}
    data = {"start_frame": 1, "stop_frame": 3, "frame_filter": "step=2"}
    files = {
        "project.json": "{}",
        "task_0/task.json": json.dumps({"version": "1.0", "data": data}),
        "task_0/annotations.json": json.dumps([job]),
        "task_0/data/manifest.jsonl": "\n".join(map(json.dumps, lines)),
    }
    (tmp_path / "p.zip").write_bytes(zipped(files))
    labels.add(store, tmp_path / "p.zip")
    found = labels.listed(store).select("uri", pl.col("classes").list.first()).iter_rows()
    assert {Path(uri).name: label for uri, label in found} == {"1.jpg": "cat", "3.jpg": "dog"}
    store.delete_folder("ledger")
    video = files | {"task_0/data/manifest.jsonl": '{"version":"1.1"}\n{"type":"video"}\n{"properties":{}}'}
    assert "those of videos name no frame" in refused(store, tmp_path / "p.zip", zipped(video))
    del files["task_0/annotations.json"]
    assert "a backup of CVAT without task_0/annotations.json" in refused(store, tmp_path / "p.zip", zipped(files))


def test_datumaro_has_a_file_for_each_subset_and_ids_where_images_have_no_path(store: Store, tmp_path: Path) -> None:
    """As datumaro 1.13 writes them without the images."""
    (tmp_path / "d" / "annotations").mkdir(parents=True)
    categories = {"label": {"labels": [{"name": "cat", "parent": "", "attributes": []}]}}
    for subset, name in (("train", "1"), ("val", "photos/2")):
        box = {"id": 0, "type": "bbox", "label_id": 0, "bbox": [1.0, 1.0, 5.0, 5.0]}
        bare = {"id": "3", "annotations": [], "image": {"path": None}}
        items = [{"id": name, "annotations": [box, box], "image": {"path": None, "size": [20, 20]}}, bare]
        part = {"dm_format_version": "1.0", "media_type": 2, "infos": {}, "categories": categories, "items": items}
        (tmp_path / "d" / "annotations" / f"{subset}.json").write_text(json.dumps(part))
    added = labels.add(store, tmp_path / "d")
    assert (added.added, added.bare, added.classes) == (2, 2, {"cat": 2})
