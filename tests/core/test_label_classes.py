"""Labels with classes into the ledger and out of it: conflicts, corrections, what is kept aside, undoing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_jpeg
from tests.plain_refresh import ranking, refresh
from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import labels, table_files
from wtl_core.labelling.formats.rows import Classes, Reading
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

HOSTILE = ['two\nlines "q".jpg', "=cmd|'x'.jpg", "שלום\u202e.jpg", "<b>&amp;.jpg", "a;b|c,d.jpg", "été 日本.jpg"]


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos` with 0.jpg to 7.jpg and hostile names, and a workspace `w` of it."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "photos").mkdir()
    for number, name in enumerate([*(f"{number}.jpg" for number in range(8)), *HOSTILE]):
        (folder / "photos" / name).write_bytes(make_jpeg(number))
    refresh(folder / "w", folder / "photos")
    return folder


@pytest.fixture
def store(refreshed: Path, tmp_path: Path) -> Store:
    """A copy of the workspace, with an empty ledger."""
    shutil.copytree(refreshed / "w", tmp_path / "w")
    return Store(str(tmp_path / "w"))


def table(folder: Path, **classes: object) -> Path:
    """A table that gives `i1` for 1.jpg and so on."""
    rows = [{"path": f"{name[1:]}.jpg", "label": given} for name, given in classes.items()]
    file = folder / "t.json"
    file.write_text(json.dumps(rows))
    return file


def now(store: Store) -> dict[str, Classes]:
    """The present classes by the name of the image."""
    rows = labels.listed(store).select("uri", "classes").rows()
    return {Path(uri).name: None if names is None else tuple(names) for uri, names in rows}


def test_classes_are_entered_counted_and_listed_with_their_file(store: Store, tmp_path: Path) -> None:
    file = table(tmp_path, i1="cat", i2=["dog", "cat"], i3="empty", i4=None)
    added = labels.add(store, file)
    assert (added.named, added.found, added.added, added.bare, added.entry) == (3, 3, 3, 1, 1)
    assert added.classes == {"cat": 2, "dog": 1, "empty": 1}
    assert (added.unknown, added.corrected, added.completed, added.left_out) == (0, 0, 0, 0)
    assert now(store) == {"1.jpg": ("cat",), "2.jpg": ("cat", "dog"), "3.jpg": ()}
    listed = labels.listed(store)
    assert listed["origin"].to_list() == [str(file)] * 3
    assert listed["entry"].to_list() == [1] * 3
    assert labels.as_text(listed).sort("uri")["classes"].to_list() == ["cat", '["cat", "dog"]', "empty"]


def test_a_second_file_corrects_completes_or_says_nothing_new(store: Store, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("1.jpg\n2.jpg\n")
    assert labels.add(store, tmp_path / "names.txt").unknown == 2
    first = labels.add(store, table(tmp_path, i1="cat", i3="cat"))
    assert (first.added, first.completed, first.corrected) == (1, 1, 0)
    second = labels.add(store, table(tmp_path, i1="dog", i3=["cat"], i4="empty"))
    assert (second.added, second.completed, second.corrected) == (1, 0, 1)
    assert now(store) == {"1.jpg": ("dog",), "2.jpg": None, "3.jpg": ("cat",), "4.jpg": ()}
    again = labels.add(store, tmp_path / "names.txt")  # it knows no classes, and takes none away
    assert (again.added, again.corrected, again.entry) == (0, 0, 0)
    assert ledger.length(store) == 3
    assert now(store)["1.jpg"] == ("dog",)


def test_an_image_with_two_labels_in_one_file_is_told_and_nothing_is_entered(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("path,label\n1.jpg,cat\n2.jpg,cat\nphotos/1.jpg,dog\n2.jpg,cat\n3.jpg,cat\n3.jpg,empty\n")
    told = r"found 2 with different ones \('photos/1\.jpg' 'cat' and 'dog'; '3\.jpg' 'cat' and empty\).*--several"
    with pytest.raises(InputError, match=told):
        labels.add(store, file)
    assert ledger.length(store) == 0
    assert labels.add(store, file, Reading(adds_up=True)).classes == {"cat": 3, "dog": 1}
    assert now(store) == {"1.jpg": ("cat", "dog"), "2.jpg": ("cat",), "3.jpg": ("cat",)}


@pytest.mark.parametrize("other", ["BUS", "bus ", "B\u200bus", "Ｂus"])
def test_a_class_in_two_spellings_is_told_and_nothing_is_entered(store: Store, tmp_path: Path, other: str) -> None:
    file = table(tmp_path, i1="Bus", i2="Bus", i3=other, i4="tram")
    with pytest.raises(InputError) as refused:
        labels.add(store, file)
    assert f"expected one spelling of each class, found 'Bus' (2), {other!r} (1); --rename" in str(refused.value)
    assert "--distinct takes them for different classes; nothing is entered" in str(refused.value)
    assert ledger.length(store) == 0
    labels.add(store, file, Reading(renamed={other: "Bus"}))
    assert now(store)["3.jpg"] == ("Bus",)


def test_the_way_out_that_is_told_is_taken(store: Store, tmp_path: Path) -> None:
    """The ledger has one spelling, the file the other; a table whose column had a gap turned 3 into 3.0."""
    for number, (before, later) in enumerate((("cat", "Cat"), ("3", "3.0"))):
        labels.add(store, table(tmp_path, **{f"i{2 * number + 1}": before}))
        file = table(tmp_path, **{f"i{2 * number + 2}": later})
        with pytest.raises(InputError, match=f"--rename '{later}={before}' takes one for the other"):
            labels.add(store, file)
        assert labels.add(store, file, Reading(renamed={later: before})).classes == {before: 1}
    labels.add(store, table(tmp_path, i1="1", i2="-1"))  # numbers of two signs are two classes


def test_a_spelling_that_the_ledger_lacks_is_told_until_it_is_settled(store: Store, tmp_path: Path) -> None:
    labels.add(store, table(tmp_path, i1="traffic_light", i2="a"))
    for reading in (None, Reading(renamed={"x": "y"})):
        with pytest.raises((InputError, ConfigError), match=r"'traffic_light' \(1\)|--rename expected classes of the"):
            labels.add(store, table(tmp_path, i3="Traffic Light"), reading)
    assert ledger.length(store) == 1
    labels.add(store, table(tmp_path, i1="Traffic Light", i3="Traffic Light"))  # none is left of the other spelling
    labels.add(store, table(tmp_path, i4="A"), are_distinct=True)
    labels.add(store, table(tmp_path, i5="A", i6="a"))  # settled before
    assert now(store) == {
        "1.jpg": ("Traffic Light",),
        "2.jpg": ("a",),
        "3.jpg": ("Traffic Light",),
        "4.jpg": ("A",),
        "5.jpg": ("A",),
        "6.jpg": ("a",),
    }


def test_a_class_called_empty_means_an_image_without_any(store: Store, tmp_path: Path) -> None:
    reading = Reading(renamed={"background": "empty"})
    file = table(tmp_path, i1="background", i2=["Empty", "background"], i3=["Empty", "cat"], i4=["cat", "background"])
    told = r"found 2 with different ones \('3\.jpg' empty and 'cat'; '4\.jpg' empty and 'cat'\)"
    with pytest.raises(InputError, match=told):
        labels.add(store, file, reading)
    assert ledger.length(store) == 0
    labels.add(store, file, replace(reading, adds_up=True))
    assert now(store) == {"1.jpg": (), "2.jpg": (), "3.jpg": ("cat",), "4.jpg": ("cat",)}


def test_rows_that_name_no_image_are_kept_aside_and_the_rest_goes_in_when_asked(store: Store, tmp_path: Path) -> None:
    file = table(tmp_path, i1="cat", **{f"n{HOSTILE[0]}": "dog", "nnowhere": "dog"})
    aside = tmp_path / "t.json.unmatched.csv"
    with pytest.raises(InputError, match=r"2 that name no sample of the pool.*--partial enters the others; these are"):
        labels.add(store, file)
    assert ledger.length(store) == 0
    kept = pl.read_csv(aside)
    assert kept.columns == ["path", "classes", "why"]
    assert kept["path"].to_list() == [f"{HOSTILE[0]}.jpg", "nowhere.jpg"]
    assert kept["classes"].to_list() == ["dog", "dog"]
    assert kept["why"].to_list() == ["names no sample"] * 2
    added = labels.add(store, file, is_partial=True)
    assert (added.named, added.found, added.added, added.left_out, added.aside) == (3, 1, 1, 2, str(aside))
    with pytest.raises(InputError, match="2 that name no sample"):  # of what is kept aside nothing fits as yet
        labels.add(store, aside, is_partial=True)
    before = aside.read_bytes()
    with pytest.raises(ConfigError, match=r"expected another file .* than the one that is read, which would be lost"):
        labels.add(store, aside, is_partial=True, aside=aside)
    assert aside.read_bytes() == before
    kept.with_columns(path=pl.Series(["3.jpg", "2.jpg"])).write_csv(aside)
    mended = aside.read_bytes()
    for _ in range(2):  # what was mended stays, and what is the same is written once
        again = labels.add(store, file, is_partial=True)
        assert (aside.read_bytes(), Path(again.aside).name) == (mended, "t.json.unmatched-2.csv")
    assert (tmp_path / "t.json.unmatched-2.csv").read_bytes() == before
    assert labels.add(store, aside).added == 2
    assert now(store) == {"1.jpg": ("cat",), "2.jpg": ("dog",), "3.jpg": ("dog",)}


def test_a_folder_that_has_no_name_of_its_own_keeps_what_is_left_out_beside_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "yolo"
    folder.mkdir()
    for name, text in (("1.txt", "0 1 1 1 1"), ("nowhere.txt", "0 1 1 1 1"), ("classes.txt", "cat")):
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    assert labels.add(store, Path(), is_partial=True).aside == str(tmp_path / "yolo.unmatched.csv")


def test_an_image_whose_name_the_tool_changed_is_found_by_its_task(store: Store, tmp_path: Path) -> None:
    ids = ranking(Path(store.root))["sample_id"].to_list()
    links = [f"http://tool/projects/4/data?task={number}" for number in (11, 12)]
    ledger.append_from_tool(store, "placed", ids[:2], origins=links)
    ledger.append_from_tool(store, "placed", ids[2:3], origins=["http://other/projects/4/data?task=12"])
    value = {"from_name": "c", "type": "choices", "value": {"choices": ["cat"]}}

    def export(task: int, image: str) -> Path:
        entry = {"id": task, "project": 4, "data": {"image": image}, "annotations": [{"result": [value]}]}
        (tmp_path / "ls.json").write_text(json.dumps([entry]))
        return tmp_path / "ls.json"

    assert labels.add(store, export(11, "/data/upload/4/3f2-x.jpg")).added == 1
    assert labels.listed(store)["sample_id"].to_list() == ids[:1]
    assert labels.add(store, export(11, "1.jpg")).added == 1  # a name that fits goes before the task
    for task in (12, 13):  # one of two tools, and none
        with pytest.raises(InputError, match="found 1 that names no sample"):
            labels.add(store, export(task, "/data/upload/4/3f2-x.jpg"))


def test_names_without_classes_are_kept_aside_without_classes(store: Store, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("1.jpg\nnowhere.jpg\n")
    assert labels.add(store, tmp_path / "names.txt", is_partial=True).unknown == 1
    assert pl.read_csv(tmp_path / "names.txt.unmatched.csv").columns == ["path", "why"]


def test_yolos_files_are_named_like_their_images_whatever_the_folders(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "yolo" / "labels" / "train"
    folder.mkdir(parents=True)
    (tmp_path / "yolo" / "classes.txt").write_text("car\nbus\n")
    for name, line in (
        ("1", "0 .1 .1 .1 .1"),
        ("2", "1 .1 .1 .1 .1"),
        ("%C3%A9t%C3%A9%20日本", "1 .1 .1 .1 .1"),
        ("3", ""),
    ):
        (folder / f"{name}.txt").write_text(line)
    added = labels.add(store, tmp_path / "yolo")
    assert (added.added, added.bare) == (3, 1)
    assert now(store) == {"1.jpg": ("car",), "2.jpg": ("bus",), "été 日本.jpg": ("bus",)}
    (folder / "nowhere.txt").write_text("0 .1 .1 .1 .1")
    with pytest.raises(InputError, match="1 that names no sample of the pool"):
        labels.add(store, tmp_path / "yolo")


def test_hostile_names_go_through_the_whole_circle(store: Store, refreshed: Path, tmp_path: Path) -> None:
    given = {name: (f"class {name}",) for name in HOSTILE}
    rows = [{"path": str(refreshed / "photos" / name), "label": classes[0]} for name, classes in given.items()]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    labels.add(store, tmp_path / "t.json")
    assert now(store) == given
    for ending in table_files.ENDINGS:
        listed = labels.listed(store)
        table_files.write(labels.as_text(listed) if ending in (".csv", ".tsv") else listed, tmp_path / f"out{ending}")
        again = labels.add(store, tmp_path / f"out{ending}")
        assert (again.found, again.added, again.corrected) == (len(HOSTILE), 0, 0), ending


def test_undoing_takes_back_the_last_addition_that_counts_and_then_the_one_before(store: Store, tmp_path: Path) -> None:
    labels.add(store, table(tmp_path, i1="cat", i2="cat"))
    labels.add(store, table(tmp_path, i1="dog", i3="dog"))
    undone = labels.undo(store)
    assert (undone.entry, undone.samples, undone.labelled) == (2, 2, 1)
    assert undone.origin == str(tmp_path / "t.json")
    assert now(store) == {"1.jpg": ("cat",), "2.jpg": ("cat",)}
    assert labels.undo(store).entry == 1
    assert now(store) == {}
    with pytest.raises(ConfigError, match="expected labels to take back, found none; nothing is undone"):
        labels.undo(store)
    labels.add(store, table(tmp_path, i1="tram"))
    assert now(store) == {"1.jpg": ("tram",)}
    assert ledger.length(store) == 5


def test_an_addition_is_undone_by_its_number_and_images_by_their_names(store: Store, tmp_path: Path) -> None:
    labels.add(store, table(tmp_path, i1="cat", i2="cat"))
    labels.add(store, table(tmp_path, i3="dog"))
    assert labels.undo(store, ["2.jpg", "photos/2.jpg"]).samples == 1
    assert now(store) == {"1.jpg": ("cat",), "3.jpg": ("dog",)}
    for wrong in ("2.jpg", "nowhere.jpg"):
        with pytest.raises(ConfigError, match=r"expected names of labelled images, found others \('.*'\); nothing"):
            labels.undo(store, ["1.jpg", wrong])
    assert labels.undo(store, entry=1).samples == 1
    for entry in (1, 3, 9):
        with pytest.raises(ConfigError, match=f"expected an addition with labels that count, found entry {entry} with"):
            labels.undo(store, entry=entry)
    assert now(store) == {"3.jpg": ("dog",)}


def test_undone_images_are_ranked_again(store: Store, refreshed: Path, tmp_path: Path) -> None:
    before = ranking(Path(store.root))["sample_id"].to_list()
    labels.add(store, table(tmp_path, i1="cat", i2="cat"))
    assert refresh(Path(store.root)).counts.ranked == len(before) - 2
    labels.undo(store)
    refresh(Path(store.root))
    assert ranking(Path(store.root))["sample_id"].to_list() == before


steps = st.lists(
    st.one_of(
        st.dictionaries(
            st.sampled_from("12345"), st.one_of(st.none(), st.sampled_from(["cat", "dog", "empty"])), min_size=1
        ),
        st.just("undo"),
        st.lists(st.sampled_from("12345"), min_size=1, max_size=3, unique=True),
    ),
    max_size=6,
)


@settings(max_examples=15, deadline=None)
@given(steps)
def test_any_sequence_of_additions_and_undoings_comes_to_what_it_should(
    refreshed: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[object]
) -> None:
    """A plain model: additions that still count, oldest first, each with what it gave."""
    folder = tmp_path_factory.mktemp("steps")
    shutil.copytree(refreshed / "w", folder / "w")
    store = Store(str(folder / "w"))
    layers: list[dict[str, Classes]] = []

    def model() -> dict[str, Classes]:
        return {name: classes for layer in layers for name, classes in layer.items()}

    for step in steps:
        if isinstance(step, dict):
            file = folder / "t.json"
            file.write_text(json.dumps([f"{name}.jpg" for name, label in step.items() if label is None]))
            known = {name: label for name, label in step.items() if label is not None}
            for wanted in (known, {name: None for name, label in step.items() if label is None}):
                if not wanted:
                    continue
                if wanted is known:
                    labels.add(store, table(folder, **{f"i{name}": label for name, label in known.items()}))
                else:
                    file.write_text(json.dumps([f"{name}.jpg" for name in wanted]))
                    labels.add(store, file)
                before = model()
                layer: dict[str, Classes] = {}
                for name, label in wanted.items():
                    classes = None if label is None else () if label == "empty" else (label,)
                    if name not in before or (classes is not None and classes != before[name]):
                        layer[name] = classes
                layers += [layer] if layer else []
        elif step == "undo":
            standing = model()
            if not standing:
                with pytest.raises(ConfigError):
                    labels.undo(store)
                continue
            last = max(number for name in standing for number, layer in enumerate(layers) if name in layer)
            labels.undo(store)
            layers[last] = {}
        else:
            assert isinstance(step, list)
            if not set(step) <= model().keys():
                continue
            labels.undo(store, [f"{name}.jpg" for name in step])
            layers = [{name: classes for name, classes in layer.items() if name not in step} for layer in layers]
    assert now(store) == {f"{name}.jpg": classes for name, classes in model().items()}
