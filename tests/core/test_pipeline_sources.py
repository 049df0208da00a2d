"""Refreshes of several sources: joined, vanished, unmounted, forgotten, inside each other."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import make_jpeg
from tests.plain_refresh import files, ranking, refresh
from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import arrivals
from wtl_core.workspace import commits
from wtl_core.workspace.accounts import SourceAccounts
from wtl_core.workspace.storage import Store


def test_a_second_source_joins_and_the_first_stays_untouched(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    assert refresh(tmp_path / "w", tmp_path / "more").counts.samples == 65
    assert commits.latest(Store(str(tmp_path / "w"))).sources == [str(tmp_path / "more"), str(source)]  # type: ignore[union-attr]


def test_an_unmounted_source_is_refused_unless_removal_is_allowed(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    shutil.rmtree(source / "loose")
    with pytest.raises(InputError, match="--allow-removal"):
        refresh(tmp_path / "w", source)
    assert refresh(tmp_path / "w", source, allow_removal=True).counts.samples < 64


def test_what_was_refused_for_want_of_its_files_is_taken_in_once_they_are_there(tmp_path: Path) -> None:
    """The list itself does not change, and no commit holds the refused part."""
    (tmp_path / "lists").mkdir()
    pq.write_table(pa.table({"path": [f"../images/{i}.jpg" for i in range(5)]}), tmp_path / "lists" / "a.parquet")
    for _ in range(2):
        with pytest.raises(InputError, match="5 refused"):
            refresh(tmp_path / "w", tmp_path / "lists")
    (tmp_path / "images").mkdir()
    for i in range(5):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(make_jpeg(i))
    first = refresh(tmp_path / "w", tmp_path / "lists")
    assert first.counts.samples == 5
    assert refresh(tmp_path / "w") == first


def test_new_limits_for_images_do_not_empty_a_source_that_is_away(source: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    refresh(tmp_path / "w", source, tmp_path / "more")
    (tmp_path / "more").rename(tmp_path / "away")
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"thumbnail_px": 64}})
    with pytest.raises(ConfigError, match="--forget"):
        refresh(tmp_path / "w", source, recipe=recipe)
    (tmp_path / "away").rename(tmp_path / "more")
    assert refresh(tmp_path / "w", source, recipe=recipe).counts.samples == 65


def test_a_workspace_inside_its_source_is_skipped(source: Path, tmp_path: Path) -> None:
    refresh(source / "w", source)
    first = commits.latest(Store(str(source / "w")))
    assert refresh(source / "w", source) == first


def test_a_source_inside_another_may_be_known_by_both(source: Path, tmp_path: Path) -> None:
    """The outer one takes over the inner one's objects, which have not vanished."""
    refresh(tmp_path / "w", source / "loose")
    refresh(tmp_path / "w", source)
    before = files(tmp_path / "w")
    last = refresh(tmp_path / "w")
    assert last.counts.samples == 64
    assert last.number <= 3
    assert refresh(tmp_path / "w").number == last.number
    seen = arrivals.look(Store(str(tmp_path / "w")), [str(source / "loose")])
    assert not seen.is_pending
    assert before.keys() <= files(tmp_path / "w").keys()


def test_links_into_an_unmounted_disk_have_vanished_too(tmp_path: Path) -> None:
    """The links are still listed: only where they lead is gone."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "source").mkdir()
    for i in range(9):
        (tmp_path / "disk" / f"{i}.jpg").write_bytes(make_jpeg(i))
        (tmp_path / "source" / f"link-{i}.jpg").symlink_to(tmp_path / "disk" / f"{i}.jpg")
    (tmp_path / "source" / "own.jpg").write_bytes(make_jpeg(10))
    refresh(tmp_path / "w", tmp_path / "source")
    (tmp_path / "disk").rename(tmp_path / "away")
    with pytest.raises(InputError, match="9 of 10 known objects have vanished"):
        refresh(tmp_path / "w")
    assert refresh(tmp_path / "w", allow_removal=True).counts.samples == 1
    (tmp_path / "away").rename(tmp_path / "disk")
    assert refresh(tmp_path / "w").counts.samples == 10


def test_a_list_whose_files_vanished_is_refused_and_one_that_is_shorter_is_not(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(10)]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(make_jpeg(i))
    target = tmp_path / "list.txt"
    target.write_text("\n".join([*names, *(f"never-there-{i}.jpg" for i in range(20))]))
    refresh(tmp_path / "w", target)
    target.write_text("\n".join(names))  # what never was there cannot vanish
    assert refresh(tmp_path / "w").counts.quarantined == 0
    for name in names[:6]:
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="6 of 10 known objects have vanished"):
        refresh(tmp_path / "w")


def test_accounts_by_source_add_up_to_the_accounts(source: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    (tmp_path / "more" / "y.jpg").write_bytes(b"junk")
    record = refresh(tmp_path / "w", source, tmp_path / "more")
    assert record.by_source == {
        str(tmp_path / "more"): SourceAccounts(read=2, locations=2, quarantined=1, ignored=0),
        str(source): SourceAccounts(read=67, locations=66, quarantined=1, ignored=1),
    }
    for name in ("read", "locations", "quarantined", "ignored"):
        assert sum(getattr(counts, name) for counts in record.by_source.values()) == getattr(record.counts, name)


def test_a_source_that_was_deleted_can_be_forgotten(source: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "x.jpg").write_bytes(make_jpeg(77_777))
    (more / "y.jpg").write_bytes(make_jpeg(0))  # the other source has it too
    refresh(tmp_path / "w", source)
    before = ranking(tmp_path / "w")
    assert refresh(tmp_path / "w", more).counts.duplicates == 2
    shutil.rmtree(more)
    with pytest.raises(ConfigError, match=f"wtl run --forget {more}$"):
        refresh(tmp_path / "w")
    record = refresh(tmp_path / "w", forget=[str(more)])
    assert (record.sources, record.counts.samples, record.counts.duplicates) == ([str(source)], 64, 1)
    assert ranking(tmp_path / "w").equals(before)
    assert refresh(tmp_path / "w") == record


def test_forgetting_makes_no_sense_of_what_is_not_known_or_named_too(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    with pytest.raises(ConfigError, match="expected a source of this workspace to forget"):
        refresh(tmp_path / "w", forget=[str(tmp_path / "other")])
    with pytest.raises(ConfigError, match="found both"):
        refresh(tmp_path / "w", source, forget=[str(source)])
    with pytest.raises(ConfigError, match="none named and none left"):
        refresh(tmp_path / "w", forget=[str(source)])


def test_what_a_forgotten_source_had_taken_over_goes_back(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source / "loose")
    refresh(tmp_path / "w", source)
    record = refresh(tmp_path / "w", forget=[str(source)])
    assert record.counts.read == len(list((source / "loose").iterdir()))


def test_what_another_source_holds_too_stays_when_a_third_one_is_named(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source, source / "loose")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    record = refresh(tmp_path / "w", tmp_path / "more", forget=[str(source)])
    assert record.counts.read == len(list((source / "loose").iterdir())) + 1
    assert refresh(tmp_path / "w") == record
