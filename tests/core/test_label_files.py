"""Each form of label file: what is read of it, and what is said of one that is cut, empty, foreign or incomplete."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wtl_core.errors import ConfigError
from wtl_core.labelling import label_files
from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading

HOSTILE = ['two\nlines "q".jpg', "=cmd|'x'!A0.jpg", "שלום\u202e.jpg", "<b>&amp;.jpg", "a;b|c,d.jpg", "été 日本.jpg"]


def told(rows: LabelRows) -> list[tuple[str, Classes]]:
    return list(zip(rows.names, rows.classes, strict=True))


def read(file: Path, **how: Any) -> list[tuple[str, Classes]]:
    return told(label_files.read(file, replace(Reading(), **how)))


def written(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# ---------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("title", ["label", "Class", "class_name", "category", "labels", "TAGS", "choice"])
def test_a_table_holds_classes_in_a_column_that_is_known_by_its_title(title: str, tmp_path: Path) -> None:
    expected = [("a.jpg", ("cat",)), ("b.jpg", ()), ("d.jpg", ("7",))]
    rows = [("a.jpg", "cat"), ("b.jpg", "Empty"), ("c.jpg", " "), ("d.jpg", "7")]
    for ending, mark in ((".csv", ","), (".tsv", "\t"), (".csv", ";"), (".txt", ","), ("", "\t")):
        lines = [f"path{mark}{title}", *(f"{name}{mark}{label}" for name, label in rows)]
        found = label_files.read(written(tmp_path, f"t{ending}", "\n".join(lines)))
        assert (told(found), found.bare) == (expected, 1)
    objects = [{"path": name, title: label} for name, label in rows]
    assert read(written(tmp_path, "t.json", json.dumps(objects))) == expected
    for name in ("t.jsonl", "t.txt", "t"):
        assert read(written(tmp_path, name, "\n".join(map(json.dumps, objects)))) == expected
    assert read(tmp_path / "t.jsonl", bare_is_empty=True) == [*expected[:2], ("c.jpg", ()), expected[2]]
    pl.DataFrame(objects).write_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == expected


def test_another_title_is_named_by_the_caller_and_two_known_ones_are_asked_about(tmp_path: Path) -> None:
    file = written(tmp_path, "t.csv", "path,label,class_name,What\na.jpg,3,cat,x\n")
    with pytest.raises(
        ConfigError, match=r"several columns that may hold classes, 'label', 'class_name' \(--class-col"
    ):
        read(file)
    assert read(file, class_column="what ") == [("a.jpg", ("x",))]
    with pytest.raises(ConfigError, match=r"no column 'nope' among .*\(--class-column NAME holds the classes\)"):
        read(file, class_column="nope")
    with pytest.raises(ConfigError, match="plain text, which has no columns"):
        read(written(tmp_path, "t.txt", "a.jpg\n"), class_column="label")
    assert read(file, column="label", class_column="class_name") == [("3", ("cat",))]


def test_several_classes_are_a_list_or_a_text_with_a_separator_that_is_stated(tmp_path: Path) -> None:
    text = "path,labels\na.jpg,cat; dog\nb.jpg,cat|dog\n"
    file = written(tmp_path, "t.csv", text)
    assert read(file) == [("a.jpg", ("cat; dog",)), ("b.jpg", ("cat|dog",))]
    assert read(file, separator=";") == [("a.jpg", ("cat", "dog")), ("b.jpg", ("cat|dog",))]
    blanks = written(tmp_path, "b.csv", "path,labels\na.jpg,;\nb.jpg,cat;\nc.jpg,empty; Empty\nd.jpg,empty; cat\n")
    assert read(blanks, separator=";") == [("b.jpg", ("cat",)), ("c.jpg", ()), ("d.jpg", ("empty", "cat"))]
    lists = [["cat", "dog"], [], None, ["cat", None], [None]]
    expected = [("0", ("cat", "dog")), ("1", ()), ("3", ("cat",))]
    objects = [{"path": str(number), "labels": held} for number, held in enumerate(lists)]
    assert read(written(tmp_path, "t.json", json.dumps(objects))) == expected
    pl.DataFrame(
        {"path": list("01234"), "labels": lists}, schema_overrides={"labels": pl.List(pl.String)}
    ).write_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == expected


def test_whole_numbers_are_classes_and_fractions_or_long_texts_are_not(tmp_path: Path) -> None:
    pl.DataFrame({"path": ["a", "b"], "label": [3.0, float("nan")]}).write_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == [("a", ("3",))]
    for value, message in ((0.5, "the number 0.5 where the name of a class"), ("x" * 201, "a text of 201 characters")):
        with pytest.raises(ConfigError, match=message):
            read(written(tmp_path, "t.json", json.dumps([{"path": "a", "label": value}])))


def test_a_list_of_names_leaves_the_classes_unknown(tmp_path: Path) -> None:
    expected: list[tuple[str, Classes]] = [("a.jpg", None), ("b.jpg", None)]
    assert read(written(tmp_path, "t.txt", "a.jpg\n\nb.jpg\n")) == expected
    assert read(written(tmp_path, "t.csv", "a.jpg\nb.jpg\n")) == expected
    assert read(written(tmp_path, "t.json", '["a.jpg", " ", "b.jpg"]')) == expected
    assert read(written(tmp_path, "u.txt", "[1] a.jpg\n{2}.jpg\n")) == [("[1] a.jpg", None), ("{2}.jpg", None)]
    assert read(written(tmp_path, "u.csv", "path,camera\na.jpg,x\nb.jpg,y\n")) == expected
    for name in ("t.txt", "t.csv", "t.json", "u.csv"):
        with pytest.raises(ConfigError, match="no column of classes, without which --empty would make every image em"):
            read(tmp_path / name, bare_is_empty=True)


def test_hostile_names_and_classes_survive_each_table(tmp_path: Path) -> None:
    rows = [{"path": name, "label": f"class {name}"} for name in HOSTILE]
    expected = [(name, (f"class {name}",)) for name in HOSTILE]
    assert read(written(tmp_path, "t.json", json.dumps(rows))) == expected
    assert read(written(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows)))) == expected
    for name in ("t.csv", "t.tsv", "t.parquet"):
        table = pl.DataFrame(rows)
        if name.endswith(".parquet"):
            table.write_parquet(tmp_path / name)
        else:
            table.write_csv(tmp_path / name, separator="," if name == "t.csv" else "\t")
        assert read(tmp_path / name) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_tables_are_read_in_each_of_their_encodings(encoding: str, tmp_path: Path) -> None:
    file = written(tmp_path, "t.tsv", "path\tlabel\nété.jpg\tvélo\n".encode(encoding))
    assert read(file) == [("été.jpg", ("vélo",))]


# ------------------------------------------------------------------------------------------------------------ COCO


def coco() -> dict[str, Any]:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(3)]
    pairs = [(0, 1), (0, 2), (0, 1), (2, 2)]
    annotations = [{"id": n, "image_id": image, "category_id": c} for n, (image, c) in enumerate(pairs)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def test_coco_gives_an_image_the_categories_of_its_annotations(tmp_path: Path) -> None:
    file = written(tmp_path, "labels.txt", json.dumps(coco(), indent=1))  # its content says what it is
    expected: list[tuple[str, Classes]] = [("0.jpg", ("cat", "dog")), ("2.jpg", ("dog",))]
    assert read(file) == expected
    assert label_files.read(file).bare == 1
    assert read(file, bare_is_empty=True) == [expected[0], ("1.jpg", ()), expected[1]]


def test_paths_on_label_studios_own_disk_are_read_in_each_of_its_exports(tmp_path: Path) -> None:
    name = "/data/local-files/?d=photos/two%0Alines%20%22q%22.jpg"
    data = coco()
    data["images"][0]["file_name"] = name
    assert read(written(tmp_path, "c.json", json.dumps(data)))[0] == ('photos/two\nlines "q".jpg', ("cat", "dog"))
    assert read(written(tmp_path, "t.csv", f"image,choice\n{name},cat\n")) == [('photos/two\nlines "q".jpg', ("cat",))]


def test_coco_in_a_zip_is_found(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cvat.zip", "w") as archive:
        archive.writestr("annotations/instances_default.json", json.dumps(coco()))
        archive.writestr("images/0.jpg", b"x")
    assert read(tmp_path / "cvat.zip") == [("0.jpg", ("cat", "dog")), ("2.jpg", ("dog",))]


def test_coco_that_says_the_same_twice_is_read(tmp_path: Path) -> None:
    data = coco()
    expected = read(written(tmp_path, "c.json", json.dumps(data)))
    for part in ("categories", "images"):
        data[part] += data[part]
    assert read(written(tmp_path, "c.json", json.dumps(data))) == expected


def test_coco_without_categories_leaves_the_classes_unknown(tmp_path: Path) -> None:
    data = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a cat"}]}
    assert read(written(tmp_path, "c.json", json.dumps(data))) == [("a.jpg", None)]
    assert read(tmp_path / "c.json", bare_is_empty=True) == [("a.jpg", None)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data["annotations"].append({"image_id": 0, "category_id": 9}),
            "an annotation of category 9, whi",
        ),
        (lambda data: data["annotations"].append({"image_id": 7, "category_id": 1}), "an annotation of image 7, which"),
        (lambda data: data["annotations"].append({"category_id": 1}), "an annotation without 'image_id'"),
        (lambda data: data["categories"].append({"id": 3}), "a category without 'name'"),
        (lambda data: data["images"].append({"file_name": "x"}), "an image without 'id'"),
        (lambda data: data["categories"].append({"id": 1, "name": "x"}), r"the id 1 of both '\w+' and 'x': files that"),
        (lambda data: data["images"].append({"id": 0, "file_name": "x"}), r"the id 0 of both '0\.jpg' and 'x'"),
        (lambda data: data.update(images="x"), "an image without 'id'"),
        (lambda data: data.update(annotations=5), "'int' object is not iterable"),
    ],
)
def test_coco_that_contradicts_itself_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    data = coco()
    change(data)
    with pytest.raises(ConfigError, match=message):
        read(written(tmp_path, "c.json", json.dumps(data)))
    with pytest.raises(ConfigError, match="leave out --class-column"):
        read(written(tmp_path, "c.json", json.dumps(coco())), class_column="x")


# ---------------------------------------------------------------------------------------------------- Label Studio


def task(data: Any, *results: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "data": data, "annotations": [{"id": 1, "result": list(results), **more}]}


def chosen(*names: str, kind: str = "choices", control: str = "choice") -> dict[str, Any]:
    return {"type": kind, "from_name": control, "to_name": "image", "value": {kind: list(names)}}


def test_label_studio_gives_what_its_controls_hold(tmp_path: Path) -> None:
    box = chosen("car", kind="rectanglelabels", control="label") | {"id": "x"}
    tasks = [
        task({"image": "/data/local-files/?d=photos/a%20b.jpg"}, chosen("cat")),
        task({"image": "s3://b/c.jpg", "sample_id": "f" * 64}, chosen("cat", "dog")),
        task({"image": "d.jpg"}),
        task({"image": "e.jpg"}, chosen("cat"), was_cancelled=True),
        {"id": 5, "data": {"image": "g.jpg"}, "annotations": []},
        task({"image": "h.jpg"}, {"type": "textarea", "from_name": "t", "value": {"text": ["hm"]}}),
        task({"image": "i.jpg"}, chosen(kind="rectanglelabels", control="choice")),  # a box without a label
    ]
    file = written(tmp_path, "ls.json", json.dumps(tasks))
    expected: list[tuple[str, Classes]] = [
        ("photos/a b.jpg", ("cat",)),
        ("f" * 64, ("cat", "dog")),
        ("d.jpg", ()),
        ("h.jpg", None),
        ("i.jpg", None),
    ]
    assert read(file) == expected
    assert label_files.read(file).bare == 2
    with pytest.raises(ConfigError, match="where an annotation without content is one: leave out --empty"):
        read(file, bare_is_empty=True)
    for kind in ("rectanglelabels", "polygonlabels", "brushlabels", "keypointlabels", "ellipselabels", "labels"):
        boxes = task(
            {"picture of it": "a.jpg", "size": 3}, *(chosen(name, kind=kind) for name in ("car", "bus", "car"))
        )
        assert read(written(tmp_path, "b.json", json.dumps([boxes]))) == [("a.jpg", ("car", "bus"))]
    taxonomy = {"type": "taxonomy", "from_name": "t", "value": {"taxonomy": [["animal", "cat"], ["animal"]]}}
    assert read(written(tmp_path, "x.json", json.dumps([task({"url": "a"}, taxonomy)]))) == [
        ("a", ("animal / cat", "animal"))
    ]
    both = written(
        tmp_path, "two.json", json.dumps([task({"image": "a.jpg"}, box, chosen("sunny", control="weather"))])
    )
    with pytest.raises(ConfigError, match="several controls that hold classes, 'label', 'weather'"):
        read(both)
    assert read(both, class_column="weather") == [("a.jpg", ("sunny",))]
    with pytest.raises(ConfigError, match="no control 'nope' among 'label', 'weather'"):
        read(both, class_column="nope")


def test_label_studios_csv_and_short_json_are_tables(tmp_path: Path) -> None:
    boxes = json.dumps([{"x": 1, "rectanglelabels": ["car"]}, {"x": 2, "rectanglelabels": ["bus", "car"]}])
    rows = [("a.jpg", "cat"), ("b.jpg", json.dumps({"choices": ["cat", "dog"]})), ("c.jpg", boxes), ("d.jpg", "[x")]
    table = pl.DataFrame({"annotation_id": [1, 2, 3, 4], "image": [a for a, _ in rows], "choice": [b for _, b in rows]})
    table.write_csv(tmp_path / "ls.csv")
    expected = [("a.jpg", ("cat",)), ("b.jpg", ("cat", "dog")), ("c.jpg", ("car", "bus")), ("d.jpg", ("[x",))]
    assert read(tmp_path / "ls.csv") == expected
    short = [{"image": "b.jpg", "choice": {"choices": ["cat", "dog"]}}, {"image": "c.jpg", "choice": json.loads(boxes)}]
    assert read(written(tmp_path, "short.json", json.dumps(short))) == expected[1:3]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task({"a": "x", "b": "y"}, chosen("cat"))], "an entry that names no sample, with the keys 'a', 'b'"),
        ([{"data": {"image": "a"}, "annotations": [{}]}], "an annotation without 'result'"),
        ([{"data": {"image": "a"}, "annotations": [{"result": "x"}]}], "whose result is no list"),
        ([{"data": {"image": "a"}, "annotations": "x"}], "whose annotations are no list of objects"),
        ([task({"image": "a"}, "x")], "a result that is no object"),
        ([task({"image": "a"}, chosen("cat")), {"annotations": []}], "a task without 'data'"),
        ([task("x", chosen("cat"))], "an entry that names no sample, of type str"),
    ],
)
def test_tasks_without_what_a_task_has_are_refused(tasks: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(written(tmp_path, "ls.json", json.dumps(tasks)))


# ------------------------------------------------------------------------------------------------- CVAT, Pascal VOC

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels><label><name>car</name></label>
<label><name>bus</name></label><label><name>night</name></label></labels></task></meta>
<image id="0" name="set/&lt;a&gt; &quot;1&quot;.jpg" width="4" height="4">
  <box label="car" occluded="0" xtl="0" ytl="0" xbr="1" ybr="1"><attribute name="colour">red</attribute></box>
  <polygon label="bus" points="0,0;1,1;2,2"/><box label="car" xtl="0"/></image>
<image id="1" name="b.jpg" width="4" height="4"><tag label="night" source="manual"/></image>
<image id="2" name="c.jpg" width="4" height="4"/>
</annotations>"""
VOC = "<annotation><folder>x</folder><filename>{}</filename>{}</annotation>"
OBJECT = "<object><name>{}</name><bndbox><xmin>1</xmin></bndbox></object>"


