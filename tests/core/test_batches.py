"""Batches: which images are handed out, once each, and that controls are a uniform draw of the pool."""

import shutil
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import build_source, write_pictures
from tests.plain_refresh import ranking, refresh
from tests.small_batches import write_batch
from wtl_core.errors import ConfigError
from wtl_core.labelling import batches, labels
from wtl_core.labelling.batches import Asked
from wtl_core.selection.control_draw import Draw, control_ids, random_draw
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace `w` of 64 images."""
    folder = tmp_path_factory.mktemp("batches")
    refresh(folder / "w", build_source(folder / "source"))
    return folder


@pytest.fixture
def store(refreshed: Path, tmp_path: Path) -> Store:
    shutil.copytree(refreshed / "w", tmp_path / "w")
    return Store(str(tmp_path / "w"))


def ids_of(batch: batches.Batch) -> list[str]:
    return batch.table["sample_id"].to_list()


def test_batches_hand_out_the_ranking_from_its_begin_and_no_image_twice(store: Store) -> None:
    ranked = ranking(Path(store.root))["sample_id"].to_list()
    ledger.append(store, "labelled", ranked[2:4])
    first = batches.hand_out(store, Asked(new=10))
    assert (first.name, first.is_new) == ("batch-001", True)
    assert ids_of(first) == [*ranked[:2], *ranked[4:12]]
    assert first.table["place"].to_list() == list(range(1, 11))
    assert first.table["why"][0] == f"stands for {ranking(Path(store.root))['stands_for'][0]} images"
    second = batches.hand_out(store, Asked(new=5, name="Monday"))
    assert (second.name, ids_of(second)) == ("Monday", ranked[12:17])
    third = batches.hand_out(store, Asked(at="20"))  # of the first 20 that are not labelled
    assert (third.name, ids_of(third)) == ("batch-003", ranked[17:22])
    assert ids_of(batches.hand_out(store, Asked(at="10", name="empty"))) == []
    rest = batches.hand_out(store, Asked(new=1000))
    assert ids_of(rest) == ranked[22:]
    assert batches.listed(store).select("batch", "images", "back", "out").rows() == [
        ("batch-001", 10, 0, 10),
        ("Monday", 5, 0, 5),
        ("batch-003", 5, 0, 5),
        ("batch-004", 42, 0, 42),
    ]


def test_the_same_call_gives_the_same_batch_and_no_second_entry(store: Store) -> None:
    asked = Asked(new=12, control="25%")
    dry = batches.hand_out(store, asked, is_dry=True)
    assert ledger.length(store) == 0
    first = batches.hand_out(store, asked)
    assert first.table.equals(dry.table)
    ledger.append(store, "labelled", ids_of(first)[:3])
    again = batches.hand_out(store, asked)
    named = batches.hand_out(store, Asked(new=12, control="25%", name="batch-001"))
    assert (again.is_new, named.is_new) == (False, False)
    assert again.table.equals(first.table)
    assert named.table.equals(first.table)
    assert ledger.length(store) == 2
    assert batches.listed(store).select("images", "controls", "back", "out").row(0) == (12, 3, 3, 9)
    with pytest.raises(ConfigError, match="expected the name of a new batch, found 'batch-001', which holds other"):
        batches.hand_out(store, Asked(new=13, name="batch-001"))


def test_the_next_ranking_gives_another_batch_and_leaves_the_handed_out_in_front(store: Store) -> None:
    first = batches.hand_out(store, Asked(new=6))
    assert refresh(Path(store.root)).number == 2
    assert ranking(Path(store.root))["sample_id"].to_list()[:6] == ids_of(first)
    second = batches.hand_out(store, Asked(new=6))
    assert second.is_new
    assert not set(ids_of(first)) & set(ids_of(second))


def test_a_file_that_was_lost_is_written_from_a_later_ranking_too(tmp_path: Path) -> None:
    root, folder = tmp_path / "w", write_pictures(tmp_path / "photos", count=20)
    refresh(root, folder)
    store = Store(str(root))
    first = batches.hand_out(store, Asked(new=6, control="1"))
    ledger.append(store, "labelled", ids_of(first)[:2])
    Path(first.table["uri"][4]).unlink()
    refresh(root)
    again = batches.hand_out(store, Asked(new=6, control="1", name="batch-001"))
    assert (again.name, again.is_new) == ("batch-001", False)
    there = first.table.filter(pl.col("place") != 5)
    same = ("batch", "place", "is_control", "sample_id", "uri")
    assert again.table.select(same).equals(there.select(same))
    assert again.table["rank"].to_list()[:2] == [None, None]
    told = {"picked from an earlier ranking", "drawn at random, as a control"}
    assert set(again.table["why"][:2]) <= told
    for name, form in (("b.csv", None), ("b.json", "label-studio")):
        write_batch(store, again, tmp_path / name, form)
    assert labels.add(store, tmp_path / "b.csv").added == 3
    with pytest.raises(ConfigError, match="expected the name of a new batch, found 'batch-001', which holds other"):
        batches.hand_out(store, Asked(new=6, name="batch-001"))
    assert batches.hand_out(store, Asked(new=6, control="1")).is_new  # the next ones, by the next ranking


def test_controls_stand_between_the_picks_and_come_in_an_order_of_the_ids_alone(store: Store) -> None:
    ranked = ranking(Path(store.root))["sample_id"].to_list()
    batch = batches.hand_out(store, Asked(new=20, control="20%"))
    controls = batch.table.filter("is_control")
    assert controls.height == 4
    assert set(controls["why"]) == {"drawn at random, as a control"}
    assert np.diff(controls["place"].to_numpy()).tolist() == [5, 5, 5]
    picks = batch.table.filter(~pl.col("is_control"))["sample_id"].to_list()
    assert picks == [sample_id for sample_id in ranked if sample_id not in set(controls["sample_id"])][:16]
    entries = ledger.read(store)
    assert control_ids(entries, ranked) == controls["sample_id"].to_list()
    assert control_ids(entries, ranked[::-1]) == controls["sample_id"].to_list()
    assert control_ids(ledger.read(store, 0), ranked) == []


def test_controls_of_several_batches_are_a_prefix_of_one_random_order_with_the_picks_in_it(store: Store) -> None:
    ranked = ranking(Path(store.root))["sample_id"].to_list()
    for _ in range(3):
        batch = batches.hand_out(store, Asked(new=8, control="25%", name=f"b{ledger.length(store)}"))
        ledger.append(store, "labelled", ids_of(batch))
    entries = ledger.read(store)
    drawn = entries.filter(pl.col("is_control").fill_null(value=False))["sample_id"].to_list()
    sample = control_ids(entries, ranked)
    assert len(drawn) == 6
    assert set(drawn) <= set(sample)
    assert [sample_id for sample_id in sample if sample_id in set(drawn)] == drawn
    handed_out = set(entries.filter(pl.col("kind") == "exported")["sample_id"])
    assert set(sample) <= handed_out  # nothing of the draw is without a label
    assert sample[-1] == drawn[-1]


def entry(number: int, kind: str, ids: Sequence[str], *, controls: Collection[str] = ()) -> pl.DataFrame:
    """Rows of the ledger as `ledger.read` returns them."""
    columns = {
        "sample_id": list(ids),
        "is_control": [sample_id in controls for sample_id in ids] if kind == "exported" else [None] * len(ids),
    }
    others = [pl.lit(None, kind_).alias(name) for name, kind_ in ledger.SCHEMA.items() if name not in columns]
    rows = pl.DataFrame(columns, schema={name: ledger.SCHEMA[name] for name in columns}).with_columns(others)
    return rows.with_columns(kind=pl.lit(kind), entry=pl.lit(number, pl.Int64)).select(list(ledger.SCHEMA))


def in_random_order(ids: Sequence[str]) -> list[str]:
    return control_ids(entry(1, "exported", ids, controls=ids), ids)


def test_controls_show_the_classes_of_the_pool_without_bias() -> None:
    """Of a thousand pools, each with its own ids, the share of a class among the first 30 of the order."""
    shares = []
    for pool in range(1000):
        order = in_random_order([f"{pool}-{number}" for number in range(200)])
        shares.append(np.mean([int(sample_id.split("-")[1]) < 40 for sample_id in order[:30]]))
    assert abs(np.mean(shares) - 0.2) < 4 * np.std(shares) / np.sqrt(1000)
    assert np.std(shares) == pytest.approx(np.sqrt(0.2 * 0.8 / 30 * (1 - 30 / 200)), rel=0.1)


def test_the_draw_is_unbiased_in_a_pool_that_grew_where_all_labels_together_are_not() -> None:
    """Three hundred pools of 200 images, of which 40 are rare; 200 more come, 40 of them rare; picks are the rare ones.

    A batch of picks and controls is labelled before the others come, one after. The draws are of equal weight by image.
    """

    def is_rare(sample_id: str) -> bool:
        return int(sample_id.split("-")[1]) % 200 < 40

    before, after, naive = [], [], []
    for pool in range(300):
        ids = [f"{pool}-{number}" for number in range(400)]
        picks = [ids[:30], ids[200:230]]
        first = [sample_id for sample_id in in_random_order(ids[:200]) if sample_id not in picks[0]][:30]
        entries = [
            entry(1, "exported", [*picks[0], *first], controls=first),
            entry(2, "labelled", [*picks[0], *first]),
            entry(3, "exported", picks[1]),
            entry(4, "labelled", picks[1]),
        ]
        table = pl.concat(entries)
        labelled = set(ledger.sample_ids(table, "labelled"))
        naive += [sample_id for sample_id in control_ids(table, ids) if sample_id in labelled]
        short = random_draw(table, ids)
        before += short.ids
        assert set(short.behind) == labelled.intersection(control_ids(table, ids)).difference(short.ids)
        second = [sample_id for sample_id in in_random_order(ids) if sample_id not in labelled][:80]
        assert second[: len(short.missing)] == short.missing  # controls fill the gaps first
        entries += [entry(5, "exported", second, controls=second), entry(6, "labelled", second)]
        whole = random_draw(pl.concat(entries), ids)
        assert (whole.missing, whole.behind) == ([], [])
        after += whole.ids
    assert np.mean(list(map(is_rare, naive))) > 0.25
    assert len(before) < 300 * 5
    assert len(after) > 300 * 110
    assert np.mean(list(map(is_rare, after))) == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / len(after)))


def test_the_draw_ends_before_the_first_image_that_is_not_labelled() -> None:
    ids = [str(number) for number in range(40)]
    order = in_random_order(ids)
    out = entry(1, "exported", order[:10], controls=[*order[:4], *order[5:10]])  # the fifth is a pick

    def draw(*labelled: Sequence[str]) -> Draw:
        return random_draw(
            pl.concat([out, *(entry(number, "labelled", ids) for number, ids in enumerate(labelled, 2))]), ids
        )

    assert draw(order[:10]) == Draw(order[:10], [], [])
    assert draw() == Draw([], order[:10], [])
    assert draw([*order[:4], *order[5:8]]) == Draw(order[:4], [order[4], *order[8:10]], order[5:8])
    assert draw(order[:5]) == Draw(order[:4], order[5:10], [order[4]])  # a pick does not end it
    assert draw(order[3:12]) == Draw([], order[:3], order[3:10])
    assert draw(order[3:12], order[:3]).ids == order[:10]


def test_calls_without_a_name_give_batches_of_calls_without_a_name_alone(store: Store) -> None:
    named = batches.hand_out(store, Asked(new=5, name="B"))
    first = batches.hand_out(store, Asked(new=5))
    assert (first.name, first.is_new, first.table.height) == ("batch-002", True, 5)
    assert not set(ids_of(first)) & set(ids_of(named))
    batches.hand_out(store, Asked(new=5, name="C"))
    again = batches.hand_out(store, Asked(new=5))
    assert (again.name, again.is_new) == ("batch-002", False)
    assert again.table.equals(first.table)
    assert batches.hand_out(store, Asked(new=5, name="B")).table.equals(named.table)


def test_an_undone_label_is_out_again_and_in_no_second_batch(store: Store, tmp_path: Path) -> None:
    first = batches.hand_out(store, Asked(new=4))
    pl.DataFrame({"sample_id": ids_of(first), "label": ["a"] * 4}).write_csv(tmp_path / "t.csv")
    labels.add(store, tmp_path / "t.csv")
    assert batches.listed(store)["back"].to_list() == [4]
    labels.undo(store)
    assert batches.listed(store)["out"].to_list() == [4]
    assert not set(ids_of(first)) & set(ids_of(batches.hand_out(store, Asked(new=60))))


def test_what_was_exported_before_there_were_batches_is_handed_out_no_more(store: Store) -> None:
    ranked = ranking(Path(store.root))["sample_id"].to_list()
    old = pl.DataFrame({"sample_id": ranked[:3], "kind": ["exported"] * 3, "created": ["2026-01-01"] * 3})
    store.write_frame("ledger/000001.parquet", old)
    assert batches.listed(store).is_empty()
    assert ids_of(batches.hand_out(store, Asked(new=2))) == ranked[3:5]


def test_a_batch_keeps_the_day_by_which_it_is_due_and_is_overdue_after_it_while_images_are_out(store: Store) -> None:
    due = batches.due_day("3d", date(2026, 11, 28))
    assert due == batches.due_day("2026-12-01", date(2026, 12, 1)) == date(2026, 12, 1)
    assert batches.due_day("2w", due) == date(2026, 12, 15)
    first = batches.hand_out(store, Asked(new=4))
    second = batches.enter(store, batches.choose(store, Asked(new=4, name="Monday")), due=due)
    assert (first.due, second.due) == (None, due)
    again = batches.choose(store, Asked(new=4, name="Monday"))
    assert batches.enter(store, again, due=date(2027, 1, 1)).due == due
    assert ledger.length(store) == 2

    def told(day: date) -> list[tuple[str | None, bool]]:
        return batches.listed(store, day).select("due", "is_overdue").rows()

    assert told(due) == [(None, False), ("2026-12-01", False)]
    assert told(date(2026, 12, 2)) == [(None, False), ("2026-12-01", True)]
    ledger.append(store, "labelled", ids_of(second)[:3])
    assert told(date(2026, 12, 2))[1][1]
    ledger.append(store, "skipped", ids_of(second)[3:], reason="unusable")
    assert not told(date(2026, 12, 2))[1][1]
    assert batches.listed(store)["last_back"].to_list()[0] is None
    assert batches.listed(store)["last_back"].to_list()[1].startswith(str(datetime.now(UTC).date()))
    for text in ("3", "d", "x3d", "2026-11-27", "2026-13-01", "-1d", "9999999999d", ""):
        with pytest.raises(ConfigError, match="expected a day"):
            batches.due_day(text, date(2026, 11, 28))


def test_wrong_requests_are_refused(store: Store, tmp_path: Path) -> None:
    for asked in (Asked(at="0"), Asked(at="200%"), Asked(new=3, control="x")):
        with pytest.raises(ConfigError, match="expected a count above 0 or a percentage"):
            batches.hand_out(store, asked)
    with pytest.raises(ConfigError, match="expected at most the 64 images that are ranked"):
        batches.hand_out(store, Asked(at="65"))
    with pytest.raises(ConfigError, match="expected a ranking, found none yet"):
        batches.hand_out(Store(str(tmp_path / "none")), Asked(new=1))
    assert ledger.length(store) == 0
