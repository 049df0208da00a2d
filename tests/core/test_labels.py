import json
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from tests.conftest import make_jpeg
from tests.plain_refresh import ranking, refresh
from wtl_core.embedding import similar
from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import label_files, labels
from wtl_core.labelling.formats.rows import Reading
from wtl_core.labelling.labels import Added
from wtl_core.labelling.sample_names import NAMES_SCHEMA, find, match
from wtl_core.workspace import commits, ledger
from wtl_core.workspace.storage import Store


def counts(added: Added) -> tuple[int, int, int]:
    return added.named, added.found, added.added


def test_ids_paths_and_keys_name_samples(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    table = ranking(tmp_path / "w")
    loose = next(uri for uri in table["uri"] if "loose" in uri and "copy" not in uri)
    (tmp_path / "done.csv").write_text(f"uri\n{loose}\n{table['sample_id'][5]}\n")
    assert counts(labels.add(store, tmp_path / "done.csv")) == (2, 2, 2)
    assert labels.add(store, tmp_path / "done.csv").added == 0
    assert len(ledger.sample_ids(ledger.read(store), "labelled")) == 2
    table.head(3).write_parquet(tmp_path / "done.parquet")
    assert labels.add(store, tmp_path / "done.parquet").found == 3
    (tmp_path / "done.txt").write_text("\n".join(table["sample_id"].head(4)))
    assert labels.add(store, tmp_path / "done.txt").found == 4


def test_a_value_that_names_nothing_or_several_enters_nothing(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    known = ranking(tmp_path / "w")["sample_id"][0]
    (tmp_path / "wrong.csv").write_text(f"sample_id\n{known}\nnowhere.jpg\n")
    with pytest.raises(InputError, match=r"nowhere\.jpg.*nothing is entered"):
        labels.add(store, tmp_path / "wrong.csv")
    (tmp_path / "several.csv").write_text("key\n3.jpg\n")
    with pytest.raises(InputError, match="1 that names several"):
        labels.add(store, tmp_path / "several.csv")
    with pytest.raises(ConfigError, match=r"missing\.csv: no such file$"):
        labels.add(store, tmp_path / "missing.csv")
    with pytest.raises(ConfigError, match="a folder or zip with neither XML nor YOLO"):
        labels.add(store, source / "loose")
    assert ledger.length(store) == 0


def test_images_like_one_come_nearest_first_and_without_itself(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    last = commits.latest(store)
    assert last is not None
    sample_id = ranking(tmp_path / "w")["sample_id"][0]
    assert find(store, sample_id[:20]) == sample_id
    rows = similar.run(store, last, sample_id, count=5)
    assert len(rows) == 5
    assert sample_id not in {row["sample_id"] for row in rows}
    assert [row["similarity"] for row in rows] == sorted((row["similarity"] for row in rows), reverse=True)
    with pytest.raises(InputError, match="embed the pool first"):
        similar.run(store, last, "0" * 64, count=5)


def test_one_image_is_found_by_id_path_or_key_and_several_are_shown(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    table = ranking(tmp_path / "w")
    loose, sample_id = next(
        (uri, sample_id)
        for uri, sample_id in table.select("uri", "sample_id").iter_rows()
        if "loose" in uri and "copy" not in uri
    )
    for value in (loose, f"loose/{Path(loose).name}", sample_id, sample_id[:12]):
        assert find(store, value) == sample_id
    with pytest.raises(ConfigError, match=r"'zz': expected the beginning of one sample's id, .* found 0 that fit$"):
        find(store, "zz")
    with pytest.raises(ConfigError, match=r"found 0 that fit$"):
        find(store, "")
    shared = next(head for head in "0123456789abcdef" if table["sample_id"].str.starts_with(head).sum() > 3)
    ids = sorted(sample_id for sample_id in table["sample_id"] if sample_id.startswith(shared))
    uris = dict(table.select("sample_id", "uri").iter_rows())
    with pytest.raises(ConfigError) as raised:
        find(store, shared)
    assert f"found {len(ids)} that fit, first {ids[0][:16]} ({uris[ids[0]]}), {ids[1][:16]} (" in str(raised.value)
    assert f"{ids[2][:16]} ({uris[ids[2]]}); give more of it" in str(raised.value)
    assert ids[3][:16] not in str(raised.value)


def test_a_path_elsewhere_is_not_the_file_of_that_name_here(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    loose = next(uri for uri in ranking(tmp_path / "w")["uri"] if "loose" in uri and "copy" not in uri)
    name = Path(loose).name
    (tmp_path / "elsewhere.txt").write_text(f"/another/folder/{name}\n")
    with pytest.raises(InputError, match="1 that names no sample"):
        labels.add(store, tmp_path / "elsewhere.txt")
    (tmp_path / "relative.txt").write_text(f"loose/{name}\n")
    assert labels.add(store, tmp_path / "relative.txt").added == 1


def test_every_location_of_a_sample_names_it(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    (tmp_path / "copy.txt").write_text(f"{source}/loose/copy.jpg\n")
    assert labels.add(Store(str(tmp_path / "w")), tmp_path / "copy.txt").added == 1


def test_a_relative_path_is_the_end_of_a_location_and_nothing_less() -> None:
    known = {"/d/cache/x.jpg": "a", "/d/.cache/x.jpg": "b", "/e/deep/er/y.jpg": "c", "x.jpg": "d", "./q'/z": "e"}
    names = pl.DataFrame({"name": list(known), "sample_id": list(known.values())}, schema=NAMES_SCHEMA)
    values = {
        "./cache/x.jpg": ["a"],
        ".cache/x.jpg": ["b"],
        "er/y.jpg": ["c"],
        "eper/y.jpg": [],
        "x.jpg": ["d"],
        "/d/cache/x.jpg": ["a"],
        " 'deep/er/y.jpg ": ["c"],
        "./q'/z": ["e"],
        "c": [],
    }
    matched = match(names, list(values))
    assert dict(matched.iter_rows()) == values
    assert matched["value"].to_list() == list(values)


def test_percent_encoding_is_undone_where_nothing_is_called_so() -> None:
    """Label Studio's YOLO and Pascal VOC exports encode names."""
    known = {"/d/a b.jpg": "a", "/d/c%20d.jpg": "b", "/d/c d.jpg": "c", "/d/é\n.jpg": "d"}
    names = pl.DataFrame({"name": list(known), "sample_id": list(known.values())}, schema=NAMES_SCHEMA)
    values = {"/d/a%20b.jpg": ["a"], "d/c%20d.jpg": ["b"], "d/%C3%A9%0A.jpg": ["d"], "/d/%zz.jpg": []}
    assert dict(match(names, list(values)).iter_rows()) == values


def test_what_is_written_exactly_goes_before_the_end_of_a_path_and_several_are_all_found() -> None:
    rows = [
        ("a/x", "exact"),
        ("/p/a/x", "first"),
        ("/q/a/x", "second"),
        ("x", "first"),
        ("x", "second"),
        ("x", "exact"),
    ]
    names = pl.DataFrame(rows, schema=NAMES_SCHEMA, orient="row")
    assert match(names, ["a/x", "/a/x", "x", "p/a/x"])["sample_ids"].to_list() == [
        ["exact"],
        [],
        ["exact", "first", "second"],
        ["first"],
    ]
    assert match(names.filter(pl.col("name") != "a/x"), ["a/x"])["sample_ids"].to_list() == [["first", "second"]]


def test_a_list_without_a_title_loses_no_line_whatever_its_ending(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    ids = ranking(tmp_path / "w")["sample_id"].head(3).to_list()
    loose = next(uri for uri in ranking(tmp_path / "w")["uri"] if "loose" in uri and "copy" not in uri)
    for first in (ids[0], loose, f"loose/{Path(loose).name}"):
        for name in ("plain.csv", "plain.TSV", "plain.txt", "plain"):
            (tmp_path / name).write_text("\n".join([first, *ids[1:]]))
            assert labels.add(store, tmp_path / name).found == 3
    for header in ("sample_id", "\ufeffSample_ID", "number 1,sample_id", "box.x,sample_id"):
        (tmp_path / "headed.CSV").write_text("\n".join([header, *(f"{header.count(',') * '7,'}{i}" for i in ids)]))
        assert labels.add(store, tmp_path / "headed.CSV").found == 3
    for unknown in ("0" * 64, "nowhere.jpg", "elsewhere/x", "img_0001", "the image"):
        (tmp_path / "unknown.csv").write_text("\n".join([unknown, *ids]))
        shown = unknown if len(unknown) <= 60 else unknown[:57]
        with pytest.raises(InputError, match=f"1 that names no sample.*{shown}"):
            labels.add(store, tmp_path / "unknown.csv")


def test_a_column_with_another_title_is_named_by_the_caller(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    ids = ranking(tmp_path / "w")["sample_id"].head(3).to_list()
    (tmp_path / "a.csv").write_text("\n".join(["The Image", *ids]))
    (tmp_path / "b.tsv").write_text("\n".join(["path\tthe image", *(f"elsewhere.jpg\t{i}" for i in ids)]))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"The image": i, "path": "elsewhere.jpg"}) for i in ids))
    (tmp_path / "d.json").write_text(json.dumps([{"the image": i} for i in ids]))
    pl.DataFrame({"The Image": ids}).write_parquet(tmp_path / "e.parquet")
    for name in ("a.csv", "b.tsv", "c.jsonl", "d.json", "e.parquet"):
        assert labels.add(store, tmp_path / name, Reading(column="the image")).found == 3
    for name, told in (
        ("a.csv", r"no column 'label' among 'The Image' \(--column NAME says which"),
        ("c.jsonl", "names no sample, with the keys 'The image', 'path'"),
    ):
        with pytest.raises(ConfigError, match=told):
            labels.add(store, tmp_path / name, Reading(column="label"))
    (tmp_path / "f.txt").write_text(ids[0])
    with pytest.raises(ConfigError, match="plain text, which has no columns"):
        labels.add(store, tmp_path / "f.txt", Reading(column="label"))


def test_a_file_of_another_form_is_not_printed_back(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    secret = "<image name='" + "secret " * 100
    task = {"id": 1, "annotations": [{"result": "secret " * 100}], "data": {"image": "secret " * 100}}
    for name, text, kind in (
        ("cvat.xml", f"<?xml version='1.0'?>{secret}", ConfigError),
        ("page.txt", f"\n <html>{secret}", ConfigError),
        ("tasks.json", json.dumps([task]), ConfigError),
        ("one.json", json.dumps(task), ConfigError),
        ("broken.json", f"[{secret}", ConfigError),
        ("line.txt", "secret " * 100, InputError),
        ("many.txt", "\n".join(f"secret {i}" for i in range(1000)), InputError),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(kind) as refused:
            labels.add(store, tmp_path / name)
        assert str(refused.value).count("secret") <= 9, name
        assert len(str(refused.value)) < 600 + len(str(tmp_path))


def test_a_table_is_read_by_the_columns_that_name_images_and_by_no_other(source: Path, tmp_path: Path) -> None:
    """A class or an index is the key of a Parquet row too, and the wrong image would be entered."""
    small = pl.DataFrame({"image": [make_jpeg(seed) for seed in range(900, 912)]})
    small.write_parquet(source / "rows.parquet")
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    rows = [f"{source}/rows.parquet#{number}" for number in (7, 8, 9)]
    ids = [sample_id for uri in rows for sample_id in ranking(tmp_path / "w").filter(uri=uri)["sample_id"]]

    def entered(name: str, text: str) -> list[str]:
        before = ledger.length(store)
        (tmp_path / name).write_text(text)
        labels.add(store, tmp_path / name)
        new = ledger.read(store)[before:]
        return ledger.sample_ids(new, "labelled")

    assert entered("a.csv", f"label,image_path\n3,{rows[0]}\n") == ids[:1]
    assert entered("b.csv", f",file,label\n0,{rows[1]},4\n") == ids[1:2]
    assert entered("c.csv", f"index,path\n5,{rows[2]}\n") == ids[2:]
    before = ledger.length(store)
    for name, text, told in (
        ("d.csv", "index,label\n3,1\n5,2\n", "no column that names samples among 'index', 'label'"),
        ("e.csv", "3,cat\n5,dog\n", "no column that names samples among '3', 'cat'"),
        ("f.csv", f"typo,cat\n{rows[0]},dog\n", "no column that names samples among 'typo', 'cat'"),
        ("c2.csv", f"5,{rows[2]}\n", "no column that names samples among '5', "),
        ("g.csv", f"sample_id,path,label\n{ids[0]},,1\n,,2\n", "row 2 names none"),
        ("h.jsonl", f'{{"path": "{rows[0]}"}}\n{{"label": 5}}\n', "an entry that names no sample"),
        ("i.json", json.dumps({"images": [], "annotations": [{"image_id": 7}]}), "an annotation of image 7, which"),
    ):
        with pytest.raises(ConfigError, match=told):
            entered(name, text)
    pl.DataFrame({"index": [3], "label": [1]}).write_parquet(tmp_path / "n.parquet")
    with pytest.raises(ConfigError, match="no column that names samples among 'index', 'label'"):
        labels.add(store, tmp_path / "n.parquet")
    assert ledger.length(store) == before
    for name, text in (
        ("j.csv", f"sample_id,path\n{ids[0]},\n,{rows[1]}\n,{rows[2]}\n"),
        ("k.jsonl", f'{{"sample_id": "{ids[0]}"}}\n\n{{"path": "{rows[1]}"}}\n{{"image_path": "{rows[2]}"}}\n'),
    ):
        (tmp_path / name).write_text(text)
        assert counts(labels.add(store, tmp_path / name)) == (3, 3, 0)


def test_names_are_taken_as_they_are_before_blanks_and_apostrophes_go(source: Path, tmp_path: Path) -> None:
    for name in ("'quote.png", " lead.png"):
        Image.effect_noise((40, 40), 90 + len(name)).save(source / name)
    refresh(tmp_path / "w", source)
    (tmp_path / "odd.json").write_text(json.dumps(["'quote.png", " lead.png"]))
    assert labels.add(Store(str(tmp_path / "w")), tmp_path / "odd.json").found == 2


def test_a_labelling_tools_json_names_samples(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    uris = [uri for uri in ranking(tmp_path / "w")["uri"] if "loose" in uri and "copy" not in uri][:3]
    images = [{"id": number, "file_name": f"loose/{Path(uri).name}"} for number, uri in enumerate(uris)]
    coco = {"images": images, "annotations": [{"id": 1, "image_id": 0}, {"id": 2, "image_id": 0}]}
    cases = [(uris, 3), ([{"label": "cat", "uri": uri} for uri in uris], 3), (coco, 1)]
    for number, (told, found) in enumerate(cases):
        (tmp_path / f"{number}.JSON").write_text(json.dumps(told))
        assert labels.add(store, tmp_path / f"{number}.JSON").found == found
    for wrong in ([{"label": "cat"}], [3], {"tasks": []}, {"images": [{}], "annotations": []}, "x"):
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=r"JSON list of names.*COCO.*check the file"):
            labels.add(store, tmp_path / "wrong.json")


def test_the_images_of_coco_are_named_by_a_column_in_any_case(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    ids = ranking(tmp_path / "w")["sample_id"].head(2).to_list()
    file = tmp_path / "coco.json"
    images = [{"id": number, "Stem": sample_id} for number, sample_id in enumerate(ids)]
    file.write_text(json.dumps({"images": images, "annotations": [{"id": 1, "image_id": 1}]}))
    for column in ("Stem", "stem"):
        assert labels.add(store, file, Reading(column=column)).found == 1
    assert ledger.sample_ids(ledger.read(store), "labelled") == ids[1:]
    for column, missing in ((None, "file_name"), ("Label", "label")):
        with pytest.raises(ConfigError, match=f"no value of '{missing}': .* with the keys 'id', 'Stem'; expected"):
            labels.add(store, file, Reading(column=column))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_each_of_its_encodings(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps(["été.jpg", "b.jpg"], ensure_ascii=False), encoding=encoding)
    assert label_files.read(file).names == ["été.jpg", "b.jpg"]