def test_cvat_gives_the_labels_of_boxes_polygons_and_tags(tmp_path: Path) -> None:
    expected: list[tuple[str, Classes]] = [('set/<a> "1".jpg', ("car", "bus")), ("b.jpg", ("night",))]
    for name in ("annotations.xml", "labels", "labels.txt"):
        assert read(written(tmp_path, name, CVAT)) == expected
    assert read(written(tmp_path, "u.xml", CVAT.replace("utf-8", "utf-16").encode("utf-16"))) == expected
    assert read(tmp_path / "annotations.xml", bare_is_empty=True) == [*expected, ("c.jpg", ())]
    with zipfile.ZipFile(tmp_path / "cvat.zip", "w") as archive:
        archive.writestr("annotations.xml", CVAT)
        archive.writestr("images/b.jpg", b"x")
    assert read(tmp_path / "cvat.zip") == expected


def test_pascal_voc_gives_the_names_of_an_images_objects(tmp_path: Path) -> None:
    files = {
        "a.xml": VOC.format("a &amp; b.jpg", OBJECT.format("car") + OBJECT.format("bus") + OBJECT.format("car")),
        "deep/b.xml": VOC.format("b.jpg", ""),
    }
    (tmp_path / "voc" / "deep").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "voc.zip", "w") as archive:
        for name, text in files.items():
            (tmp_path / "voc" / name).write_text(text)
            archive.writestr(name, text)
        archive.writestr("__MACOSX/._a.xml", b"\0")
    lists = {"labelmap.txt": "# label:color_rgb\ncar:::", "ImageSets/Main/car_train.txt": "000005 -1\n000007  1\n"}
    folder_of(lists, tmp_path / "voc")  # as CVAT and others write them beside the labels
    expected: list[tuple[str, Classes]] = [("a & b.jpg", ("car", "bus"))]
    for place in (tmp_path / "voc", tmp_path / "voc.zip", tmp_path / "voc" / "a.xml"):
        assert read(place) == expected
    latin = f'<?xml version="1.0" encoding="ISO-8859-1"?>{VOC.format("é.jpg", OBJECT.format("bär"))}'
    assert read(written(tmp_path, "latin.xml", latin.encode("latin-1"))) == [("é.jpg", ("bär",))]
    assert read(tmp_path / "voc", bare_is_empty=True) == [*expected, ("b.jpg", ())]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CVAT[:400], "XML that cannot be read"),
        (CVAT.replace("1.1", "2.0"), "CVAT's XML of version '2.0', where 1.1 was expected"),
        (CVAT.replace("<image ", "<track/><image ", 1), "CVAT for video, whose frames have no names"),
        (CVAT.replace(' name="b.jpg"', ""), "image 2 has no name"),
        (VOC.format("", ""), "no filename in it"),
        (VOC.format("a.jpg", OBJECT.format(" ")), "an object without a name"),
        ("<html><body/></html>", "XML with the root 'html', neither CVAT's nor Pascal VOC's"),
        ('<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>', "XML with a document type"),
    ],
)
def test_xml_that_is_cut_foreign_or_hostile_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(written(tmp_path, "a.xml", text))


# ------------------------------------------------------------------------------------------------------------ YOLO

YOLO = {
    "data.yaml": "names:\n  0: car\n  1: traffic light\nnc: 2\n",
    "labels/train/a.txt": "1 0.5 0.5 0.1 0.1\n0 0.1 0.1 0.1 0.1\n\n1 0.2 0.2 0.1 0.1\n",
    "labels/train/test.txt": "0 0.1 0.1 0.2 0.1 0.2 0.2 0.9 0.9\n",
    "labels/val/b.txt": "",
    "train.txt": "images/train/a.jpg\n",
    "README.roboflow.txt": "made by hand",
}
YOLO_ROWS: list[tuple[str, Classes]] = [("labels/train/a", ("traffic light", "car")), ("labels/train/test", ("car",))]


def folder_of(files: dict[str, str], folder: Path) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_yolo_gives_the_names_of_its_numbers_and_files_that_are_no_labels_are_passed_by(tmp_path: Path) -> None:
    folder = folder_of(YOLO, tmp_path / "yolo")
    with zipfile.ZipFile(tmp_path / "yolo.zip", "w") as archive:
        for name, text in YOLO.items():
            archive.writestr(name, text)
    for place in (folder, tmp_path / "yolo.zip"):
        found = label_files.read(place)
        assert (told(found), found.bare, found.are_stems) == (YOLO_ROWS, 1, True)
    assert read(folder, bare_is_empty=True)[-1] == ("labels/val/b", ())
    for names in ({"obj.names": "car\ntraffic light\n"}, {"classes.txt": "car\ntraffic light"}):
        others = {name: text for name, text in YOLO.items() if name != "data.yaml"}
        assert read(folder_of(others | names, tmp_path / next(iter(names)))) == YOLO_ROWS


def test_what_is_in_a_file_decides_where_its_name_is_one_of_lists_too(tmp_path: Path) -> None:
    digits = "".join(f"{digit}\n" for digit in range(10))
    files = {"a.txt": "3 1 1 1 1\n", "test_1.txt": "5 1 1 1 1\n", "test_2.txt": "", "val_3.txt": "images/a.jpg\n"}
    folder = folder_of({**files, "train.txt": "1.jpg\n", "classes.txt": digits}, tmp_path / "yolo")
    assert read(folder, bare_is_empty=True) == [("a", ("3",)), ("test_1", ("5",)), ("test_2", ())]


def test_a_file_that_holds_labels_is_not_written_over(tmp_path: Path) -> None:
    for name, text in (("none.csv", ""), ("broken.json", "{"), ("picks.csv", "path,rank\na.jpg,0\n")):
        label_files.check_spared(written(tmp_path, name, text))
    label_files.check_spared(tmp_path / "nowhere.csv")
    (tmp_path / "excel.csv").write_bytes("path;rank;label\nström.jpg;0;cat\n".encode("cp1252"))
    for file in (
        written(tmp_path, "l.csv", "path,rank,label\na.jpg,0,cat\nb.jpg,1,\n"),
        written(tmp_path, "c.json", json.dumps(coco())),
        tmp_path / "excel.csv",
    ):
        with pytest.raises(ConfigError, match="expected a file without labels, which would be lost, found one that"):
            label_files.check_spared(file)
    with pytest.raises(ConfigError, match='save it as UTF-8, which Excel calls "CSV UTF-8"'):
        read(tmp_path / "excel.csv")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "0 1 1 1 1"}, "without names of classes: put data.yaml, obj.names or classes.txt beside them"),
        ({"a.txt": "0 1 1", "classes.txt": "car"}, "a.txt, line 1: expected the number of a class and a box, found 3"),
        ({"a.txt": "car 1 1 1 1", "classes.txt": "car"}, "a.txt, line 1: expected the number of a class and a box: "),
        ({"a.txt": "4 1 1 1 1", "classes.txt": "car"}, "a.txt, line 1: class 4, of which the names file says nothing"),
        ({"a.txt": "0 1 1 1 1", "data.yaml": "names: 5"}, "data.yaml: expected names of classes, found 5"),
        ({"a.txt": "0 1 1 1 1", "data.yaml": "names: ["}, "data.yaml: YAML that cannot be read"),
        ({"a.txt": "0 1 1 1 1", "classes.txt": ""}, "classes.txt: expected names of classes, found none"),
        ({"a.txt": "0 1 1 1 1", "b.xml": "<x/>"}, "XML and YOLO's text files in one folder"),
        ({"notes.md": "x"}, "neither XML nor YOLO's text files, but no file that could be labels"),
        ({"a.json": "[]", "b.json": "[]"}, "neither XML nor YOLO's text files, but 2 files of JSON: name one of them"),
    ],
)
def test_yolo_that_is_not_whole_is_refused(files: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(folder_of(files, tmp_path / "yolo"))


# ------------------------------------------------------------------------------------------- cut, empty and foreign


def samples_of_forms(folder: Path) -> dict[str, bytes]:
    pl.DataFrame({"path": ["a"], "label": ["b"]}).write_parquet(folder / "t.parquet")
    with zipfile.ZipFile(folder / "y.zip", "w") as archive:
        for name, text in YOLO.items():
            archive.writestr(name, text)
    return {
        "t.parquet": (folder / "t.parquet").read_bytes(),
        "y.zip": (folder / "y.zip").read_bytes(),
        "c.json": json.dumps(coco()).encode(),
        "ls.json": json.dumps([task({"image": "a"}, chosen("cat"))]).encode(),
        "t.jsonl": b'{"path": "a", "label": "b"}\n{"path": "c", "label": "d"}\n',
        "cvat.xml": CVAT.encode(),
    }


def test_a_file_that_was_cut_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    for name, data in samples_of_forms(tmp_path).items():
        for share in (0.1, 0.4, 0.9):
            with pytest.raises(ConfigError, match=r"expected a table \(CSV"):
                read(written(tmp_path, name, data[: int(len(data) * share)]))


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 3 is no JSON: Unterminated string"):
        read(written(tmp_path, "t.jsonl", '{"path": "a"}\n\n{"path": "b\n'))


def test_files_without_any_label_have_no_rows(tmp_path: Path) -> None:
    for name, text in (
        ("a.txt", ""),
        ("a.xml", ""),
        ("b.json", "[]"),
        ("c.csv", "path,label\n"),
        ("d.jsonl", "\n"),
        ("e.xml", "<annotations><version>1.1</version></annotations>"),
        ("f.json", '{"images": [], "annotations": []}'),
    ):
        assert read(written(tmp_path, name, text)) == [], name
    for name in ("g.csv", "h.tsv", "i.json"):
        with pytest.raises(ConfigError, match="nothing is entered"):
            read(written(tmp_path, name, ""))


def zip_of(folder: Path, method: int) -> bytes:
    with zipfile.ZipFile(folder / "made.zip", "w", method) as archive:
        archive.writestr("cvat.xml", CVAT * 20)
    return (folder / "made.zip").read_bytes()


def damaged(data: bytes) -> bytes:
    """The same but for bytes in the middle of the first member."""
    half = len(data) // 3
    return data[:half] + bytes(value ^ 0xFF for value in data[half : half + 40]) + data[half + 40 :]


def encrypted(data: bytes) -> bytes:
    """The same, with the mark of encryption at the member and in the directory."""
    directory = data.index(b"PK\x01\x02")
    changed = bytearray(data)
    changed[6] |= 1
    changed[directory + 8] |= 1
    return bytes(changed)


def test_zips_that_cannot_be_unpacked_are_refused(tmp_path: Path) -> None:
    whole = zip_of(tmp_path, zipfile.ZIP_DEFLATED)
    for name, data, told in (
        ("lzma.zip", damaged(zip_of(tmp_path, zipfile.ZIP_LZMA)), "a zip that cannot be unpacked: "),
        ("bz2.zip", damaged(zip_of(tmp_path, zipfile.ZIP_BZIP2)), "a zip that cannot be unpacked: Invalid data stream"),
        ("deflated.zip", damaged(whole), "a zip that cannot be unpacked: Error -3 while decompressing"),
        ("secret.zip", encrypted(whole), r"a zip that is encrypted \('cvat.xml'\); unpack it first"),
        ("cut.zip", whole[:100], "a zip that cannot be unpacked: File is not a zip file"),
    ):
        with pytest.raises(ConfigError, match=f"{told}.*nothing is entered"):
            read(written(tmp_path, name, data))


def test_a_number_that_is_none_is_no_class(tmp_path: Path) -> None:
    for name, text in (
        ("much.json", '[{"path": "a.jpg", "label": 1e999}]'),
        ("infinite.jsonl", '{"path": "a.jpg", "label": [-Infinity]}'),
    ):
        with pytest.raises(ConfigError, match=r"the number -?inf where the name of a class was expected"):
            read(written(tmp_path, name, text))
    files = {"a.txt": "0 1 1 1 1", "data.yaml": "names: {.inf: cat}"}
    with pytest.raises(ConfigError, match=r"data\.yaml: expected names of classes, found "):
        read(folder_of(files, tmp_path / "yolo"))
    coded = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "category_id": 1e999}]}
    with pytest.raises(ConfigError, match="nothing is entered"):
        read(written(tmp_path, "coco.json", json.dumps({**coded, "categories": [{"id": 1, "name": "x"}]})))


def test_bytes_in_parquet_are_the_text_that_they_spell(tmp_path: Path) -> None:
    pl.DataFrame({"path": ["a", "b"], "label": [b"cat", "été".encode()]}).write_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == [("a", ("cat",)), ("b", ("été",))]
    pl.DataFrame({"path": ["a"], "label": [[b"cat", b"dog"]]}).write_parquet(tmp_path / "several.parquet")
    assert read(tmp_path / "several.parquet") == [("a", ("cat", "dog"))]
    pl.DataFrame({"path": ["a"], "label": [b"\xff\xd8\xff"]}).write_parquet(tmp_path / "image.parquet")
    with pytest.raises(ConfigError, match="nothing is entered"):
        read(tmp_path / "image.parquet")


def test_what_no_tool_writes_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, data in (
        ("deep.json", b"[" * 100_000),
        ("binary.csv", bytes(range(256)) * 4),
        ("latin.txt", "été".encode("latin-1")),
        ("number.json", b"5"),
        ("surrogate.json", b'[{"path": "\\ud800.jpg", "label": "a"}]'),
    ):
        with pytest.raises(ConfigError, match="nothing is entered") as refused:
            read(written(tmp_path, name, data))
        assert "\n" not in str(refused.value)
